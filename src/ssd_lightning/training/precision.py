"""Which of Lightning's precisions a detector can be trained in."""

from ssd_lightning.errors import ConfigurationError


def check_precision(precision: str, *, clips_gradients: bool, fused: bool) -> None:
    """Refuse what would train something else than was asked for.

    `bf16-true` and `16-true` round all tensors, those of boxes and priors too: a coordinate of bfloat16 is off by a
    pixel in 500, so that other priors match; and a weight takes no step below a few thousandths of itself. And the
    gradients of float16 are scaled, which a fused optimiser undoes by itself, after they would have been clipped.

    Args:
        precision: `trainer.precision`.
        clips_gradients: whether `trainer.gradient_clip_val` is set.
        fused: whether the optimiser is.

    Raises:
        ConfigurationError: it cannot be.
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
            "bf16-mixed needs nothing"
        )
