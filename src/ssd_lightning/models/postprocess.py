"""From the network's output to detections (SSD paper, section 3.7, "Inference time")."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, NamedTuple, get_args

import torch
from torch import Tensor

from ssd_lightning.checks import require_bool, require_number, require_positive_pair
from ssd_lightning.errors import ConfigurationError
from ssd_lightning.models.config import to_config
from ssd_lightning.ops.boxes import clip_boxes, cxcywh_to_xyxy
from ssd_lightning.ops.coder import VARIANCES, decode
from ssd_lightning.ops.nms import Decay, batched_nms, batched_soft_nms, rank_in_group, vote_boxes
from ssd_lightning.types import Detections, SSDOutput

ENOUGH_CANDIDATES = 1000
"""NMS first gets this many of the best boxes of an image. They are nearly always enough for 200 detections."""


@dataclass(frozen=True, kw_only=True)
class PostProcess:
    """Softmax, threshold, decode and NMS. The defaults are those of the paper and its Caffe code.

    Equal scores are ordered by class, then by prior. A prior with a logit that is NaN or positive infinity gives no
    detection.

    Args:
        score_threshold: boxes need a higher score. Soft-NMS also drops boxes whose lowered score is not higher.
        iou_threshold: if two boxes of a class overlap more, NMS drops the one with the lower score. Soft-NMS with
            `linear` lowers scores from this overlap on. `gaussian` does not use this value.
        top_k: number of best boxes of a class that enter NMS.
        max_detections: number of best boxes of an image that are kept after NMS.
        soft_nms: None for NMS; `linear` or `gaussian` for Soft-NMS, see `ops.nms.batched_soft_nms`.
        soft_nms_sigma: sigma of `gaussian`.
        box_voting: None keeps the boxes of NMS. A number moves each to the mean of the candidates of its class that
            overlap it more than this, weighted by their scores, see `ops.nms.vote_boxes`.
        class_agnostic: NMS compares boxes of all classes, not only those of the same class.
        clip_first: clip boxes to the image before NMS, as torchvision does. The Caffe reference clips after NMS.
        variances: scales of the centre and size offsets; those that the training used.

    Raises:
        ConfigurationError: a setting that cannot work; the message has its name and value.
    """

    score_threshold: float = 0.01
    iou_threshold: float = 0.45
    top_k: int = 400
    max_detections: int = 200
    soft_nms: Decay | None = None
    soft_nms_sigma: float = 0.5
    box_voting: float | None = None
    class_agnostic: bool = False
    clip_first: bool = False
    variances: tuple[float, float] = VARIANCES

    def __post_init__(self) -> None:
        shares = ("score_threshold", "iou_threshold", *(("box_voting",) if self.box_voting is not None else ()))
        for name in shares:
            require_number(f"postprocess.{name}", getattr(self, name), 0, 1)
        for name in ("top_k", "max_detections"):
            require_number(f"postprocess.{name}", getattr(self, name), 1, whole=True)
        if self.soft_nms not in (None, *get_args(Decay)):
            raise ConfigurationError(f"postprocess.soft_nms is '{self.soft_nms}'; it can be null, linear or gaussian")
        require_number("postprocess.soft_nms_sigma", self.soft_nms_sigma, 0, above_low=True)
        for name in ("class_agnostic", "clip_first"):
            require_bool(f"postprocess.{name}", getattr(self, name))
        require_positive_pair("postprocess.variances", self.variances)
        object.__setattr__(self, "variances", tuple(self.variances))  # files have lists

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any]) -> "PostProcess":
        """Build the object from plain values, such as those of a checkpoint.

        Raises:
            ConfigurationError: a setting is unknown or cannot work.
        """
        known = {field.name for field in fields(cls)}
        for name, value in settings.items():
            if name not in known:
                raise ConfigurationError(f"there is no setting postprocess.{name} (its value is {value!r})")
        return cls(**settings)

    def settings(self) -> dict[str, Any]:
        """Return all settings as plain values, also those with default values, which may change in later versions."""
        return dict(to_config(asdict(self)))

    @torch.no_grad()
    def __call__(self, output: SSDOutput) -> list[Detections]:
        """Turn the network's output for B images into detections: one entry per image, boxes clipped to the image.

        Raises:
            ValueError: offsets, logits and priors do not fit together.
        """
        candidates = self.candidates(output.check().class_logits)
        counts = candidates.image.bincount(minlength=len(output.class_logits)).tolist()
        needs_all = self.soft_nms is not None or self.box_voting is not None
        if needs_all or max(counts, default=0) <= ENOUGH_CANDIDATES:
            return self._detect(output, candidates)
        # Only better boxes can drop a box. NMS of the best boxes alone therefore keeps the same ones of them. This is
        # three times as fast for an untrained network, which has 8000 candidates in an image.
        best = candidates.rows(_best_of_groups(candidates.image, candidates.scores, ENOUGH_CANDIDATES))
        detections = self._detect(output, best)
        again = [
            index
            for index, (found, count) in enumerate(zip(detections, counts, strict=True))
            if count > ENOUGH_CANDIDATES and len(found["scores"]) < self.max_detections
        ]
        if again:
            is_again = torch.isin(candidates.image, torch.tensor(again, device=candidates.image.device))
            complete = self._detect(output, candidates.rows(is_again))
            for i in again:
                detections[i] = complete[i]
        return detections

    def candidates(self, class_logits: Tensor) -> "Candidates":
        """Find the `top_k` best boxes of each class of each image, for logits `[B, K, C + 1]`."""
        scores = class_logits.float().softmax(dim=-1)  # [B, K, C + 1]
        scores[..., 0] = 0.0  # the background is not an object
        likely = scores > self.score_threshold
        batch, num_priors, num_logits = scores.shape
        if int(likely.count_nonzero()) > batch * num_logits * self.top_k:  # more than memory may hold in COCO
            scores = scores.where(likely, 0.0)  # NaN would count as the largest
            likely &= scores >= scores.topk(min(self.top_k, num_priors), dim=1).values[:, -1:]
        image, prior, label = likely.nonzero(as_tuple=True)
        candidates = Candidates(image, prior, label, scores[image, prior, label])
        return candidates.rows(_best_of_groups(image * num_logits + label, candidates.scores, self.top_k))

    def _detect(self, output: SSDOutput, candidates: "Candidates") -> list[Detections]:
        """Decode the candidates, apply NMS, and keep the best boxes of each image."""
        batch, _, num_logits = output.class_logits.shape
        group = candidates.image if self.class_agnostic else candidates.image * num_logits + candidates.label
        order = _by_group_and_score(group, candidates.scores)
        group, (image, prior, label, scores) = group[order], candidates.rows(order)
        boxes_xyxy = cxcywh_to_xyxy(
            decode(output.box_offsets[image, prior], output.priors_cxcywh[prior], self.variances)
        )
        if self.clip_first:
            boxes_xyxy = clip_boxes(boxes_xyxy)
        if self.soft_nms is None:
            kept = batched_nms(boxes_xyxy, scores, group, self.iou_threshold)  # [M]
            found = scores[kept]
        else:
            kept, found = batched_soft_nms(
                boxes_xyxy,
                scores,
                group,
                decay=self.soft_nms,
                iou_threshold=self.iou_threshold,
                sigma=self.soft_nms_sigma,
                score_threshold=self.score_threshold,
                max_per_group=self.max_detections,
            )
        best = _best_of_groups(image[kept], found, self.max_detections)
        kept, found = kept[best], found[best]
        boxes = boxes_xyxy[kept]
        if self.box_voting is not None:
            of_class = image * num_logits + label
            boxes = vote_boxes(boxes_xyxy, scores, of_class, kept, iou_threshold=self.box_voting)
        per_image = image[kept].bincount(minlength=batch).tolist()
        columns = (x.split(per_image) for x in (clip_boxes(boxes), found, label[kept]))
        return [Detections(boxes=boxes, scores=found, labels=of) for boxes, found, of in zip(*columns, strict=True)]


class Candidates(NamedTuple):
    """Boxes that can become detections, one per row."""

    image: Tensor
    """int64 `[R]`: index in the batch."""
    prior: Tensor
    """int64 `[R]`: index of the prior."""
    label: Tensor
    """int64 `[R]`, 1..C."""
    scores: Tensor
    """float32 `[R]`, after softmax."""

    def rows(self, index: Tensor) -> "Candidates":
        """Select rows by indices or by a bool mask."""
        return Candidates(*(column[index] for column in self))


def _best_of_groups(group: Tensor, scores: Tensor, most: int) -> Tensor:
    """Select the rows with the best scores of each group, ordered by group and descending score: int64 `[M]`."""
    order = _by_group_and_score(group, scores)
    return order[rank_in_group(group[order]) < most]


def _by_group_and_score(group: Tensor, scores: Tensor) -> Tensor:
    """Order rows by group, then by descending score; equal rows keep their order: int64 `[R]`."""
    order = scores.argsort(descending=True, stable=True)
    return order[group[order].argsort(stable=True)]
