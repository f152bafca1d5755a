"""Check of `trainer.precision`."""

from ssd_lightning.errors import ConfigurationError


def check_precision(precision: str, *, clips_gradients: bool, fused: bool) -> None:
    """Reject precisions that would train incorrectly.

    `bf16-true` and `16-true` round all tensors, including boxes and priors. A bfloat16 coordinate is off by one pixel
    in 500, so that different priors match. A weight cannot change by less than a few thousandths of its value.

    Float16 gradients are scaled. A fused optimiser unscales them itself, which would be after the clipping.

    Args:
        precision: `trainer.precision`.
        clips_gradients: whether `trainer.gradient_clip_val` is set.
        fused: whether the optimiser is fused.

    Raises:
        ConfigurationError: the precision cannot be used.
    """
    if precision in ("bf16-true", "16-true"):
        mixed = precision.replace("true", "mixed")
        raise ConfigurationError(
            f"trainer.precision={precision} would round boxes, priors and weights too; trainer.precision={mixed} "
            "computes the network in half precision and keeps these in float32"
        )
    if precision in ("16", "16-mixed") and clips_gradients and fused:
        raise ConfigurationError(
            f"trainer.gradient_clip_val with trainer.precision={precision} needs optimizer.fused=false; "
            "bf16-mixed works with both"
        )
