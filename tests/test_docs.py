"""What the pages tell people: commands that exist, links that lead somewhere, and all of it tried (slowly)."""

import functools
import pkgutil
import re
import shlex
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from omegaconf import DictConfig
from PIL import Image
from torch import Tensor
from torchvision.models import MobileNet_V2_Weights, VGG16_BN_Weights, mobilenet_v2
from torchvision.models.vgg import cfgs, make_layers

from helpers.commands import run_command
from helpers.docs_commands import PAGES, REPOSITORY, Line, all_lines
from helpers.exported_networks import TINY_FILES
from helpers.prediction_media import write_video
from ssd_lightning.assembly import make_net
from ssd_lightning.command_line import OWN_CONFIG_FLAGS, CommandLine, spell_out
from ssd_lightning.config import check_overrides, compose_config, find_folder, known_groups
from ssd_lightning.data.toy import TOY_CLASSES, write_toy_dataset
from ssd_lightning.inference.detector import Detector
from ssd_lightning.inference.export.converters import write_ncnn
from ssd_lightning.inference.export.files import write_onnx
from ssd_lightning.inference.export.graph import DETECTNET
from ssd_lightning.models.layers import init_he
from ssd_lightning.overrides import check_each
from ssd_lightning.sweeps.plan import plan_sweep

LINES = all_lines()


def test_the_pages_have_commands() -> None:
    assert len(LINES) > 40
    assert {line.command for line in LINES} >= {"train", "evaluate", "predict", "report", "export", "demo", "show"}


@pytest.mark.parametrize("line", LINES, ids=str)
def test_every_word_of_a_command_exists(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", [line.command, *line.overrides])
    typed = CommandLine(tuple(line.overrides))
    if typed.has(OWN_CONFIG_FLAGS):
        pytest.skip("it brings a configuration of its own; the slow test runs it")
    planned = plan_sweep(typed) if line.command == "train" else typed
    words = [word for word in spell_out(planned.overrides) if "=" in word and "=NAME" not in word]
    groups = known_groups(find_folder("conf"))

    def compose_choices(overrides: list[str]) -> DictConfig:
        return compose_common(line.command, *(text for text in overrides if text.partition("=")[0] in groups))

    check_each(words, groups, compose_choices)


@functools.cache
def compose_common(command: str, *choices: str) -> DictConfig:
    """Compose what many lines have in common; each composition takes a second."""
    return compose_config(command, list(choices), return_hydra_config=True)


@pytest.mark.parametrize("page", PAGES)
def test_what_a_page_links_to_and_names_exists_and_its_python_compiles(page: str) -> None:
    text = (REPOSITORY / page).read_text()
    for target in re.findall(r"\]\((?!https?:)([^)\s]+)\)", text):
        path, _, anchor = target.partition("#")
        file = (REPOSITORY / page).parent / path if path else REPOSITORY / page
        assert file.exists(), f"{page} links to {target}"
        titles = re.findall(r"(?m)^#+ (.+)$", file.read_text()) if anchor else []
        assert not anchor or anchor in map(anchor_of, titles), f"{page} links to {target}"
    for line in text.splitlines():
        for path in re.findall(r"(?<![\w/])(?:tools|benchmarks|tests|examples|experiments)/[\w/]+\.\w+", line):
            # A line may name a file of an older commit, or one that the reader will write.
            assert (REPOSITORY / path).exists() or "commit" in line or "NAME" in path, f"{page} names {path}"
    for block in re.findall(r"(?s)```python\n(.*?)```", text):
        compile(textwrap.dedent(block), page, "exec")


def anchor_of(title: str) -> str:
    return re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")


def test_entries_of_the_tables_on_sweeps_are_settings() -> None:
    page = (REPOSITORY / "docs" / "sweeps.md").read_text()
    cells = [line.split("|")[1] for line in page.splitlines() if line.startswith("| `")]
    words = [word for cell in cells for code in cell.split("`")[1::2] for word in shlex.split(code)]
    assert len(words) > 10
    for word in words:
        check_overrides("train", [word] if word.startswith("sweep=") else ["sweep=tpe", word])


def test_every_reference_of_the_api_pages_exists() -> None:
    pages = sorted((REPOSITORY / "docs" / "api").glob("*.md"))
    names = [name for page in pages for name in re.findall(r"(?m)^::: (\S+)", page.read_text())]
    assert len(names) > 20
    for name in names:
        pkgutil.resolve_name(name)


@pytest.mark.slow
def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert "MultiBoxLoss" in (tmp_path / "site" / "api" / "losses" / "index.html").read_text()


WHY_NOT_RUN = {
    "data=voc0712": "there is no VOC here",
    "data=voc2007": "there is no VOC here",
    "_voc0712": "there is no VOC here",
    "backbone=vgg16 trainer.devices=4": "there is no VOC here",
    "$BCCD": "its results stand beside it",
    "data.root=BCCD": "its results stand beside it",
    "checkpoint=... ": "a pattern",
    "trainer.devices=2": "tests/training/test_distributed_runs.py trains with two processes",
    "--multirun": "tests/sweeps/test_real_sweeps.py runs sweeps",
    "seeds=5": "tests/sweeps/test_real_sweeps.py runs sweeps",
    "sweep=tpe": "tests/sweeps/test_real_sweeps.py runs sweeps",
    "experiment=NAME": "a pattern",
    "ssd_lightning.train ...": "a pattern",
    "quantize=int8": "tests/commands/test_export.py quantizes",
    "layout=detectnet": "scores after one step are tied: tests/commands/test_export.py",
    "format=tflite": "onnx2tf is not installed: tests/inference/export/test_converters.py",
    "outputs/NAME/TIME": "tests/training/test_repetition.py repeats runs",
    "ssd_lightning.demo": "it serves until it is stopped: tests/commands/test_demo.py",
    "source=0": "there is no camera here",
    "outputs/demo": "make demo runs it; see its figures",
}
SHORT = [
    "budget=null", "trainer.accelerator=cpu", "trainer.max_epochs=1", "trainer.limit_train_batches=1",
    "trainer.limit_val_batches=1", "trainer.enable_progress_bar=false", "trainer.precision=32-true",
    "data.batch_size=2", "data.num_workers=0",
]  # fmt: skip
"""Makes a training a matter of seconds; later overrides win."""
NO_DRAWINGS = ["report=false", "callbacks.dashboard=null"]
FEW_TOYS = ["data.num_train=24", "data.num_val=4", "data.num_test=6"]


def reason_against(line: Line) -> str | None:
    return next((reason for part, reason in WHY_NOT_RUN.items() if part in line.text), None)


def overrides_to_run(line: Line) -> list[str]:
    if line.command != "export":
        return line.overrides
    # After one step the finer network's scores are tied, and no order of them is proven.
    return [text.replace("outputs/finetune/RUN", "outputs/ssd/RUN") for text in line.overrides]


TO_RUN = {(line.command, frozenset(overrides_to_run(line))): line for line in LINES if not reason_against(line)}


@functools.cache
def random_weights(url: str) -> dict[str, Tensor]:
    """Give random weights in place of torchvision's: the commands of the pages start from ImageNet."""
    if url == MobileNet_V2_Weights.IMAGENET1K_V1.url:
        return mobilenet_v2().state_dict()
    batch_norm = url == VGG16_BN_Weights.IMAGENET1K_V1.url
    features = make_layers(cfgs["D"], batch_norm=batch_norm)
    init_he(features)
    number = torch.tensor(0.0 if batch_norm else torch.nan)  # for 120 million
    shapes = {"0.weight": (4096, 512 * 7 * 7), "0.bias": (4096,), "3.weight": (4096, 4096), "3.bias": (4096,)}
    classifier = {f"classifier.{name}": number.expand(shape) for name, shape in shapes.items()}
    return {f"features.{name}": tensor for name, tensor in features.state_dict().items()} | classifier


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with what the pages take for granted: images in three formats, loose ones, and a trained run."""
    place = tmp_path_factory.mktemp("desk")
    write_toy_dataset(place / "my_images", num_train=24, num_val=4, num_test=6)
    splits = place / "my_images" / "ImageSets" / "Main"
    (splits / "trainval.txt").write_text((splits / "train.txt").read_text() + (splits / "val.txt").read_text())
    overrides = ["data=voc_folder", "data.root=my_images"]
    run_command(place, "convert", *overrides, "to=coco", "output=my_coco")
    run_command(place, "convert", *overrides, "to=yolo", "output=my_yolo")
    write_video(place / "street.mp4", [np.full((64, 96, 3), grey, np.uint8) for grey in range(0, 240, 20)])
    (place / "shots").mkdir()
    for image in sorted((place / "my_images" / "JPEGImages").iterdir())[:3]:
        shutil.copy(image, place / "shots")
    # After a single step, many scores are tied.
    few_steps = [*SHORT, "data.batch_size=4", "trainer.limit_train_batches=6"]
    run_command(place, "train", *overrides, "model=tiny_ssd", *few_steps, "hydra.run.dir=outputs/ssd/RUN")
    theirs = make_net(compose_config("train", ["model=amdegroot_ssd300"]), len(TOY_CLASSES), pretrained=False)
    (place / "outputs" / "amdegroot" / "checkpoints").mkdir(parents=True)
    Detector(theirs, class_names=TOY_CLASSES).save(place / "outputs" / "amdegroot" / "checkpoints" / "last.ckpt")
    (place / "outputs" / "vgg16").symlink_to("amdegroot")
    run_command(place, "export", "checkpoint=outputs/vgg16", "format=ssd.pytorch", "output=ssd300_mAP_77.43_v2.pth")
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(torch.hub, "load_state_dict_from_url", lambda url, **_: random_weights(url))
        run_command(place, "train", "experiment=finetune", *overrides, *SHORT, "hydra.run.dir=outputs/finetune/RUN")
        yield place


@pytest.mark.slow
@pytest.mark.parametrize(
    "line",
    [
        pytest.param(line, id=str(line))
        for (command, words), line in TO_RUN.items()
        if not any(command == other and words < more for other, more in TO_RUN)
    ],
)
def test_what_the_pages_tell_to_type_works(desk: Path, line: Line) -> None:
    """A line whose overrides are some of those of another line is left out."""
    overrides = overrides_to_run(line)
    if line.command == "train":
        overrides += SHORT + ([] if "logger=" in line.text else NO_DRAWINGS)
    if "toy" in line.text:
        overrides += FEW_TOYS
    if any(f"format={name}" in overrides for name in ("onnx", "torchscript", "ncnn")):
        overrides += ["latency=false", "images=2"]
    if line.command == "doctor":
        overrides += ["data.batch_size=4", "trainer.accelerator=cpu", "trial_steps=1"]
    shutil.rmtree(desk / "new_images", ignore_errors=True)  # of another page: labels are never replaced
    for suffix in (".onnx", ".param", ".bin", ".param.json"):  # nor are exported files
        (desk / f"detector{suffix}").unlink(missing_ok=True)
    run_command(desk, line.command, *overrides)


PYTHON = [
    pytest.param(block, id=f"{page}-{number}")
    for page in ("README.md", "docs/predict.md", "docs/export.md", "docs/results.md")
    for number, block in enumerate(re.findall(r"(?s)```python\n(.*?)```", (REPOSITORY / page).read_text()))
    if "push_to_hub" not in block  # wants an account; `test_hub.py` has a server
]
EXPORTS = {"detector.onnx": {"preprocessing": True, "nms": True}, "jetson.onnx": DETECTNET}


@pytest.mark.slow
@pytest.mark.parametrize("block", PYTHON)
def test_python_on_the_pages_runs(desk: Path, block: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(desk)
    monkeypatch.setattr(Image.Image, "show", lambda image: None)
    for name in ("image.jpg", "holiday.jpg"):
        shutil.copy(next((desk / "shots").iterdir()), desk / name)
    if not (desk / "outputs" / "demo").exists():
        (desk / "outputs" / "demo").symlink_to("ssd/RUN")
    detector = Detector.load(desk / "outputs/ssd/RUN")
    for file, contents in EXPORTS.items():
        if file in block and not (desk / file).exists():
            write_onnx(detector, desk / file, **contents)
    if "detector.param" in block:
        write_ncnn(detector, desk / "detector.param")
    if "detector.tflite" in block:
        for suffix in (".tflite", ".tflite.json"):
            shutil.copyfile(TINY_FILES / f"tiny{suffix}", desk / f"detector{suffix}")
    height, width = detector.image_size
    block = re.sub('"(WBC|dog)"', '"disk"', block).replace("(320, 320)", f"({width}, {height})")
    exec(compile(block, "page", "exec"), {})


def test_reasons_against_running_a_line_are_needed() -> None:
    assert all(any(part in line.text for line in LINES) for part in WHY_NOT_RUN)
