"""TorchScript files. Loading one compiles its code, so it is looked at first; see `refuse_foreign_code`."""

import io
import json
import re
import warnings
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
import torchvision  # noqa: F401  registers torchvision::nms
from torch import Tensor

from ssd_lightning.errors import WeightsError
from ssd_lightning.runtime.description import ExportDescription
from ssd_lightning.runtime.network import ExportedNetwork

METADATA_FILE = "ssd_lightning.json"
"""Among the archive's `extra` files: texts by name, as `ExportDescription.as_metadata` gives them."""
MOST_METADATA_BYTES = 10_000_000
MOST_PACKED_BYTES = 100_000_000

OPERATORS = {"torchvision.nms", "prim.device", "prim.dtype", "prim.NumToTensor", "prim.min"}
"""Those beyond `torch.*` that an exported network calls."""
FORBIDDEN = re.compile(r"\b(from_file|save|load|classes|_extension)\b")
"""Names of what maps, writes or reads files, or makes objects of compiled code."""


class TorchScriptNetwork(ExportedNetwork):
    """A TorchScript file that `export format=torchscript` wrote.

    Args:
        path: the file.
        device: where to compute.

    Raises:
        WeightsError: the file is missing, damaged, of others, or has code that no exported network has.
    """

    def __init__(self, path: Path, device: torch.device | str = "cpu") -> None:
        content, metadata = read_torchscript(path)
        super().__init__(path, ExportDescription.from_metadata(metadata, path), torch.device(device))
        try:
            with quiet_jit():
                self.script = torch.jit.load(io.BytesIO(content), map_location=self.device)
        except Exception as error:  # damage is answered with nearly any type
            raise WeightsError(f"{path} is damaged or no TorchScript file: {_first_line(error)}") from error

    def run(self, inputs: Tensor) -> Sequence[Tensor]:
        """Give the file's outputs for its input."""
        try:
            outputs = self.script(inputs)
        except Exception as error:
            raise WeightsError(f"{self.path} failed in TorchScript: {_first_line(error)}") from error
        if not isinstance(outputs, (tuple, list)) or not all(isinstance(output, Tensor) for output in outputs):
            raise WeightsError(f"{self.path} gave a {type(outputs).__name__} instead of tensors")
        return outputs


@contextmanager
def quiet_jit() -> Iterator[None]:
    """Silence the deprecation of `torch.jit`, which is the user's choice of a format, not a mistake."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"`torch\.jit\..*` is (deprecated|not supported)")
        yield


def is_torchscript(path: Path) -> bool:
    """Tell a TorchScript archive from a checkpoint, which torch keeps in the same kind of archive."""
    if path.suffix == ".torchscript":
        return True
    if path.suffix not in (".pt", ".pth") or not path.is_file() or not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())


def read_torchscript(path: Path) -> tuple[bytes, dict[str, str]]:
    """Read an archive without compiling or running anything of it.

    Returns:
        The file's bytes and its metadata.

    Raises:
        WeightsError: it is missing or damaged, not of this package, or has code that no exported network has.
    """
    if not path.is_file():
        raise WeightsError(f"there is no file {path}")
    content = path.read_bytes()
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            packed = sum(p.file_size for p in archive.infolist() if p.compress_type != zipfile.ZIP_STORED)
            if packed > MOST_PACKED_BYTES:  # torch packs its code alone; a small file could fill the memory
                raise WeightsError(f"{path} is no file of torch: it has {packed:,} bytes in compressed parts")
            names = archive.namelist()
            if len(set(names)) != len(names):
                raise WeightsError(f"{path} is no file of torch: two of its parts have one name")
            metadata_names = [name for name in names if name.endswith(f"/extra/{METADATA_FILE}")]
            metadata = json.loads(archive.read(metadata_names[0])[:MOST_METADATA_BYTES]) if metadata_names else {}
            refuse_foreign_code(
                {name: archive.read(name) for name in names if "/data/" not in name and "/constants/" not in name}, path
            )
    except WeightsError:
        raise
    except Exception as error:  # zipfile answers damage with nearly any type
        raise WeightsError(f"{path} is damaged or no TorchScript file: {_first_line(error)}") from error
    if not isinstance(metadata, dict) or not all(isinstance(text, str) for text in metadata.values()):
        raise WeightsError(f"{path}: its metadata are no texts by name")
    return content, metadata


def refuse_foreign_code(parts: dict[str, bytes], path: Path) -> None:
    """Refuse an archive whose code names operators that reach beyond tensors.

    TorchScript is a language of its own without access to Python, but a few of its operators map or write files. This
    look refuses those that are known, and every operator of extensions except torchvision's `nms`. It is a fence
    against accidents and known tricks, not a proof: load TorchScript files from people whose checkpoints you
    would run as programs; ONNX and safetensors need no such trust.

    Raises:
        WeightsError: the message names what was found.
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
            raise WeightsError(f"{path}: its code names '{found}', which no exported network does; it was not run")


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]
