"""Both forms of NMS and box voting in a graph against a loop that anyone can read, and against `postprocess`."""

from pathlib import Path
from typing import Any

import onnxruntime
import pytest
import torch
from torch import Tensor, nn
from torchvision.ops import box_iou

from ssd_lightning.inference.export.graph_nms import OPSET, graph_nms, nms_in_onnx, nms_node
from ssd_lightning.models.postprocess import PostProcess
from ssd_lightning.ops.boxes import cxcywh_to_xyxy, xyxy_to_cxcywh
from ssd_lightning.types import SSDOutput

Outputs = tuple[Tensor, Tensor, Tensor, Tensor]
Settings = tuple[float, float, int, int, bool, float | None]
NAMES = ("score_threshold", "iou_threshold", "top_k", "max_detections", "class_agnostic", "box_voting")

PRIORS, CLASSES = 30, 3
SETTINGS: list[Settings] = [
    (0.01, 0.45, 400, 200, False, None),
    (0.1, 0.45, 5, 7, False, 0.3),
    (0.1, 0.45, 12, 8, True, None),
    (0.1, 0.45, 12, 8, True, 0.3),
]


def twin(boxes: Tensor, scores: Tensor, settings: Settings) -> Outputs:
    """A pair at a time; of equal scores the lower class comes first, then the earlier prior."""
    score_threshold, iou_threshold, top_k, max_detections, class_agnostic, box_voting = settings
    rows = min(max_detections, scores.shape[1] * (scores.shape[2] - 1))
    table = torch.zeros(len(boxes), rows, 6)  # box, score and label of each
    count = torch.zeros(len(boxes), dtype=torch.int64)
    for image in range(len(boxes)):
        pairs: list[tuple[float, int, int]] = []
        for label in range(1, scores.shape[2]):
            of_class = scores[image, :, label].tolist()
            pairs += sorted((-s, label, k) for k, s in enumerate(of_class) if s > score_threshold)[:top_k]
        kept: list[tuple[float, int, int]] = []
        for score, label, prior in sorted(pairs):
            rivals = [other for _, of, other in kept if class_agnostic or of == label]
            if not rivals or box_iou(boxes[image][[prior]], boxes[image][rivals]).max() <= iou_threshold:
                kept.append((score, label, prior))
        count[image] = min(rows, len(kept))
        for row, (score, label, prior) in enumerate(kept[:rows]):
            box = boxes[image, prior]
            if box_voting is not None:
                of_class = torch.tensor([other for _, of, other in pairs if of == label])
                voters = of_class[box_iou(box[None], boxes[image][of_class])[0] > box_voting]
                weights = scores[image, voters, label, None]
                box = (weights * boxes[image][voters]).sum(0) / weights.sum()
            table[image, row] = torch.tensor([*box.clamp(0, 1), -score, label])
    return table[..., :4], table[..., 4], table[..., 5].long(), count


def scene(batch: int, seed: int, *, ties: bool) -> tuple[Tensor, Tensor]:
    """Crowded boxes, some beyond the image; with ties, scores of a few values."""
    generator = torch.Generator().manual_seed(seed)
    centres = torch.rand(batch, PRIORS, 2, generator=generator)
    sizes = 0.05 + 0.4 * torch.rand(batch, PRIORS, 2, generator=generator)
    logits = 2 * torch.randn(batch, PRIORS, CLASSES + 1, generator=generator)
    scores = logits.softmax(dim=2)
    if ties:
        scores = (scores * 4).round() / 4
    return cxcywh_to_xyxy(torch.cat([centres, sizes], dim=2)), scores


def in_onnx(boxes: Tensor, scores: Tensor, *settings: Any) -> Outputs:
    """Run the operators one by one."""
    return tuple(torch.from_numpy(found.value) for found in nms_in_onnx(boxes.numpy(), scores.numpy(), *settings))


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_both_forms_do_what_the_loop_does(settings: Settings) -> None:
    scripted = torch.jit.script(graph_nms)
    for batch, seed, ties in ((1, 0, False), (1, 2, False), (1, 4, False), (3, 1, True), (3, 3, False)):
        boxes, scores = scene(batch, seed, ties=ties)
        expected = twin(boxes, scores, settings)
        for form in (graph_nms, nms_node, scripted, *([in_onnx] if seed < 2 else [])):
            torch.testing.assert_close(
                form(boxes, scores, *settings), expected, rtol=0, atol=1e-6 if settings[-1] else 0
            )
        if batch == 1 and not ties:  # they would not sum to 1
            output = SSDOutput(torch.zeros(1, PRIORS, 4), scores.log(), xyxy_to_cxcywh(boxes[0]))
            (found,) = PostProcess(**dict(zip(NAMES, settings, strict=True)))(output)
            for tensor, wanted in zip((found["boxes"], found["scores"], found["labels"]), expected, strict=False):
                torch.testing.assert_close(tensor, wanted[0, : int(expected[3])], rtol=1e-6, atol=1e-6)
    nowhere = torch.zeros_like(scores)
    nowhere[..., 0] = 1
    nowhere[1, 3:9] = torch.nan  # of logits that are not finite
    for form in (graph_nms, in_onnx):
        found = form(boxes, nowhere, *settings)
        assert [tensor.count_nonzero() for tensor in found] == [0, 0, 0, 0]
        assert found[0].shape[2] == 4


class Alone(nn.Module):
    """Nothing but NMS."""

    def forward(self, boxes: Tensor, scores: Tensor) -> Outputs:
        return nms_node(boxes, scores, *SETTINGS[3])


def test_the_operators_become_a_graph(tmp_path: Path) -> None:
    """Of all classes together; the files of `test_exported_files` have each class for itself."""
    program = torch.onnx.export(
        Alone().eval(),
        scene(2, 0, ties=False),
        dynamo=True,
        opset_version=OPSET,
        input_names=["boxes", "scores"],
        dynamic_shapes=({0: (batch := torch.export.Dim("batch"))}, {0: batch}),
        custom_translation_table={torch.ops.ssd_lightning.nms.default: nms_in_onnx},
        verbose=False,
    )
    program.save(tmp_path / "nms.onnx")
    boxes, scores = scene(3, 1, ties=True)
    given = {"boxes": boxes.numpy(), "scores": scores.numpy()}
    found = [torch.from_numpy(one) for one in onnxruntime.InferenceSession(tmp_path / "nms.onnx").run(None, given)]
    torch.testing.assert_close(tuple(found), twin(boxes, scores, SETTINGS[3]), rtol=0, atol=1e-6)
