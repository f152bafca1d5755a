"""Runs ncnn files, on the CPU."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ssd_lightning.errors import ConfigurationError, WeightsError
from ssd_lightning.inference.runtime.description_file import read_description
from ssd_lightning.inference.runtime.network import ExportedNetwork

MAGIC = b"7767517"
"""First line of a file of layers."""
INPUT, OUTPUTS = "in0", ("out0", "out1")
"""Names that pnnx gives; the outputs are boxes and scores."""


class NcnnNetwork(ExportedNetwork):
    """A pair of files (`.param` and `.bin`) written by `export format=ncnn`, with their description beside them.

    Raises:
        ConfigurationError: ncnn is not installed.
        WeightsError: a file is missing, damaged or not written by this package.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path, read_description(path), torch.device("cpu"))
        self._ncnn, self._net = open_net(path)

    def run(self, inputs: Tensor) -> Sequence[Tensor]:
        """Run the network on the file's input."""
        extractor = self._net.create_extractor()
        extractor.input(INPUT, self._ncnn.Mat(inputs[0].numpy()).clone())
        outputs = []
        for name in OUTPUTS:
            code, output = extractor.extract(name)
            if code:
                raise WeightsError(f"{self.path} failed in ncnn: no output {name} (code {code})")
            outputs.append(torch.from_numpy(np.array(output))[None])
        return outputs


def open_net(path: Path) -> tuple[Any, Any]:
    """Load the files in float32, with the same number of threads as torch.

    Returns:
        The module `ncnn`, and the network.

    Raises:
        ConfigurationError: ncnn is not installed.
        WeightsError: ncnn rejects the files.
    """
    weights = path.with_suffix(".bin")
    try:
        import ncnn
    except ImportError as error:
        raise ConfigurationError(f"{path} needs a package: pip install 'ssd-lightning[ncnn]'") from error
    lines = path.read_bytes().splitlines()
    if lines[:1] != [MAGIC]:
        raise WeightsError(f"{path} is not a file of ncnn: it begins with {b''.join(lines[:1])[:20]!r}")
    kinds = {line.split()[0].decode(errors="replace") for line in lines[2:] if line.strip()}
    if unknown := sorted(kind for kind in kinds if ncnn.layer_to_index(kind) < 0):
        raise WeightsError(f"{path} needs layers that ncnn {ncnn.__version__} does not have: {', '.join(unknown):.200}")
    net = ncnn.Net()
    net.opt.num_threads = torch.get_num_threads()
    net.opt.use_fp16_packed = net.opt.use_fp16_storage = net.opt.use_fp16_arithmetic = False
    for load, file_path in ((net.load_param, path), (net.load_model, weights)):
        if code := load(str(file_path)):
            raise WeightsError(f"{file_path}: ncnn rejects it (code {code})")
    return ncnn, net
