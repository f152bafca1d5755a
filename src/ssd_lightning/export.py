"""`python -m ssd_lightning.export`: a trained network's weights, alone or under another project's names."""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from ssd_lightning.configs import run_command
from ssd_lightning.errors import ConfigurationError

if TYPE_CHECKING:
    from omegaconf import DictConfig

FORMATS = ("safetensors", "ssd.pytorch", "lufficc", "qfgaohao", "torchvision")


def main() -> None:
    """Run the command."""
    run_command("export", export)


def export(config: "DictConfig") -> None:
    """Write the weights of a checkpoint.

    Args:
        config: as `conf/export.yaml` composes it.

    Raises:
        UserError: the checkpoint cannot be used, there is no such format, or the format has no such network.
    """
    import torch
    from safetensors.torch import save_file

    from ssd_lightning.detector import Detector
    from ssd_lightning.models.origins import distance_of_priors, recognise
    from ssd_lightning.models.weights import export_weights

    if config.format not in FORMATS:
        raise ConfigurationError(f"format is '{config.format}'; it can be {', '.join(FORMATS)}")
    output = Path(config.output)
    if output.exists():
        raise ConfigurationError(f"output={output} exists; it is not replaced")
    net = Detector.load(config.checkpoint).net
    output.parent.mkdir(parents=True, exist_ok=True)
    if config.format == "safetensors":
        save_file({name: tensor.contiguous() for name, tensor in net.state_dict().items()}, output)
    else:
        net_weights = export_weights(net, config.format)
        torch.save(net_weights, output)
    preset = net.normalization
    print(f"{output}: {len(net.state_dict())} tensors, {config.format}")
    print(
        f"They want {'BGR' if preset.bgr else 'RGB'} pictures of 0..255 minus {_numbers(preset.mean)} over "
        f"{_numbers(preset.std)}, and classes numbered from 1."
    )
    if config.format != "safetensors":
        origin = recognise(net_weights, str(output))
        if distance_of_priors(origin, net.priors_cxcywh) > 1e-5:
            print(f"Its priors are not those of {origin.words}: boxes have to be decoded with this network's own.")
    if config.format == "torchvision":
        mean, std = (_numbers(value / 255 for value in values) for values in (preset.mean, preset.std))
        print(f"torchvision's constructors take this as image_mean=[{mean}], image_std=[{std}].")


def _numbers(values: Iterable[float]) -> str:
    return ", ".join(f"{value:.6g}" for value in values)


if __name__ == "__main__":
    main()
