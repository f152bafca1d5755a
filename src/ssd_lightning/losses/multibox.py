"""The multibox loss (SSD paper, section 2.2, equations 1 to 3)."""

from collections.abc import Sequence
from typing import Literal, get_args

import torch
import torch.distributed as dist
from torch import Tensor, nn

from ssd_lightning.checks import require_choice, require_number
from ssd_lightning.errors import ConfigurationError, DataError
from ssd_lightning.losses.box_losses import BoxLoss, SmoothL1Loss
from ssd_lightning.losses.class_losses import ClassLoss, HardNegativeCrossEntropy
from ssd_lightning.losses.matchers import BipartiteMatcher, Matcher
from ssd_lightning.ops.image_columns import check_columns, check_labels, check_normalised
from ssd_lightning.ops.matching import Assignment
from ssd_lightning.ops.rows import is_on_host, rows_that_count, take_rows
from ssd_lightning.types import SSDOutput, Target

Normalizer = Literal["positives", "positives_per_image", "batch_size", "priors"]


class MultiBoxLoss(nn.Module):
    """Class loss and box loss over matched priors. The defaults are the paper's.

    `forward` first calls `match`, then `compare`. `SSDModule` calls these two itself, because it also logs values of
    the assignment.

    Args:
        matcher: says what each prior should predict, such as `ArgmaxMatcher()`.
        class_loss: compares the class logits of all priors with the matched labels, such as `FocalLoss()`.
        box_loss: compares the offsets of positive priors with the matched boxes, such as `IoULoss("giou")`.
        box_weight: weight of the box loss, the paper's alpha.
        normalizer: the number by which both losses are divided; see `image_weights`.

    Raises:
        ConfigurationError: a setting that cannot work.
    """

    def __init__(
        self,
        *,
        matcher: Matcher = BipartiteMatcher(),  # noqa: B008  these objects cannot be changed
        class_loss: ClassLoss = HardNegativeCrossEntropy(),  # noqa: B008
        box_loss: BoxLoss = SmoothL1Loss(),  # noqa: B008
        box_weight: float = 1.0,
        normalizer: Normalizer = "positives",
    ) -> None:
        super().__init__()
        for name, part in (("matcher", matcher), ("class_loss", class_loss), ("box_loss", box_loss)):
            if not callable(part) or isinstance(part, type):
                raise ConfigurationError(
                    f"loss.{name} is {part!r}; it must be an object: on the command line, choose one by loss/{name}="
                )
        require_number("loss.box_weight", box_weight, 0)
        require_choice("loss.normalizer", normalizer, get_args(Normalizer))
        self.matcher = matcher
        self.class_loss = class_loss
        self.box_loss = box_loss
        self.box_weight = box_weight
        self.normalizer: Normalizer = normalizer

    def forward(self, output: SSDOutput, targets: Sequence[Target]) -> dict[str, Tensor]:
        """Match and compare the network's output for B images with their ground truth; see `match` and `compare`."""
        return self.compare(output, self.match(output, targets))

    def match(self, output: SSDOutput, targets: Sequence[Target]) -> Assignment:
        """Check the ground truth of B images, and say what each prior should predict.

        Args:
            output: the network's output for these images.
            targets: B targets; of each only `boxes` and `labels` are needed. Boxes that are not finite or have no area
                are not matched.

        Raises:
            DataError: there are not B targets, or the boxes or labels of one have a wrong shape. For targets on the
                host also: a label is outside 1..C, or a box is not normalised.
            ValueError: offsets, logits and priors do not fit together.
        """
        batch, _, num_logits = output.check().class_logits.shape
        if len(targets) != batch:
            raise DataError(f"got {len(targets)} targets for the network's output of {batch} images")
        check_columns(targets, "labels", targets=targets, what="target")
        if all(is_on_host(target["boxes"]) and is_on_host(target["labels"]) for target in targets):
            # On an accelerator, the host would have to wait for the values.
            check_labels(targets, num_logits - 1, targets=targets, what="annotated")
            check_normalised(targets, targets=targets)
        return self.matcher(targets, output.priors_cxcywh)

    def compare(self, output: SSDOutput, assignment: Assignment) -> dict[str, Tensor]:
        """Compare the network's output with what each prior should predict.

        Args:
            output: the network's output for B images.
            assignment: result of the matcher for these images.

        Returns:
            `loss_box` and `loss_cls`, float32 scalars, both divided by the normaliser. The total loss is their sum.
            In training on several ranks, the normaliser counts over all ranks, so that the averaged gradients equal
            those of one big batch. In evaluation, each rank counts its own images, because ranks may make different
            numbers of steps.

        Raises:
            ConfigurationError: the matcher, the class loss or the box loss gives a tensor of another shape than its
                protocol says.
        """
        _require_shape("loss.matcher", assignment.labels, output.class_logits.shape[:2])
        positive = assignment.labels > 0  # [B, K]
        weights = image_weights(positive.sum(dim=1), positive.shape[1], self.normalizer, over_ranks=self.training)
        class_loss = self.class_loss(output.class_logits, assignment.labels)  # [B, K]
        rows = rows_that_count(positive)
        boxes_xyxy, priors_cxcywh = assignment.matched_boxes(output.priors_cxcywh, rows)  # [R, 4] each
        box_loss = self.box_loss(take_rows(output.box_offsets, rows), boxes_xyxy, priors_cxcywh)  # [R]
        _require_shape("loss.class_loss", class_loss, positive.shape)
        _require_shape("loss.box_loss", box_loss, boxes_xyxy.shape[:1])
        box_loss = torch.where(take_rows(positive, rows), box_loss, 0.0)
        box_weights = take_rows(weights[:, None].expand_as(positive), rows)
        return {
            "loss_box": self.box_weight * (box_weights * box_loss).sum(),
            "loss_cls": (weights * class_loss.sum(dim=1)).sum(),
        }


def _require_shape(name: str, value: Tensor, shape: torch.Size) -> None:
    # Others would broadcast: a mean over the priors would count once for each of them.
    if value.shape != shape:
        raise ConfigurationError(f"{name} gives a tensor of the shape {list(value.shape)}; it must be {list(shape)}")


def image_weights(
    num_positive: Tensor, num_priors: int, normalizer: Normalizer = "positives", *, over_ranks: bool = False
) -> Tensor:
    """Compute the factor of each image's loss, which is the sum over its priors.

    Args:
        num_positive: int64 `[B]`, number of positive priors of each image.
        num_priors: K.
        normalizer: the number by which the loss is divided; at least 1. `positives`: positive priors of the batch
            (the paper, Caffe, ssd.pytorch, lufficc, qfgaohao, torchvision, gluon, mmdet). `positives_per_image`: each
            image by its own positive priors, then the mean over the images (NVIDIA). `batch_size`: images. `priors`:
            all priors of the batch (Caffe's `FULL`; d2l's TinySSD, with `box_weight` .25, because it also divides the
            box loss by the four coordinates).
        over_ranks: count over all ranks.

    Returns:
        float32 `[B]`.
    """
    batch = len(num_positive)
    weights = torch.ones_like(num_positive, dtype=torch.float32)
    if normalizer == "positives_per_image":
        weights = 1 / num_positive.clamp(min=1)
    if normalizer == "positives":
        count = num_positive.sum()
    else:
        count = num_positive.new_full((), batch * num_priors if normalizer == "priors" else batch)
    num_ranks = 1
    if over_ranks and dist.is_available() and dist.is_initialized():
        num_ranks = dist.get_world_size()
        dist.all_reduce(count)
    return weights * (num_ranks / count.clamp(min=1))
