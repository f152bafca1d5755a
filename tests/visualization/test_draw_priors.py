import numpy as np
import pytest
import torch

from ssd_lightning.ops.boxes import cxcywh_to_xyxy
from ssd_lightning.ops.priors import SSD300_VOC, PriorLevel, make_priors
from ssd_lightning.visualization.colours import Colour
from ssd_lightning.visualization.draw_priors import (
    LevelPriors,
    draw_level,
    draw_prior_levels,
    draw_prior_overview,
    lay_ground,
    level_caption,
    ratio_colours,
    split_by_level,
)

SIDE_PX = 630
GREY = np.full((300, 300, 3), 128, dtype=np.uint8)


def levels_of(levels: tuple[PriorLevel, ...], image_size: tuple[int, int], clip: bool = False) -> list[LevelPriors]:
    return split_by_level(make_priors(levels, image_size, clip=clip).numpy(), levels, image_size)


def is_colour(image: np.ndarray, colour: Colour) -> np.ndarray:
    return (image == np.array(colour)).all(-1)


@pytest.mark.parametrize("image_size", [(300, 300), (160, 320)])
def test_the_boxes_of_the_middle_cell_are_where_make_priors_has_them(image_size: tuple[int, int]) -> None:
    """One level of one ratio and no large square, so that every line in a colour is known."""
    level = PriorLevel((7, 9), None, 60, None, (2,))
    ground = lay_ground(np.full((*image_size, 3), 128, dtype=np.uint8), SIDE_PX)

    canvas = draw_level(ground, *levels_of((level,), image_size), {1.0: (200, 0, 0), 2.0: (0, 0, 200)})

    of_cell = cxcywh_to_xyxy(make_priors((level,), image_size)).reshape(7, 9, 3, 4)[3, 4].numpy()
    boxes = of_cell * [*ground.size, *ground.size] + [*ground.corner, *ground.corner]
    for colour, drawn in (((200, 0, 0), boxes[:1]), ((0, 0, 200), boxes[1:])):
        rows, columns = np.nonzero(is_colour(canvas, colour))
        edges = np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
        assert np.abs(edges - [*drawn[:, :2].min(0), *drawn[:, 2:].max(0)]).max() <= 1
        places = np.stack([columns, rows, columns, rows])[:, None]
        inward = (places - drawn.T[..., None]) * np.array([1, 1, -1, -1])[:, None, None]
        assert ((inward > -1) & (inward < 3)).any(axis=(0, 1)).all()  # lines are two pixels wide
        assert len(rows) > 100


def test_all_centres_are_marked() -> None:
    level = PriorLevel((5, 8), None, 8, None, ())
    ground = lay_ground(np.full((100, 160, 3), 255, dtype=np.uint8), SIDE_PX)
    canvas = draw_level(ground, *levels_of((level,), (100, 160)), {1.0: (200, 0, 0)})

    centres = make_priors((level,), (100, 160))[:, :2].numpy() * ground.size + ground.corner
    columns, rows = centres.astype(int).T
    assert (canvas[rows, columns].max(-1) < 100).all()
    assert (canvas.max(-1) < 80).sum() == 40 * 9


def test_what_reaches_out_of_the_image_is_faint() -> None:
    level = PriorLevel(1, None, 330, None, ())  # of an input of 300
    ground = lay_ground(GREY, SIDE_PX)
    (drawn_level,) = levels_of((level,), (300, 300))
    canvas = draw_level(ground, drawn_level, {1.0: (200, 0, 0)})

    assert drawn_level.share_reaching_out == 1
    (clipped,) = levels_of((level,), (300, 300), clip=True)
    assert clipped.share_reaching_out == 0
    assert level_caption(1, clipped)[1][2] == "all within the image"
    assert not is_colour(canvas, (200, 0, 0)).any()
    for places in np.nonzero((canvas[..., 0].astype(int) - canvas[..., 1]) > 50):  # reddish
        assert places.max() + 1 - places.min() == pytest.approx(330 / 300 * ground.size[0], abs=1)


def test_the_published_levels_are_counted_and_named() -> None:
    levels = levels_of(SSD300_VOC, (300, 300))

    assert [level.count for level in levels] == [5776, 2166, 600, 150, 36, 4]
    title, lines = level_caption(2, levels[1])
    assert title == "Level 2: 19 x 19 cells, 2,166 priors"
    assert lines[:2] == ("step 16 px, squares of 60 and 81.61 px", "6 a cell: 2 x 1:1, 2:1, 1:2, 3:1, 1:3")
    boxes = np.concatenate([level.boxes_xyxy.reshape(-1, 4) for level in levels])
    assert torch.allclose(torch.from_numpy(boxes), cxcywh_to_xyxy(make_priors(SSD300_VOC, 300)), atol=1e-6)
    for level in (*levels, *levels_of((PriorLevel(5, None, 40, 80, (2, 3), both_sizes=True),), (100, 100))):
        sides = level.boxes_cxcywh[0, 0, :, 2:]
        np.testing.assert_allclose(sides.max(1) / sides.min(1), level.ratios, rtol=1e-5)
    assert list(ratio_colours(levels)) == [1, 2, 3]
    assert len(set(ratio_colours(levels).values())) == 3


def test_sheets_have_a_panel_for_every_level_and_every_level_its_colour() -> None:
    levels = levels_of(SSD300_VOC, (300, 300))
    sheet = draw_prior_levels(GREY, levels, title="t", clipping="not clipped")
    width, height = lay_ground(GREY, 360).canvas.size
    assert sheet.shape[1] == 3 * (width + 18) + 18
    assert 2 * height < sheet.shape[0] < 2 * height + 400
    overview = draw_prior_overview(GREY, levels, title="t", clipping="not clipped")
    assert overview.shape[1] > 900
    for colour in [(213, 94, 0), (0, 114, 178), (0, 158, 115), (204, 121, 167), (86, 180, 233), (230, 159, 0)]:
        assert is_colour(overview, colour).sum() > 300
