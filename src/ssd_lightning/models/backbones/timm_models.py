"""Any network of timm that gives feature maps, by name. timm is an extra: `pip install ssd-lightning[timm]`."""

import difflib
from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from ssd_lightning.errors import ConfigurationError, WeightsError
from ssd_lightning.ops.normalization import Normalization
from ssd_lightning.specs import Described


class TimmBackbone(Described, nn.Module):
    """A network of timm with `features_only`.

    Args:
        name: timm's, such as `resnet18` or `mobilenetv4_conv_small`.
        out_indices: which of its feature maps, the finest first; the default are those of stride 8, 16 and 32 in
            networks of five.
        pretrained: fetch timm's weights.

    Raises:
        ConfigurationError: timm is not installed, has no such network, or the network has no such maps.
        WeightsError: the weights cannot be had.
    """

    not_described = ("pretrained",)

    def __init__(self, *, name: str, out_indices: Sequence[int] = (2, 3, 4), pretrained: bool = False) -> None:
        super().__init__()
        try:
            import timm
        except ImportError as error:
            raise ConfigurationError("backbone=timm needs timm: pip install 'ssd-lightning[timm]'") from error
        if not timm.is_model(name):
            near = difflib.get_close_matches(name, timm.list_models(), n=5, cutoff=0.5)
            hint = f"; near it are {', '.join(near)}" if near else "; timm.list_models() lists all"
            raise ConfigurationError(f"backbone.name is '{name}', which timm does not have{hint}")
        try:
            self.network = timm.create_model(name, features_only=True, out_indices=tuple(out_indices), pretrained=False)
        except (AssertionError, IndexError, KeyError, RuntimeError, ValueError) as error:
            raise ConfigurationError(f"backbone.name={name}: no feature maps {list(out_indices)}: {error}") from error
        if pretrained:
            self._fetch(name, out_indices)
        info: Any = self.network.feature_info
        self.out_channels: tuple[int, ...] = tuple(info.channels())
        settings = timm.get_pretrained_cfg(name)
        mean, std = (settings.mean, settings.std) if settings else ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
        red, green, blue = (255 * value for value in mean)
        self.normalization = Normalization((red, green, blue), tuple(255 * value for value in std))  # type: ignore[arg-type]

    def forward(self, images: Tensor) -> list[Tensor]:
        """Map normalised pictures `[B, 3, H, W]` to the chosen maps `[B, out_channels[i], H_i, W_i]`."""
        maps = self.network(images)
        channels_last = any(m.shape[1] != c for m, c in zip(maps, self.out_channels, strict=True))
        return [m.permute(0, 3, 1, 2).contiguous() for m in maps] if channels_last else list(maps)  # as Swin gives them

    def _fetch(self, name: str, out_indices: Sequence[int]) -> None:
        import timm

        try:
            fetched = timm.create_model(name, features_only=True, out_indices=tuple(out_indices), pretrained=True)
        except Exception as error:  # no network, no weights under this name, or a damaged file
            reason = (str(error) or type(error).__name__).splitlines()[0]
            raise WeightsError(f"backbone.pretrained: cannot get timm's weights of {name}: {reason}") from error
        self.network.load_state_dict(fetched.state_dict())
