"""Detectors on Hugging Face: a folder with weights, configuration and a model card, its upload and its download.

The functions stand beside `Detector` instead of `huggingface_hub`'s mixin, which every start of `predict` would import.
"""

import json
import shutil
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from ssd_lightning import __version__
from ssd_lightning.checks import require_package
from ssd_lightning.errors import ConfigurationError, WeightsError
from ssd_lightning.inference.checkpoints import HUB_WEIGHTS
from ssd_lightning.inference.detector import Detector
from ssd_lightning.inference.export.files import write_safetensors
from ssd_lightning.inference.names import UniqueNames

if TYPE_CHECKING:
    from PIL.Image import Image

CONFIG, CARD, IMAGE = "config.json", "README.md", "detections.jpg"
CARD_TEXT = """---
license: {licence}
library_name: ssd-lightning
pipeline_tag: object-detection
tags: [object-detection, ssd]
---

# {title}

{shown}A single-shot detector ({network}) for images of {size} pixels
(height x width), which finds {count} classes: {classes}.

{table}```python
from ssd_lightning import Detector

detector = Detector.from_pretrained("NAME_OF_THIS_REPOSITORY")
detections = detector("image.jpg")  # .boxes_xyxy_px, .scores, .names, .draw()
```
"""


def save_folder(
    detector: Detector,
    folder: Path,
    *,
    title: str,
    scores: Mapping[str, float] | None = None,
    scored_on: str = "",
    licence: str = "mit",
    image: "Image | None" = None,
) -> list[str]:
    """Write what a model repository holds.

    Args:
        detector: a detector with accessible weights.
        folder: is made if it is missing; files of the same names are replaced.
        title: of the model card.
        scores: name -> value for the card, such as those of `evaluate output=scores.json`; numbers only.
        scored_on: what the scores were measured on.
        licence: Hugging Face's name of the licence of the weights, which the training images may decide.
        image: an example with detections, such as `detector(path).draw()`.

    Returns:
        Names of the written files.

    Raises:
        WeightsError: the detector is an exported file.
    """
    network = detector.network
    folder.mkdir(parents=True, exist_ok=True)
    write_safetensors(detector, folder / HUB_WEIGHTS)
    (folder / CONFIG).write_text(json.dumps(detector.spec(), indent=2) + "\n", encoding="utf-8")
    shown = table = ""
    if image is not None:
        image.convert("RGB").save(folder / IMAGE, quality=90)
        shown = f"![An image with detections]({IMAGE})\n\n"
    if scores:
        rows = "\n".join(f"| {name} | {value:.4g} |" for name, value in scores.items())
        table = f"Scores{f' on {scored_on}' if scored_on else ''}:\n\n| score | value |\n|---|---|\n{rows}\n\n"
    height, width = detector.image_size
    card = CARD_TEXT.format(
        title=title,
        licence=licence,
        shown=shown,
        network=f"{type(network).__name__} on {type(network.extractor.backbone).__name__}",
        size=f"{height} x {width}",
        count=len(detector.class_names),
        classes=", ".join(json.dumps(name, ensure_ascii=False) for name in detector.class_names),
        table=table,
    )
    (folder / CARD).write_text(card, encoding="utf-8")
    return [HUB_WEIGHTS, CONFIG, CARD, *([IMAGE] if image is not None else [])]


SPACE_APP = """from pathlib import Path

from ssd_lightning.inference.app import build_page
from ssd_lightning.inference.detector import Detector

HERE = Path(__file__).parent
page = build_page(
    Detector.from_pretrained(HERE),
    name={name!r},
    examples=sorted((HERE / "examples").glob("*")),
    score_threshold={score_threshold!r},
)
page.launch()
"""


def save_space(
    detector: Detector, folder: Path, *, name: str, examples: Sequence[Path] = (), score_threshold: float = 0.4
) -> None:
    """Write a folder that a Space of Hugging Face serves: the demo page with its detector.

    Args:
        detector: a detector with accessible weights.
        folder: is made; it must be missing or empty.
        name: name of the model, for the page.
        examples: example images, which are copied.
        score_threshold: initial value of the page's slider.

    Raises:
        ConfigurationError: the folder has files.
        WeightsError: the detector is an exported file.
    """
    if folder.exists() and any(folder.iterdir()):
        raise ConfigurationError(f"space={folder} is not empty; name a new folder")
    detector.network  # noqa: B018  raises for an exported file, before anything is written
    (folder / "examples").mkdir(parents=True)
    write_safetensors(detector, folder / HUB_WEIGHTS)
    names = UniqueNames()  # examples come from several folders
    for path in examples:
        shutil.copyfile(path, folder / "examples" / f"{names.take(path.stem)}{path.suffix}")
    app = SPACE_APP.format(name=name, score_threshold=score_threshold)
    (folder / "app.py").write_text(app, encoding="utf-8")
    (folder / "requirements.txt").write_text(f"ssd-lightning[demo]=={__version__}\n", encoding="utf-8")
    header = {"title": name, "sdk": "gradio", "sdk_version": version("gradio"), "app_file": "app.py"}
    rows = [f"{key}: {json.dumps(value, ensure_ascii=False)}" for key, value in header.items()]
    (folder / CARD).write_text("\n".join(["---", *rows, "---", ""]), encoding="utf-8")


def push_folder(
    folder: Path,
    repository: str,
    *,
    files: Sequence[str],
    private: bool = False,
    token: str | None = None,
    endpoint: str | None = None,
) -> str:
    """Create a model repository if it is missing, and upload these files of a folder. See `Detector.push_to_hub`."""
    hub = require_package("huggingface_hub", repository, "'ssd-lightning[hub]'")
    api = hub.HfApi(endpoint=endpoint, token=token)
    try:
        api.create_repo(repository, private=private, exist_ok=True)
        about = {"repo_id": repository, "commit_message": "Upload a detector"}
        return str(api.upload_folder(folder_path=folder, allow_patterns=list(files), **about))
    except Exception as error:  # without a network, of a client that differs between versions of huggingface_hub
        raise WeightsError(f"cannot upload {folder} to '{repository}': {error}") from error


def fetch_weights(repository: str, *, revision: str | None = None, endpoint: str | None = None) -> Path:
    """Download the weights of a repository, or find them in the local cache. See `Detector.from_pretrained`."""
    if Path(repository).is_dir():
        return Path(repository) / HUB_WEIGHTS
    hub = require_package("huggingface_hub", repository, "'ssd-lightning[hub]'")
    try:
        return Path(hub.hf_hub_download(repository, HUB_WEIGHTS, revision=revision, endpoint=endpoint))
    except (hub.errors.HfHubHTTPError, hub.errors.HFValidationError, OSError, ValueError) as error:
        raise WeightsError(f"cannot get {HUB_WEIGHTS} of '{repository}': {error}") from error
