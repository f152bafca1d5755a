"""Verifies an exported file: runs it and its checkpoint on the same images, and tabulates the result."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median

import numpy as np
import torch
from torch import Tensor

from ssd_lightning.data.resize import placements_of, undo_detections, undo_targets
from ssd_lightning.data.toy_scene import draw_toy_image
from ssd_lightning.inference.detector import Detector
from ssd_lightning.inference.runtime.network import ExportedNetwork
from ssd_lightning.metrics.coco import COCOMeanAveragePrecision
from ssd_lightning.metrics.voc import VOCMeanAveragePrecision
from ssd_lightning.models.postprocess import PostProcess
from ssd_lightning.types import Detections, Target
from ssd_lightning.visualization.tables import TextTable, quantity, score_text, spread

MOST_UNMATCHED = 0.005
"""Share of detections that may have no partner. Of two boxes whose scores are equal up to rounding, either may suppress
the other, and either may get the last place of a full list."""

RESIZE_CLOSE = 0.05
"""Largest difference of partners if the file resizes images itself. Its pixels differ from OpenCV's by less than 1 of
255, which changes the network's outputs by about .01."""
RESIZE_MOST_UNMATCHED = 0.1
"""Share of detections that may have no partner if the file resizes images itself. About .01 is normal, because weak
detections cross a threshold. Swapped colours or sides leave most detections without a partner."""

Batch = tuple[Tensor, Sequence[Target] | None]
"""Images, uint8 `[B, 3, H, W]` of the network's size, and their targets, if known."""

Seconds = tuple[tuple[float, ...], tuple[float, ...]]
"""Times of the checkpoint and of the file, in pairs."""


@dataclass
class Parity:
    """Differences over some images."""

    close: float = 0.02
    """Two detections of a class match if no edge (as a share of the image) and no score differs by more than this."""
    images: int = 0
    """Number of compared images."""
    detections: int = 0
    """Number of detections of the first detector."""
    others: int = 0
    """Number of detections of the second detector."""
    unmatched: int = 0
    """Number of detections of either detector without a match."""
    boxes: float = 0.0
    """Largest difference of an edge among matched detections, normalised."""
    boxes_px: float = 0.0
    """Largest difference of an edge in pixels."""
    scores: float = 0.0
    """Largest difference of a score among matched detections."""

    def update(self, ours: Detections, theirs: Detections, size_px: tuple[int, int]) -> None:
        """Compare the detections of one image of `size_px` (height, width)."""
        boxes = (ours["boxes"][:, None] - theirs["boxes"]).abs()  # [M, N, 4]
        scores = (ours["scores"][:, None] - theirs["scores"]).abs()  # [M, N]
        same_class = ours["labels"][:, None] == theirs["labels"]
        cost = torch.maximum(boxes.amax(dim=2), scores).where(same_class, torch.inf)
        first, second = _pairs(cost, self.close)
        matched = boxes[first, second]  # [P, 4]
        sides_px = matched.new_tensor(size_px[::-1]).repeat(2)
        self.images += 1
        self.detections += len(ours["scores"])
        self.others += len(theirs["scores"])
        self.unmatched += len(ours["scores"]) + len(theirs["scores"]) - 2 * len(first)
        if first:
            self.boxes = max(self.boxes, float(matched.max()))
            self.boxes_px = max(self.boxes_px, float((matched * sides_px).max()))
            self.scores = max(self.scores, float(scores[first, second].max()))

    @property
    def unmatched_share(self) -> float:
        """Unmatched share of all detections of both."""
        return self.unmatched / max(1, self.detections + self.others)


def _pairs(cost: Tensor, most: float) -> tuple[list[int], list[int]]:
    """Pair rows with columns greedily, lowest cost first, each at most once."""
    rows, columns = (cost <= most).nonzero(as_tuple=True)
    order = cost[rows, columns].argsort(stable=True)
    pairs: dict[int, int] = {}
    taken: set[int] = set()
    for row, column in zip(rows[order].tolist(), columns[order].tolist(), strict=True):
        if row not in pairs and column not in taken:
            pairs[row] = column
            taken.add(column)
    return list(pairs), list(pairs.values())


@dataclass(frozen=True)
class Verification:
    """Result of a verification.

    Attributes:
        parity: differences on images of the network's size.
        whole: differences on images of other sizes, if the file resizes.
        scores: name of a mean average precision -> values of the checkpoint and of the file, with the same
            post-processing.
        own_scores: those of the checkpoint with its own post-processing, if the file cannot contain it.
    """

    parity: Parity
    whole: Parity | None = None
    scores: dict[str, tuple[float, float]] = field(default_factory=dict)
    own_scores: dict[str, float] = field(default_factory=dict)

    @property
    def map_loss(self) -> float:
        """Largest loss of a mean average precision. NaN, from data without objects, is ignored."""
        losses = [before - after for before, after in self.scores.values()]
        return max((loss for loss in losses if loss == loss), default=0.0)

    @property
    def sides(self) -> list[tuple[str, Parity, float]]:
        """A prefix, the differences, and the largest share of unmatched detections."""
        resized = [] if self.whole is None else [("resized: ", self.whole, RESIZE_MOST_UNMATCHED)]
        return [("", self.parity, MOST_UNMATCHED), *resized]

    def failures(self, *, tolerance: float | None, max_map_loss: float) -> list[str]:
        """List the exceeded limits, one sentence each.

        Args:
            tolerance: limit for boxes (normalised) and scores. None for a quantized network, which is judged only by
                mAP.
            max_map_loss: largest allowed loss of any mean average precision.
        """
        found: list[str] = []
        if tolerance is not None:
            for what, largest in (("boxes", self.parity.boxes), ("scores", self.parity.scores)):
                if not largest <= tolerance:
                    found.append(f"{what} differ by {largest:.2g}, more than tolerance={tolerance:g}")
            for prefix, parity, most in self.sides:
                if parity.unmatched_share > most:
                    where = " in images that the file resizes" if prefix else ""
                    number = f"{parity.unmatched} of the {parity.detections + parity.others} detections{where}"
                    found.append(f"{number} have no partner on the other side, more than {most:.1%}")
        if self.map_loss > max_map_loss:
            found.append(f"mAP is lower by {self.map_loss:.4f}, more than max_map_loss={max_map_loss:g}")
        return found


def verify_export(
    checkpoint: Detector,
    exported: Detector,
    batches: Iterable[Batch],
    images: Sequence[np.ndarray] = (),
    *,
    own: PostProcess | None = None,
) -> Verification:
    """Run the detectors of the checkpoint and of the exported file, both on the CPU, on the same images.

    Args:
        checkpoint: has the post-processing of the file.
        exported: detector of the exported file.
        batches: batches with targets also measure mean average precision.
        images: uint8 `[H, W, 3]` RGB of any size, for a file that resizes.
        own: post-processing of the checkpoint, if the file cannot contain it; for `own_scores`.
    """
    parity, counted = Parity(), 0
    num_sides = 2 if own is None else 3
    metrics = [
        (VOCMeanAveragePrecision(len(checkpoint.class_names)), COCOMeanAveragePrecision()) for _ in range(num_sides)
    ]
    for batch, targets in batches:
        both = [detector.detect(batch) for detector in (checkpoint, exported)]
        for ours, theirs in zip(*both, strict=True):
            parity.update(ours, theirs, checkpoint.image_size)
        if targets is not None:
            counted += len(batch)
            placements, undone = placements_of(targets), undo_targets(targets)
            by_own = [] if own is None else [own(checkpoint.run(batch))]
            for of_side, detections in zip(metrics, [*both, *by_own], strict=True):
                for metric in of_side:
                    metric.update(undo_detections(detections, placements), undone)
    scores: dict[str, tuple[float, float]] = {}
    own_scores: dict[str, float] = {}
    if counted:
        first, second, *third = ({**voc.compute(), **coco.compute()} for voc, coco in metrics)
        scores = {name: (float(first[key]), float(second[key])) for name, key in MEANS.items()}
        own_scores = {name: float(of_own[key]) for of_own in third for name, key in MEANS.items()}
    whole = None
    if images and isinstance(net := exported.net, ExportedNetwork) and net.description.resizes:
        whole = Parity(close=RESIZE_CLOSE)
        for image in images:
            [ours] = checkpoint.detect(checkpoint.prepare([image])[0])
            with torch.inference_mode():
                [theirs] = net.detect_inputs(torch.from_numpy(image)[None], net.description.postprocess)
            whole.update(ours, theirs, (image.shape[0], image.shape[1]))
    return Verification(parity, whole, scores, own_scores)


MEANS = {"mAP 11-point": "map_11point", "mAP area": "map_area", "mAP .5:.95": "map"}


def drawn_images(count: int, image_size: tuple[int, int]) -> list[np.ndarray]:
    """Draw scenes that are not in the training data: uint8 `[H, W, 3]`, with size and shape unlike the input's."""
    size_px = (max(128, image_size[0] * 3 // 2), max(160, image_size[1] * 5 // 4))
    return [draw_toy_image(seed=2**20, split="test", index=i, size_px=size_px)[0] for i in range(count)]


def verification_table(
    verification: Verification,
    *,
    tolerance: float | None,
    max_map_loss: float,
    seconds: Mapping[int, Seconds],
    bytes_of: tuple[int, int],
) -> TextTable:
    """Tabulate the result of a verification.

    There is no limit for boxes and scores if `tolerance` is None. `seconds` has those of a batch by its size,
    `bytes_of` the sizes of the checkpoint's weights and of the file.
    """
    rows: list[tuple[str, ...]] = []
    for prefix, parity, most_unmatched in verification.sides:
        limit = "" if tolerance is None else f"{most_unmatched:.1%}"
        largest = "" if tolerance is None or prefix else f"{tolerance:g}"
        counts = (str(parity.detections), str(parity.others))
        unmatched = f"{parity.unmatched} without partner ({parity.unmatched_share:.1%})"
        rows += [
            (f"{prefix}detections", *counts, unmatched, limit),
            (f"{prefix}boxes", "", "", f"{parity.boxes:.2g} ({parity.boxes_px:.2g} px)", largest),
            (f"{prefix}scores", "", "", f"{parity.scores:.2g}", largest),
        ]
    for name, (before, after) in verification.scores.items():
        rows.append((name, score_text(before), score_text(after), f"{after - before:+.4f}", f"{-max_map_loss:g}"))
    for batch, (before_s, after_s) in seconds.items():
        ratio = spread(sorted(before / after for before, after in zip(before_s, after_s, strict=True)))
        times = (quantity(median(before_s), "s"), quantity(median(after_s), "s"))
        rows.append((f"time, batch of {batch}", *times, f"x {ratio}", ""))
    size = tuple(f"{count / 2**20:.1f} MiB" for count in bytes_of)
    rows.append(("weights / file", *size, f"{bytes_of[1] / bytes_of[0]:.2f} of the size", ""))
    return TextTable(("", "checkpoint", "file", "difference", "limit"), tuple(rows))
