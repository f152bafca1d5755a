"""Runs TorchScript files. Loading compiles their code, so it is checked first, see `refuse_foreign_code`."""

import io
import json
import re
import warnings
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torchvision  # noqa: F401  registers torchvision::nms
from torch import Tensor

from ssd_lightning.errors import WeightsError
from ssd_lightning.inference.runtime.description import ExportDescription, errors_of
from ssd_lightning.inference.runtime.network import ExportedNetwork
from ssd_lightning.models.files import require_file

METADATA_FILE = "ssd_lightning.json"
"""One of the archive's `extra` files, with the texts of `ExportDescription.as_metadata`."""
MOST_METADATA_BYTES = 10_000_000
MOST_PACKED_BYTES = 100_000_000

OPERATORS = {"torchvision.nms", "prim.device", "prim.dtype", "prim.NumToTensor", "prim.min"}
"""Operators other than `torch.*` that exported networks call."""
FORBIDDEN = re.compile(r"\b(from_file|save|load|classes|_extension)\b")
"""Names of operators that map, write or read files, or create objects of compiled code."""


class TorchScriptNetwork(ExportedNetwork):
    """A TorchScript file written by `export format=torchscript`. Code that no such file has is an error."""

    runtime = "TorchScript"

    def __init__(self, path: Path, device: torch.device | str = "cpu") -> None:
        content, metadata = read_torchscript(path)
        super().__init__(path, ExportDescription.from_metadata(metadata, path), torch.device(device))
        with errors_of(f"{path} is damaged or not a TorchScript file"), quiet_jit():
            self.script = torch.jit.load(io.BytesIO(content), map_location=self.device)

    def _run(self, inputs: Tensor) -> Sequence[Any]:
        outputs: Sequence[Any] = self.script(inputs)
        return outputs


@contextmanager
def quiet_jit() -> Iterator[None]:
    """Silence the deprecation warning of `torch.jit`, because the user chose this format."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"`torch\.jit\..*` is (deprecated|not supported)")
        yield


def is_torchscript(path: Path) -> bool:
    """Whether a file is a TorchScript archive. Checkpoints use the same kind of archive."""
    if path.suffix == ".torchscript":
        return True
    if path.suffix not in (".pt", ".pth") or not path.is_file() or not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())


def read_torchscript(path: Path) -> tuple[bytes, dict[str, str]]:
    """Read an archive without compiling or running its code: its bytes and its metadata."""
    content = require_file(path).read_bytes()
    with (
        errors_of(f"{path} is damaged or not a TorchScript file"),
        zipfile.ZipFile(io.BytesIO(content)) as archive,
    ):
        packed = sum(p.file_size for p in archive.infolist() if p.compress_type != zipfile.ZIP_STORED)
        if packed > MOST_PACKED_BYTES:  # torch compresses only code; a zip bomb could fill the memory
            raise WeightsError(f"{path} is not a TorchScript file: it has {packed:,} bytes in compressed parts")
        names = archive.namelist()
        if len(set(names)) != len(names):
            raise WeightsError(f"{path} is not a TorchScript file: two of its parts have the same name")
        metadata_names = [name for name in names if name.endswith(f"/extra/{METADATA_FILE}")]
        metadata = json.loads(archive.read(metadata_names[0])[:MOST_METADATA_BYTES]) if metadata_names else {}
        refuse_foreign_code(
            {name: archive.read(name) for name in names if "/data/" not in name and "/constants/" not in name}, path
        )
    return content, metadata


def refuse_foreign_code(parts: dict[str, bytes], path: Path) -> None:
    """Reject an archive whose code uses operators that access more than tensors.

    TorchScript has no access to Python, but a few of its operators map or write files. This check rejects the known
    ones, and every extension operator except torchvision's `nms`. It protects against accidents and known attacks, but
    is not a proof of safety. Load TorchScript files only from people whose programs you would run. ONNX and safetensors
    files do not need this trust.

    Raises:
        WeightsError: a forbidden operator was found. The message names it.
    """
    for name, content in parts.items():
        if name.endswith(".py"):
            code = content.decode(errors="replace")
            operators = set(re.findall(r"(?<![\w.])ops\.(\w+\.\w+)", code)) - OPERATORS
            found = next(iter(sorted(operators)), None) or next(iter(FORBIDDEN.findall(code)), None)
        elif name.endswith(".pkl"):
            found = "torch.classes" if b"torch.classes" in content else None
        else:
            continue
        if found:
            raise WeightsError(f"{path}: its code uses '{found}', which no exported network does; it was not run")
