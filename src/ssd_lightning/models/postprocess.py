"""From the network's output to detections (SSD paper, section 3.7, "Inference time")."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, NamedTuple, get_args

import torch
from torch import Tensor

from ssd_lightning.checks import require_choice, require_number
from ssd_lightning.errors import ConfigurationError
from ssd_lightning.ops.boxes import clip_boxes, cxcywh_to_xyxy
from ssd_lightning.ops.coder import VARIANCES, decode
from ssd_lightning.ops.nms import Decay, batched_nms, batched_soft_nms, rank_in_group
from ssd_lightning.types import Detections, SSDOutput

ENOUGH_CANDIDATES = 1000
"""NMS first sees this many boxes of an image, the best ones. They are nearly always enough for 200 detections."""


@dataclass(frozen=True, kw_only=True)
class PostProcess:
    """Softmax, threshold, decode and NMS. The defaults are those of the paper and its Caffe code.

    Equal scores are ordered by class, then by prior. A prior with a logit that is NaN
    or positive infinity detects nothing.

    Args:
        score_threshold: only scores above it count. Soft-NMS also drops boxes whose score it lowers to that.
        iou_threshold: of two boxes of a class that overlap more, NMS drops the weaker one. Soft-NMS with `linear`
            lowers scores from there on; `gaussian` does not use it.
        top_k: best boxes of a class that enter NMS.
        max_detections: best boxes of an image that are kept.
        soft_nms: None for NMS; `linear` or `gaussian` for Soft-NMS, see `ops.nms.batched_soft_nms`.
        soft_nms_sigma: of `gaussian`.
        class_agnostic: boxes of different classes drop each other too.
        clip_first: clip boxes to the image before NMS, as torchvision does. The Caffe reference clips after it.
        variances: scale of the centre and of the size offsets.

    Raises:
        ConfigurationError: a setting that cannot work; the message has its name and value.
    """

    score_threshold: float = 0.01
    iou_threshold: float = 0.45
    top_k: int = 400
    max_detections: int = 200
    soft_nms: Decay | None = None
    soft_nms_sigma: float = 0.5
    class_agnostic: bool = False
    clip_first: bool = False
    variances: tuple[float, float] = VARIANCES

    def __post_init__(self) -> None:
        for name in ("score_threshold", "iou_threshold"):
            require_number(f"postprocess.{name}", getattr(self, name), 0, 1)
        for name in ("top_k", "max_detections"):
            require_number(f"postprocess.{name}", getattr(self, name), 1, whole=True)
        if self.soft_nms is not None:
            require_choice("postprocess.soft_nms", self.soft_nms, ("null", *get_args(Decay)))
        require_number("postprocess.soft_nms_sigma", self.soft_nms_sigma, 0, above_low=True)
        for name in ("class_agnostic", "clip_first"):
            if not isinstance(getattr(self, name), bool):
                raise ConfigurationError(f"postprocess.{name} is {getattr(self, name)!r}; it can be true or false")
        if not isinstance(self.variances, list | tuple) or len(self.variances) != 2:
            raise ConfigurationError(f"postprocess.variances is {self.variances!r}; it must be two numbers")
        for variance in self.variances:
            require_number("postprocess.variances", variance, 0, above_low=True)
        object.__setattr__(self, "variances", tuple(self.variances))  # files have lists

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any]) -> "PostProcess":
        """Make it from plain values, such as those of a checkpoint.

        Raises:
            ConfigurationError: a setting does not exist or cannot work.
        """
        known = {field.name for field in fields(cls)}
        for name, value in settings.items():
            if name not in known:
                raise ConfigurationError(f"there is no setting postprocess.{name} (its value is {value!r})")
        return cls(**settings)

    def settings(self) -> dict[str, Any]:
        """Give all settings as plain values, for files: a default may change with the version."""
        return {**asdict(self), "variances": list(self.variances)}

    @torch.no_grad()
    def __call__(self, output: SSDOutput) -> list[Detections]:
        """Detect objects in B images, with boxes within the image."""
        candidates = self.candidates(output.class_logits)
        counts = candidates.image.bincount(minlength=len(output.class_logits)).tolist()
        if self.soft_nms is not None or max(counts, default=0) <= ENOUGH_CANDIDATES:
            return self._detect(output, candidates)
        # A box can only be dropped by a better one. NMS of the best boxes alone therefore gives the same detections.
        # An untrained network has 8000 candidates in an image. This makes it three times as fast.
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
        """Find the `top_k` best boxes of each class of each image."""
        scores = class_logits.float().softmax(dim=-1)  # [B, K, C + 1]
        scores[..., 0] = 0.0  # the background is no detection
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
            scores = scores[kept]
        else:
            kept, scores = batched_soft_nms(
                boxes_xyxy,
                scores,
                group,
                decay=self.soft_nms,
                iou_threshold=self.iou_threshold,
                sigma=self.soft_nms_sigma,
                score_threshold=self.score_threshold,
                max_per_group=self.max_detections,
            )
        best = _best_of_groups(image[kept], scores, self.max_detections)
        kept, scores = kept[best], scores[best]
        per_image = image[kept].bincount(minlength=batch).tolist()
        columns = (x.split(per_image) for x in (clip_boxes(boxes_xyxy[kept]), scores, label[kept]))
        return [Detections(boxes=boxes, scores=found, labels=of) for boxes, found, of in zip(*columns, strict=True)]


class Candidates(NamedTuple):
    """Boxes that can become detections, one a row."""

    image: Tensor
    """int64 `[R]`: index in the batch."""
    prior: Tensor
    """int64 `[R]`: index of the prior."""
    label: Tensor
    """int64 `[R]`, 1..C."""
    scores: Tensor
    """float32 `[R]`, after softmax."""

    def rows(self, index: Tensor) -> "Candidates":
        """Give some of the rows."""
        return Candidates(*(column[index] for column in self))


def _best_of_groups(group: Tensor, scores: Tensor, most: int) -> Tensor:
    """Give the rows with the best scores of each group, ordered by group and descending score: int64 `[M]`."""
    order = _by_group_and_score(group, scores)
    return order[rank_in_group(group[order]) < most]


def _by_group_and_score(group: Tensor, scores: Tensor) -> Tensor:
    """Order rows by group, then by descending score; equal ones stay in their order: int64 `[R]`."""
    order = scores.argsort(descending=True, stable=True)
    return order[group[order].argsort(stable=True)]
