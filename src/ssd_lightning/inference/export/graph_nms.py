"""Thresholds, NMS and box voting as part of a graph, with tensors of fixed shape.

The rules are those of `models.PostProcess`, which returns lists and uses shortcuts that a graph cannot. There are two
forms: TorchScript keeps the loops of `graph_nms`. ONNX uses `nms_in_onnx`, which has one operator for all images and
classes.
"""

from typing import Any

import torch
from torch import Tensor

from ssd_lightning.ops.boxes import broadcast_iou

OPSET = 18
"""Version of ONNX's operators: the first one with all operators used here. All recent runtimes support it."""


def graph_nms(
    boxes_xyxy: Tensor,
    scores: Tensor,
    score_threshold: float,
    iou_threshold: float,
    top_k: int,
    max_detections: int,
    class_agnostic: bool,
    box_voting: float | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Apply NMS image by image and class by class, in code that TorchScript supports.

    Boxes are `[B, K, 4]`, decoded, and scores `[B, K, C + 1]`, after softmax. `PostProcess` explains the settings.

    Returns:
        Boxes `[B, D, 4]` (clipped), scores `[B, D]`, labels int64 `[B, D]` and their number int64 `[B]`. D is the
        smaller of `max_detections` and K * C. Rows beyond the number are zero.
    """
    batch, num_priors, num_logits = scores.size(0), scores.size(1), scores.size(2)
    rows = min(max_detections, num_priors * (num_logits - 1))
    best_boxes = torch.zeros(batch, rows, 4, dtype=boxes_xyxy.dtype, device=boxes_xyxy.device)
    best_scores = torch.zeros(batch, rows, dtype=scores.dtype, device=scores.device)
    best_labels = torch.zeros(batch, rows, dtype=torch.int64, device=scores.device)
    count = torch.zeros(batch, dtype=torch.int64, device=scores.device)
    for image in range(batch):
        priors = torch.zeros(0, dtype=torch.int64, device=scores.device)
        labels = torch.zeros(0, dtype=torch.int64, device=scores.device)
        candidates = torch.zeros_like(scores[image])  # [K, C + 1]
        for label in range(1, num_logits):
            of_class = scores[image, :, label]
            prior = (of_class > score_threshold).nonzero()[:, 0]
            prior = prior[of_class[prior].sort(stable=True, dim=0, descending=True)[1][:top_k]]
            candidates[prior, label] = of_class[prior]
            if not class_agnostic:
                prior = prior[torch.ops.torchvision.nms(boxes_xyxy[image][prior], of_class[prior], iou_threshold)]
            priors = torch.cat([priors, prior])
            labels = torch.cat([labels, torch.full_like(prior, label)])
        found = scores[image][priors, labels]
        if class_agnostic:
            kept = torch.ops.torchvision.nms(boxes_xyxy[image][priors], found, iou_threshold)
            priors, labels, found = priors[kept], labels[kept], found[kept]
        order = found.sort(stable=True, dim=0, descending=True)[1][:rows]
        number = order.size(0)
        boxes = boxes_xyxy[image][priors[order]]
        if box_voting is not None:
            used = candidates.any(dim=1)
            boxes = voted(boxes, candidates[used][:, labels[order]].t(), boxes_xyxy[image][used], box_voting)
        best_boxes[image, :number] = boxes.clamp(0.0, 1.0)
        best_scores[image, :number] = found[order]
        best_labels[image, :number] = labels[order]
        count[image] = number
    return best_boxes, best_scores, best_labels, count


def voted(kept_xyxy: Tensor, scores: Tensor, boxes_xyxy: Tensor, iou_threshold: float) -> Tensor:
    """Do the same as `ops.nms.vote_boxes` for M boxes, with the scores `[M, V]` of V boxes `[V, 4]`: `[M, 4]`."""
    votes = broadcast_iou(kept_xyxy[:, None], boxes_xyxy) > iou_threshold
    weights = torch.where(votes, scores, 0.0)
    finite = torch.where(boxes_xyxy.isfinite(), boxes_xyxy, 0.0)  # their votes are 0
    total = weights.sum(dim=1, keepdim=True)
    return torch.where(total > 0, torch.matmul(weights, finite) / total, kept_xyxy)


nms_node = torch.library.custom_op("ssd_lightning::nms", graph_nms, mutates_args=())
"""`graph_nms` as one node. The exporter replaces it by `nms_in_onnx`."""


@nms_node.register_fake
def _(boxes_xyxy: Tensor, scores: Tensor, *settings: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    batch, num_priors, num_logits = scores.shape
    *_, max_detections, _, _ = settings
    rows = min(max_detections, num_priors * (num_logits - 1))
    labels, count = (scores.new_empty(shape, dtype=torch.int64) for shape in ((batch, rows), (batch,)))
    return boxes_xyxy.new_empty(batch, rows, 4), scores.new_empty(batch, rows), labels, count


def nms_in_onnx(
    boxes_xyxy: Any,
    scores: Any,
    score_threshold: float,
    iou_threshold: float,
    top_k: int,
    max_detections: int,
    class_agnostic: bool,
    box_voting: float | None,
) -> tuple[Any, Any, Any, Any]:
    """Implement `graph_nms` as nodes of an ONNX graph.

    For equal scores, ONNX's `TopK` and onnxruntime's `NonMaxSuppression` take the lower index first. Because classes
    come before priors in memory, this is the order of `PostProcess`.
    """
    from onnxscript import opset18

    op: Any = opset18  # its type hints exclude Python numbers, which it accepts
    num_priors, num_classes = int(scores.shape[1]), int(scores.shape[2]) - 1
    rows = min(max_detections, num_priors * num_classes)
    of_class = op.Transpose(op.Slice(scores, [1], [num_classes + 1], [2]), perm=[0, 2, 1])  # [B, C, K]
    of_class = op.Where(op.Greater(of_class, score_threshold), of_class, 0.0)  # also removes NaN
    zeros = op.Mul(of_class, 0.0)
    if top_k < num_priors:
        best, place = op.TopK(of_class, [top_k], axis=2)
        of_class = op.ScatterElements(zeros, place, best, axis=2)
    candidates = of_class  # [B, C, K]
    boxes = boxes_xyxy
    if class_agnostic:  # every pair of class and prior becomes a box of one class
        boxes = op.Expand(op.Unsqueeze(boxes, [1]), [1, num_classes, 1, 1])  # [B, C, K, 4]
        boxes = op.Reshape(boxes, [0, num_classes * num_priors, 4])
        of_class, zeros = (op.Reshape(x, [0, 1, num_classes * num_priors]) for x in (of_class, zeros))
    kept = op.NonMaxSuppression(boxes, of_class, [rows], [iou_threshold], [score_threshold])  # [N, 3]
    of_class = op.ScatterND(zeros, kept, op.GatherND(of_class, kept))
    best, place = op.TopK(op.Reshape(of_class, [0, num_classes * num_priors]), [rows], axis=1)  # [B, D]
    is_found = op.Greater(best, 0.0)
    labels = op.Where(is_found, op.Add(op.Div(place, [num_priors]), [1]), [0])
    prior = op.Unsqueeze(op.Mod(place, [num_priors]), [2])
    found = op.GatherND(boxes_xyxy, prior, batch_dims=1)  # [B, D, 4]
    if box_voting is not None:
        is_used = op.Greater(op.ReduceMax(candidates, [0, 1], keepdims=0), 0.0)  # [K]
        is_used = op.Or(is_used, op.Equal(op.Range(0, num_priors, 1), 0))  # some runtimes need one at least
        used = op.Squeeze(op.NonZero(is_used), [0])  # [V]; OpenCV has no Compress
        candidates, voters = op.Gather(candidates, used, axis=2), op.Gather(boxes_xyxy, used, axis=1)
        of_label = op.GatherND(candidates, op.Unsqueeze(op.Div(place, [num_priors]), [2]), batch_dims=1)  # [B, D, V]
        found = _voted_in_onnx(op, found, of_label, voters, box_voting)
    found = op.Where(op.Unsqueeze(is_found, [2]), op.Clip(found, 0.0, 1.0), 0.0)
    number = op.ReduceSum(op.Cast(is_found, to=7), [1], keepdims=0)  # 7 is int64
    return found, best, labels, number


def _voted_in_onnx(op: Any, kept_xyxy: Any, scores: Any, boxes_xyxy: Any, iou_threshold: float) -> Any:
    """Implement `voted` for a batch: boxes `[B, D, 4]`, scores `[B, D, V]` of the boxes `[B, V, 4]`."""

    def edge(boxes: Any, index: int, axis: int) -> Any:
        return op.Unsqueeze(op.Gather(boxes, index, axis=2), [axis])

    sides, areas = [], []
    for low, high in ((0, 2), (1, 3)):
        of_kept = (edge(kept_xyxy, low, 2), edge(kept_xyxy, high, 2))  # [B, D, 1]
        of_all = (edge(boxes_xyxy, low, 1), edge(boxes_xyxy, high, 1))  # [B, 1, V]
        common = op.Sub(op.Min(of_kept[1], of_all[1]), op.Max(of_kept[0], of_all[0]))
        sides.append(op.Max(common, 0.0))
        areas.append((op.Sub(of_kept[1], of_kept[0]), op.Sub(of_all[1], of_all[0])))
    common = op.Mul(*sides)  # [B, D, V]
    area, other_area = (op.Mul(*both) for both in zip(*areas, strict=True))
    union = op.Sub(op.Add(area, other_area), common)
    weights = op.Where(op.Greater(op.Div(common, union), iou_threshold), scores, 0.0)  # 0 / 0 is not greater
    finite = op.Where(op.Less(op.Abs(boxes_xyxy), 1e9), boxes_xyxy, 0.0)
    total = op.ReduceSum(weights, [2], keepdims=1)
    return op.Where(op.Greater(total, 0.0), op.Div(op.MatMul(weights, finite), total), kept_xyxy)
