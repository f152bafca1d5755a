"""In bfloat16 the network computes in half precision, and nothing after it does."""

from functools import partial
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader

from helpers.small_training import loader, quiet_trainer, small_module, target
from ssd_lightning.assembly import set_up_machine
from ssd_lightning.config import compose_config
from ssd_lightning.errors import ConfigurationError
from ssd_lightning.losses import (
    BoxLoss,
    ClassLoss,
    FocalLoss,
    HardNegativeCrossEntropy,
    IoULoss,
    MultiBoxLoss,
    SmoothL1Loss,
)
from ssd_lightning.models.postprocess import PostProcess
from ssd_lightning.training.devices import check_precision, warn_of_slow_precision
from ssd_lightning.types import SSDOutput


def data() -> DataLoader:
    return loader([target([0.1, 0.1, 0.6, 0.6])] * 8, batch_size=4)


@pytest.mark.parametrize(
    ("box_loss", "class_loss"), [(SmoothL1Loss(), HardNegativeCrossEntropy()), (IoULoss("ciou"), FocalLoss())], ids=str
)
def test_the_loss_of_bfloat16_is_that_of_its_outputs_in_float32(box_loss: BoxLoss, class_loss: ClassLoss) -> None:
    model = small_module(loss=MultiBoxLoss(box_loss=box_loss, class_loss=class_loss))
    images, targets = next(iter(data()))
    with torch.autocast("cpu", torch.bfloat16):
        output = model.net(images)
        losses = model.loss(output, targets)
        detections = PostProcess()(output)
    assert output.box_offsets.dtype == output.class_logits.dtype == torch.bfloat16
    assert output.priors_cxcywh.dtype == torch.float32
    wide = SSDOutput(output.box_offsets.float(), output.class_logits.float(), output.priors_cxcywh)
    expected = model.loss(wide, targets)
    assert {name: loss.dtype for name, loss in losses.items()} == {"loss_box": torch.float32, "loss_cls": torch.float32}
    assert {name: loss.item() for name, loss in losses.items()} == {
        name: loss.item() for name, loss in expected.items()
    }
    for found, wanted in zip(detections, PostProcess()(wide), strict=True):
        assert found["boxes"].dtype == found["scores"].dtype == torch.float32
        torch.testing.assert_close(found, wanted, rtol=0, atol=0)


def test_a_run_in_bfloat16_keeps_weights_and_scores_in_float32() -> None:
    model, run = small_module(), quiet_trainer(max_steps=2, precision="bf16-mixed")
    seen = []
    model.net.head.register_forward_hook(lambda head, given, outputs: seen.append({x.dtype for x in outputs}))
    run.fit(model, data(), data())
    assert seen
    assert all(dtypes == {torch.bfloat16} for dtypes in seen)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert {value.dtype for name, value in run.callback_metrics.items() if name != "lr"} == {torch.float32}


def test_half_precision_is_not_for_everything_and_float16_not_for_clipping_and_fused_steps() -> None:
    with pytest.raises(ConfigurationError, match=r"precision=16-true would round boxes.*precision=16-mixed"):
        check_precision("16-true", clips_gradients=False, fused=False)
    for precision in ("32-true", "bf16-mixed", "bf16"):
        check_precision(precision, clips_gradients=True, fused=True)
    for precision in ("16-mixed", "16"):
        check_precision(precision, clips_gradients=True, fused=False)
        check_precision(precision, clips_gradients=False, fused=True)
        with pytest.raises(ConfigurationError, match=f"trainer.precision={precision} needs optimizer.fused=false"):
            check_precision(precision, clips_gradients=True, fused=True)


def test_half_precision_that_a_cpu_computes_slowly_is_warned_of(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.backends.cpu.get_cpu_capability", lambda: "AVX512")
    warn_of_slow_precision("bf16-mixed", "cpu")
    monkeypatch.setattr("torch.backends.cpu.get_cpu_capability", lambda: "AVX2")
    warn_of_slow_precision("bf16-mixed", "cuda")
    warn_of_slow_precision("32-true", "cpu")
    assert not caplog.messages
    warn_of_slow_precision("16-mixed", "cpu")
    assert "trainer.precision=16-mixed: this CPU has no AVX-512" in caplog.text


@pytest.mark.parametrize(
    ("make", "clip", "precision"),
    [
        (torch.optim.SGD, {"gradient_clip_val": 0.5}, "bf16-mixed"),
        (torch.optim.AdamW, {"gradient_clip_val": 0.1, "gradient_clip_algorithm": "value"}, "32-true"),
    ],
)
def test_a_fused_step_is_the_plain_one(make: type[torch.optim.Optimizer], clip: dict[str, Any], precision: str) -> None:
    weights = []
    for fused in (False, True):
        pl.seed_everything(0, verbose=False)
        model = small_module(optimizer=partial(make, lr=0.01, fused=fused))
        quiet_trainer(max_steps=2, precision=precision, **clip).fit(model, data())
        weights.append(torch.cat([parameter.detach().flatten() for parameter in model.parameters()]))
    torch.testing.assert_close(weights[1], weights[0], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("word", "is_strict"), [("highest", True), ("high", False)])
def test_strict_float32_holds_for_convolutions_too(word: str, is_strict: bool) -> None:
    """They are nearly all of a detector, and torch lets them round to ten bits by default."""
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    try:
        set_up_machine(compose_config("train", [f"matmul_precision={word}", "trainer.accelerator=cpu"]))
        assert torch.get_float32_matmul_precision() == word
        assert torch.backends.cudnn.allow_tf32 != is_strict
    finally:
        torch.set_float32_matmul_precision(before[0])
        torch.backends.cudnn.allow_tf32 = before[1]
