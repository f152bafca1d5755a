"""Draw a training sample with the matched priors of each object."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from ssd_lightning.visualization.boxes import Rectangle, TaggedBox, draw_boxes, draw_outline, fitting_size, whole_pixels
from ssd_lightning.visualization.colours import BLACK, class_colour, text_colour
from ssd_lightning.visualization.sheet import (
    GAP_PX,
    INK,
    SOFT_INK,
    WARNING_INK,
    Panel,
    blank,
    frame,
    lay_out,
    write_line,
)

IMAGE_PX, TEXT_PX = 480, 520
"""Longer side of an image, and width of the list next to it."""
LINE_PX = 22
SMALL = 0.2
"""Objects with sides below this fraction of the image's sides are hard to see."""
CLOSE_UPS, CLOSE_UP_PX = 2, 200
MOST_LINES = 12
"""Maximum lines of the list, which may be higher than its image."""
LEAST_WINDOW_PX = 8.0
"""Smallest size of a close-up."""
FADING = 0.25
PRIOR_OPACITY = 0.85
WHOLE = np.array([0.0, 0.0, 1.0, 1.0])


@dataclass(frozen=True)
class MatchedObject:
    """An object and its matched priors; boxes are normalised."""

    name: str
    box_xyxy: np.ndarray
    """float `[4]`."""
    priors_xyxy: np.ndarray
    """float `[P, 4]`."""
    levels: np.ndarray
    """int `[P]`: feature map of each prior, 1 for the finest."""
    best_iou: float
    is_forced: bool
    """Whether its best prior is below the threshold but still matched."""

    @property
    def is_weak(self) -> bool:
        """Whether no prior reaches it without forcing."""
        return self.is_forced or not len(self.priors_xyxy)


def describe_object(number: int, matched: MatchedObject) -> str:
    """Describe in one line how many priors an object has, on which levels, and whether one was forced."""
    count = len(matched.priors_xyxy)
    by_level = Counter(matched.levels.tolist())
    what = ", ".join(f"{by_level[level]} on level {level}" for level in sorted(by_level)) or "no prior"
    if matched.is_forced:
        what = f"{count} forced, level {matched.levels[0]}"
    return f"{number}  {matched.name}: {what}, best IoU {matched.best_iou:.2f}"


def draw_matches(image: np.ndarray, objects: Sequence[MatchedObject]) -> np.ndarray:
    """Draw a sample with its objects (solid) and their priors (dashed), one colour per object, with a list next to it.

    Up to two objects that are hard to see, or that no prior reaches, are enlarged.

    Returns:
        uint8 `[H', W', 3]`.
    """
    size = fitting_size(image, IMAGE_PX, IMAGE_PX)
    close_ups = hard_to_see(objects)[:CLOSE_UPS]
    extra = CLOSE_UP_PX + LINE_PX + 10 if close_ups else 0
    list_height = LINE_PX * min(len(objects), MOST_LINES)
    # Close-ups are placed where there is space: below the image of a long list, else below the list.
    is_below_image = size[1] < list_height
    height = max(size[1] + extra, list_height) if is_below_image else max(size[1], list_height + extra)
    canvas = blank(height, IMAGE_PX + GAP_PX + TEXT_PX)
    canvas.paste(Image.fromarray(draw_window(image, objects, size=size)), ((IMAGE_PX - size[0]) // 2, 0))
    left = IMAGE_PX + GAP_PX
    _write_list(canvas, objects, left=left, height=height if is_below_image else height - extra)
    for place, index in enumerate(close_ups):
        window = _window_around(objects[index], image.shape[:2])
        detail = draw_window(image, objects, size=(CLOSE_UP_PX, CLOSE_UP_PX), window_xyxy=window)
        x = (0 if is_below_image else left) + place * (CLOSE_UP_PX + GAP_PX)
        canvas.paste(Image.fromarray(detail), (x, height - CLOSE_UP_PX))
        zoom = CLOSE_UP_PX / ((window[2] - window[0]) * size[0])
        caption = f"object {index + 1}, {zoom:.1f} times larger"
        corner = (x, height - CLOSE_UP_PX - LINE_PX)
        write_line(ImageDraw.Draw(canvas), corner, caption, size=14, max_width=CLOSE_UP_PX, colour=SOFT_INK)
    return np.array(canvas)


def draw_match_sheet(
    rows: Sequence[tuple[np.ndarray, Sequence[MatchedObject]]], *, title: str, lines: Sequence[str] = ()
) -> np.ndarray:
    """Draw several samples, images uint8 `[H, W, 3]` with their objects, below each other: uint8 `[H, W, 3]`."""
    legend = "Solid: objects. Dashed, in the colour of the object: its matched priors."
    panels = [Panel(draw_matches(image, objects)) for image, objects in rows]
    return lay_out(panels, columns=1, title=title, lines=[*lines, legend])


def hard_to_see(objects: Sequence[MatchedObject]) -> list[int]:
    """Choose the objects to enlarge: first those that no prior reaches, then the smallest."""
    sides = [float((matched.box_xyxy[2:] - matched.box_xyxy[:2]).max()) for matched in objects]
    chosen = [index for index, matched in enumerate(objects) if sides[index] < SMALL or matched.is_weak]
    return sorted(chosen, key=lambda index: (not objects[index].is_weak, sides[index]))


def draw_window(
    image: np.ndarray, objects: Sequence[MatchedObject], *, size: tuple[int, int], window_xyxy: np.ndarray = WHOLE
) -> np.ndarray:
    """Draw a sample or a part of it.

    It is the part `window_xyxy`, normalised, and has the `size` (width, height).
    """
    height, width = image.shape[:2]
    left, top, right, bottom = (window_xyxy * [width, height, width, height]).tolist()
    canvas = Image.fromarray(image).resize(size, Image.Resampling.BICUBIC, box=(left, top, right, bottom))
    canvas = Image.blend(canvas, blank(size[1], size[0]), FADING)
    with_priors = canvas.copy()
    draw = ImageDraw.Draw(with_priors)
    for index, matched in enumerate(objects):
        for prior in matched.priors_xyxy:
            rectangle = _place(prior, window_xyxy, size)
            draw_outline(draw, rectangle, BLACK, 1)
            draw_outline(draw, rectangle, class_colour(index + 1), 2, dash=5)
    canvas = Image.blend(canvas, with_priors, PRIOR_OPACITY)
    tagged = []
    for index, matched in enumerate(objects):
        place = _place(matched.box_xyxy, window_xyxy, size)
        is_inside = place[0] < size[0] and place[1] < size[1] and place[2] > 0 and place[3] > 0
        text = f"{index + 1}{' !' * matched.is_weak}" if is_inside else ""
        tagged.append(TaggedBox(place, class_colour(index + 1), text))
    draw_boxes(canvas, tagged, width=2)
    return frame(canvas)


def _place(box_xyxy: np.ndarray, window_xyxy: np.ndarray, size: tuple[int, int]) -> Rectangle:
    corner, sides = window_xyxy[:2], window_xyxy[2:] - window_xyxy[:2]
    return whole_pixels((box_xyxy - [*corner, *corner]) / [*sides, *sides] * [*size, *size])


def _window_around(matched: MatchedObject, image_size: tuple[int, int]) -> np.ndarray:
    """Return a square window with an object and its priors in the centre: xyxy, normalised."""
    scale = np.array(image_size[::-1])
    boxes = np.concatenate((matched.box_xyxy[None], matched.priors_xyxy)) * [*scale, *scale]
    low, high = boxes[:, :2].min(0).clip(0), boxes[:, 2:].max(0).clip(None, scale)
    side = min(max(float((high - low).max()) * 1.4, LEAST_WINDOW_PX), float(scale.min()))
    corner = ((low + high) / 2 - side / 2).clip(0, scale - side)
    return np.concatenate((corner, corner + side)) / [*scale, *scale]


def _write_list(canvas: Image.Image, objects: Sequence[MatchedObject], *, left: int, height: int) -> None:
    draw = ImageDraw.Draw(canvas)
    most = max(1, height // LINE_PX)
    shown = list(enumerate(objects))
    if len(shown) > most:  # objects that no prior reaches come first
        shown = sorted(sorted(shown, key=lambda item: not item[1].is_weak)[: most - 1], key=lambda item: item[0])
    for line, (index, matched) in enumerate(shown):
        y, colour = line * LINE_PX + 2, class_colour(index + 1)
        draw.rectangle((left, y, left + 14, y + 12), fill=colour, outline=text_colour(colour))
        ink = WARNING_INK if matched.is_weak else INK
        text = describe_object(index + 1, matched)
        write_line(draw, (left + 24, y), text, size=15, max_width=TEXT_PX - 24, colour=ink)
    rest = len(objects) - len(shown)
    if rest or not objects:
        corner = (left + 24, len(shown) * LINE_PX + 2)
        text = f"and {rest} more" if rest else "no object"
        write_line(draw, corner, text, size=15, max_width=TEXT_PX - 24, colour=SOFT_INK)
