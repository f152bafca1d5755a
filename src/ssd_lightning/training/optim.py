"""The parameters of the optimiser, and how optimiser and schedule are made from their settings."""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

from torch import nn

from ssd_lightning.errors import ConfigurationError, UserError, one_line
from ssd_lightning.models import SSD

Result = TypeVar("Result")


def call_factory(group: str, make: Callable[..., Result], *arguments: Any, **keywords: Any) -> Result:
    """Call the factory of a settings group, such as `optimizer`: a `partial` whose keywords are the settings.

    Raises:
        ConfigurationError: the factory rejects its settings. TypeError, ValueError, IndexError (too few betas) and
            RuntimeError (two settings exclude each other) are how torch says so.
    """
    try:
        return make(*arguments, **keywords)
    except UserError:
        raise
    except (TypeError, ValueError, IndexError, RuntimeError) as error:
        settings = ", ".join(f"{key}={value}" for key, value in getattr(make, "keywords", {}).items())
        raise ConfigurationError(one_line(f"{group}({settings}): {str(error) or type(error).__name__}")) from error


class ParameterGroup(NamedTuple):
    """Parameters with one learning rate."""

    parameters: list[nn.Parameter]
    lr_factor: float
    are_biases: bool


def parameter_groups(net: SSD, *, bias_lr_factor: float, backbone_lr_factor: float) -> list[ParameterGroup]:
    """Group the trainable parameters: weights, then biases. The backbone has its own groups if its rate differs."""
    backbone = {id(parameter) for parameter in net.extractor.backbone.parameters()} if backbone_lr_factor != 1 else ()
    named = [(name, parameter) for name, parameter in net.named_parameters() if parameter.requires_grad]
    groups = [
        ParameterGroup(
            [p for name, p in named if name.endswith("bias") == are_biases and (id(p) in backbone) == in_backbone],
            (bias_lr_factor if are_biases else 1.0) * (backbone_lr_factor if in_backbone else 1.0),
            are_biases,
        )
        for in_backbone in (False, True)
        for are_biases in (False, True)
    ]
    return [group for group in groups if group.parameters]
