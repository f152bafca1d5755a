"""The description as a JSON file beside the network, for formats that have no place for it."""

import json
from pathlib import Path

from ssd_lightning.errors import WeightsError
from ssd_lightning.inference.runtime.description import ExportDescription
from ssd_lightning.models.files import require_file


def description_file(path: Path) -> Path:
    """Return the path of the description: `detector.tflite.json` for `detector.tflite`."""
    return path.with_name(f"{path.name}.json")


def companions(path: Path) -> list[Path]:
    """Return the other files of the network `path`: its description last, and ncnn's weights before it."""
    weights = [path.with_suffix(".bin")] if path.suffix == ".param" else []
    return [*weights, description_file(path)] if path.suffix in (".tflite", ".param") else []


def write_description(path: Path, description: ExportDescription) -> None:
    """Write the description of the network `path` beside it."""
    values = {name: json.loads(text) for name, text in description.as_metadata().items()}
    description_file(path).write_text(json.dumps(values, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def read_description(path: Path) -> ExportDescription:
    """Read the description of the network `path`.

    Raises:
        WeightsError: a file is missing, or the description is damaged or of another program.
    """
    for needed in (path, *companions(path)):
        require_file(needed)
    file = description_file(path)
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
        metadata = {name: json.dumps(value) for name, value in values.items()}
    except (OSError, ValueError, AttributeError, RecursionError) as error:
        raise WeightsError(f"{file} is damaged: {str(error)[:200]}") from error
    return ExportDescription.from_metadata(metadata, file)
