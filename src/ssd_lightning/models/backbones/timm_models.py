"""Networks of timm that provide feature maps. timm is an optional extra: `pip install ssd-lightning[timm]`."""

import difflib
import logging
import os
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ssd_lightning.checks import require_package
from ssd_lightning.errors import ConfigurationError, WeightsError
from ssd_lightning.models.backbones.strides import check_strides
from ssd_lightning.models.config import ConfigMixin
from ssd_lightning.models.files import first_line, read_tensors
from ssd_lightning.ops.normalization import IMAGENET, Normalization

NO_SUCH_MAPS = (AssertionError, IndexError, KeyError, RuntimeError, ValueError)
"""What timm raises for feature maps that a network does not have."""


class TimmBackbone(ConfigMixin, nn.Module):
    """A network of timm with `features_only`.

    Args:
        name: name in timm, such as `resnet18` or `mobilenetv4_conv_small`.
        strides: strides of the feature maps, finest first.
        out_indices: timm's indices of the feature maps, instead of strides.
        weights: `DEFAULT` downloads timm's weights. Otherwise a file of them, or None for random weights.

    Raises:
        ConfigurationError: timm is not installed or has no such network, or the network has no such maps.
        WeightsError: the weights are not available.
    """

    def __init__(
        self,
        *,
        name: str,
        strides: Sequence[int] = (8, 16, 32),
        out_indices: Sequence[int] | None = None,
        weights: str | None = None,
    ) -> None:
        super().__init__()
        timm = require_package("timm", "backbone=timm", "'ssd-lightning[timm]'")
        if not timm.is_model(name):
            near = difflib.get_close_matches(name, timm.list_models(), n=5, cutoff=0.5)
            hint = f"; similar names are {', '.join(near)}" if near else "; timm.list_models() lists all"
            raise ConfigurationError(f"backbone.name is '{name}', which timm does not have{hint}")
        if out_indices is None:
            out_indices = indices_of(name, strides)
        try:
            self.network = timm.create_model(name, features_only=True, out_indices=tuple(out_indices), pretrained=False)
        except NO_SUCH_MAPS as error:
            raise ConfigurationError(f"backbone.name={name}: no feature maps {list(out_indices)}: {error}") from error
        if weights is not None:
            self._load(name, out_indices, weights)
        info: Any = self.network.feature_info
        self.out_channels: tuple[int, ...] = tuple(info.channels())
        self.normalization = IMAGENET
        if settings := timm.get_pretrained_cfg(name):
            mean, std = (tuple(255 * value for value in values) for values in (settings.mean, settings.std))
            self.normalization = Normalization(mean, std)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Map normalised images `[B, 3, H, W]` to the chosen maps `[B, out_channels[i], H_i, W_i]`."""
        maps = self.network(images)
        channels_last = any(m.shape[1] != c for m, c in zip(maps, self.out_channels, strict=True))
        return [m.permute(0, 3, 1, 2).contiguous() for m in maps] if channels_last else list(maps)  # Swin

    def _load(self, name: str, out_indices: Sequence[int], weights: str) -> None:
        import huggingface_hub
        import timm

        given = None if weights == "DEFAULT" else read_tensors(Path(weights), setting="backbone.weights=")
        settings = timm.get_pretrained_cfg(name)
        if given is None and (settings is None or not settings.has_weights):
            raise WeightsError(
                f"timm has no ImageNet weights of {name}; backbone.weights=null starts from random weights"
            )
        constants, log = huggingface_hub.constants, logging.getLogger("timm")
        was_offline, level = constants.HF_HUB_OFFLINE, log.level
        if given is None and not is_reachable("huggingface.co"):
            constants.HF_HUB_OFFLINE = True  # avoids a minute of retries; the cache is still read
        log.setLevel(logging.ERROR)  # timm lists all skipped keys
        try:
            filled = timm.create_model(
                name,
                features_only=True,
                out_indices=tuple(out_indices),
                pretrained=True,
                pretrained_cfg_overlay={} if given is None else {"state_dict": given},
            ).state_dict()
            if given is not None:
                require_taken(filled, given)
        except Exception as error:  # no network, other weights, or a damaged file
            if given is not None:
                raise WeightsError(f"backbone.weights={weights}: not timm's {name}: {first_line(error)}") from error
            raise WeightsError(
                f"cannot get timm's ImageNet weights of {name} ({first_line(error)}): fetch model.safetensors from "
                f"https://huggingface.co/{settings and settings.hf_hub_id} and give its path as backbone.weights=, or "
                "start from random weights with backbone.weights=null"
            ) from error
        finally:
            constants.HF_HUB_OFFLINE = was_offline
            log.setLevel(level)
        self.network.load_state_dict(filled)


def indices_of(name: str, strides: Sequence[int]) -> tuple[int, ...]:
    """Find the indices of the feature maps with the given strides in a network of timm.

    Raises:
        ConfigurationError: the network has no feature maps, or none with these strides.
    """
    import timm

    try:
        with torch.device("meta"):
            network = timm.create_model(name, features_only=True, pretrained=False)
    except NO_SUCH_MAPS as error:
        raise ConfigurationError(f"backbone.name={name}: no feature maps: {error}") from error
    info: Any = network.feature_info
    index_of = dict(zip(info.reduction(), info.out_indices, strict=True))  # the last of equal strides
    chosen = check_strides(strides, possible=sorted(index_of), network=f"timm's {name}", to_the_end=False)
    return tuple(index_of[stride] for stride in chosen)


def is_reachable(host: str, *, port: int = 443, seconds: float = 5.0) -> bool:
    """Check whether a host answers. With a proxy, the result is always True."""
    if any(name in os.environ for name in ("HF_ENDPOINT", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy")):
        return True
    try:
        socket.create_connection((host, port), timeout=seconds).close()
    except OSError:
        return False
    return True


def require_taken(network: Mapping[str, Tensor], file: Mapping[str, Tensor]) -> None:
    """Check that a network has the weights of a file. timm does not raise an error if the names differ.

    Raises:
        ValueError: less than four fifths of the weights are in the file. timm may convert some of them.
    """
    weights = [tensor for tensor in network.values() if tensor.dim() > 1]
    taken = sum(
        any(weight.shape == other.shape and weight.equal(other) for other in file.values()) for weight in weights
    )
    if taken < 0.8 * len(weights):
        raise ValueError(f"{len(weights) - taken} of its {len(weights)} weights are not in the file")
