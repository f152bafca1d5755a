"""Random outputs of a network, and random targets, on any device."""

import torch
from torch import Tensor
from torchvision.ops import box_iou

from helpers.targets import draw_boxes, make_target
from ssd_lightning.ops.boxes import cxcywh_to_xyxy
from ssd_lightning.types import SSDOutput, Target


def random_output(batch_size: int, priors_cxcywh: Tensor, num_classes: int) -> SSDOutput:
    """Draw the output of an untrained network; it requires gradients."""
    generator = torch.Generator().manual_seed(0)
    offsets = torch.randn(batch_size, len(priors_cxcywh), 4, generator=generator)
    logits = torch.randn(batch_size, len(priors_cxcywh), num_classes + 1, generator=generator)
    device = priors_cxcywh.device
    return SSDOutput(offsets.to(device).requires_grad_(), logits.to(device).requires_grad_(), priors_cxcywh)


def trained_like_output(batch_size: int, priors_cxcywh: Tensor, num_classes: int) -> SSDOutput:
    """Draw the output of a trained network: high scores for 1 to 6 objects that priors overlap, else for background."""
    generator = torch.Generator().manual_seed(0)
    priors = priors_cxcywh.cpu()
    offsets = 0.3 * torch.randn(batch_size, len(priors), 4, generator=generator)
    logits = 0.8 * torch.randn(batch_size, len(priors), num_classes + 1, generator=generator)
    logits[..., 0] += 9
    for image_logits in logits:
        count = int(torch.randint(1, 7, (1,), generator=generator))
        centre, size = torch.rand(2, count, 2, generator=generator)
        boxes = cxcywh_to_xyxy(torch.cat((centre, 0.1 + 0.4 * size), dim=1))
        iou, nearest = box_iou(cxcywh_to_xyxy(priors), boxes).max(dim=1)  # [K]
        labels = torch.randint(1, num_classes + 1, (count,), generator=generator)[nearest]
        image_logits[torch.arange(len(priors)), labels] += 20 * iou - 1
    device = priors_cxcywh.device
    return SSDOutput(offsets.to(device), logits.to(device), priors_cxcywh)


def random_targets(batch_size: int, num_classes: int, boxes: tuple[int, int] = (1, 6)) -> list[Target]:
    """Draw targets with `boxes[0]` to `boxes[1]` objects of 5 to 55 % of the image's sides, on the CPU."""
    generator = torch.Generator().manual_seed(1)
    targets = []
    for index in range(batch_size):
        count = int(torch.randint(boxes[0], boxes[1] + 1, (), generator=generator))
        boxes_xyxy = draw_boxes(count, generator)
        labels = torch.randint(1, num_classes + 1, (count,), generator=generator)
        targets.append(make_target(boxes_xyxy, labels, image_id=str(index), size_px=300))
    return targets
