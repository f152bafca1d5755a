"""What the pages tell people: commands that exist, links that lead somewhere, and all of it tried (slowly)."""

import functools
import pkgutil
import re
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from omegaconf import DictConfig
from PIL import Image
from torchvision.models import MobileNet_V2_Weights, VGG16_BN_Weights, VGG16_Weights, mobilenet_v2
from torchvision.models.vgg import cfgs, make_layers

from helpers.commands import run_command
from helpers.docs_commands import PAGES, REPOSITORY, Line, all_lines
from ssd_lightning.command_line import OWN_CONFIG_FLAGS, CommandLine, spell_out
from ssd_lightning.config import compose_config, find_folder, known_groups
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
def test_links_between_pages_lead_somewhere(page: str) -> None:
    folder = (REPOSITORY / page).parent
    for target in re.findall(r"\]\(([^)\s]+)\)", (REPOSITORY / page).read_text()):
        if target.startswith(("http:", "https:")):
            continue
        path, _, anchor = target.partition("#")
        file = folder / path if path else REPOSITORY / page
        assert file.exists(), f"{page} links to {target}"
        if anchor:
            titles = re.findall(r"(?m)^#+ (.+)$", file.read_text())
            assert anchor in {anchor_of(title) for title in titles}, f"{page} links to {target}"


def anchor_of(title: str) -> str:
    return re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")


@pytest.mark.parametrize("page", PAGES)
def test_files_that_a_page_names_exist(page: str) -> None:
    """A line may name a file of an older commit, or one that the reader will write."""
    for line in (REPOSITORY / page).read_text().splitlines():
        for path in re.findall(r"(?<![\w/])(?:tools|benchmarks|tests|examples|experiments)/[\w/]+\.\w+", line):
            is_known = (REPOSITORY / path).exists() or "commit" in line or "NAME" in path
            assert is_known, f"{page} names {path}"


@pytest.mark.parametrize("page", PAGES)
def test_python_on_the_pages_is_python(page: str) -> None:
    for block in re.findall(r"(?s)```python\n(.*?)```", (REPOSITORY / page).read_text()):
        compile(textwrap.dedent(block), page, "exec")


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
    "--multirun": "tests/sweeps/test_real_sweeps.py runs sweeps",
    "seeds=5": "tests/sweeps/test_real_sweeps.py runs sweeps",
    "sweep=tpe": "tests/sweeps/test_real_sweeps.py runs sweeps",
    "experiment=NAME": "a pattern",
    "ssd_lightning.train ...": "a pattern",
    "layout=detectnet": "scores after one step are tied: tests/commands/test_export.py",
    "format=tflite": "onnx2tf is not installed: tests/inference/export/test_converters.py",
    "outputs/NAME/TIME": "tests/training/test_repetition.py repeats runs",
    "ssd_lightning.demo": "it serves until it is stopped: tests/commands/test_demo.py",
    "source=0": "there is no camera here",
    "outputs/demo": "make demo runs it; see its figures",
}
SHORT = [
    *("budget=null", "trainer.accelerator=cpu", "trainer.max_epochs=1", "trainer.limit_train_batches=1"),
    *("trainer.limit_val_batches=2", "trainer.enable_progress_bar=false", "trainer.precision=32-true"),
    *("data.batch_size=4", "data.num_workers=0"),
]
"""Makes a training a matter of seconds; later overrides win."""
FEW_TOYS = ["data.num_train=24", "data.num_val=4", "data.num_test=6"]


def reason_against(line: Line) -> str | None:
    return next((reason for part, reason in WHY_NOT_RUN.items() if part in line.text), None)


def write_imagenet_files(folder: Path) -> None:
    """Lay random weights where torchvision's are looked for: the commands of the pages start from ImageNet."""
    folder.mkdir(parents=True)
    for weights, batch_norm in (
        (VGG16_Weights.IMAGENET1K_FEATURES, False), (VGG16_BN_Weights.IMAGENET1K_V1, True)
    ):  # fmt: skip
        features = make_layers(cfgs["D"], batch_norm=batch_norm)
        init_he(features)
        state = {f"features.{name}": tensor for name, tensor in features.state_dict().items()}
        of_classifier = torch.tensor(0.0 if batch_norm else torch.nan)  # one number as 120 million: a small file
        for layer, shape in ((0, (4096, 512 * 7 * 7)), (3, (4096, 4096))):
            state |= {f"classifier.{layer}.weight": of_classifier.expand(shape)}
            state |= {f"classifier.{layer}.bias": of_classifier.expand(shape[0])}
        torch.save(state, folder / Path(weights.url).name)
    torch.save(mobilenet_v2().state_dict(), folder / Path(MobileNet_V2_Weights.IMAGENET1K_V1.url).name)


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with what the pages take for granted: images in three formats, loose ones, and a trained run."""
    place = tmp_path_factory.mktemp("desk")
    write_imagenet_files(place / "torch" / "hub" / "checkpoints")
    toy = ["data=toy", "data.root=toy", *FEW_TOYS, "model=tiny_ssd"]
    run(place, "train", *toy, *SHORT, "trainer.max_steps=0", "hydra.run.dir=first")
    (place / "toy" / "ImageSets" / "Main" / "trainval.txt").write_text(
        "".join((place / "toy" / "ImageSets" / "Main" / f"{split}.txt").read_text() for split in ("train", "val"))
    )
    (place / "toy").rename(place / "my_images")
    overrides = ["data=voc_folder", "data.root=my_images"]
    run(place, "convert", *overrides, "to=coco", "output=my_coco")
    run(place, "convert", *overrides, "to=yolo", "output=my_yolo")
    film = cv2.VideoWriter(str(place / "street.mp4"), cv2.VideoWriter.fourcc(*"mp4v"), 10, (96, 64))
    for grey in range(0, 240, 20):
        film.write(np.full((64, 96, 3), grey, np.uint8))
    film.release()
    shots = place / "shots"
    shots.mkdir()
    for image in sorted((place / "my_images" / "JPEGImages").iterdir())[:3]:
        (shots / image.name).write_bytes(image.read_bytes())
    few_steps = [*SHORT, "trainer.limit_train_batches=6"]  # after a single one, many scores are tied
    run(place, "train", *overrides, "model=tiny_ssd", *few_steps, "hydra.run.dir=outputs/ssd/RUN")
    theirs = "outputs/amdegroot"  # of their network, so that it can pass for their weights
    untrained = ["model=amdegroot_ssd300", "backbone.weights=null", *SHORT, "trainer.max_steps=0"]
    run(place, "train", *overrides, *untrained, f"hydra.run.dir={theirs}")
    (place / "outputs" / "vgg16").symlink_to("amdegroot")
    run(place, "export", f"checkpoint={theirs}", "format=ssd.pytorch", "output=ssd300_mAP_77.43_v2.pth")
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setenv("TORCH_HOME", str(place / "torch"))
        run(place, "train", "experiment=finetune", *overrides, *SHORT, "hydra.run.dir=outputs/finetune/RUN")
        yield place


def run(place: Path, command: str, *overrides: str) -> None:
    """Run a command in this process, which has everything imported; several ranks need processes of their own."""
    if "trainer.devices=2" not in overrides:
        run_command(place, command, *overrides)
        return
    line = [sys.executable, "-m", f"ssd_lightning.{command}", *overrides]
    done = subprocess.run(line, cwd=place, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.slow
@pytest.mark.parametrize("line", [line for line in LINES if not reason_against(line)], ids=str)
def test_what_the_pages_tell_to_type_works(desk: Path, line: Line) -> None:
    overrides = line.overrides + (SHORT if line.command == "train" else [])
    if "toy" in line.text:
        overrides += FEW_TOYS
    if line.command == "export":  # after one step the finer network's scores are tied, and no order of them is proven
        overrides = [text.replace("outputs/finetune/RUN", "outputs/ssd/RUN") for text in overrides]
    if any(f"format={name}" in overrides for name in ("onnx", "torchscript", "ncnn")):
        overrides += ["latency=false", "images=2"]
    if "quantize=int8" in overrides:
        overrides += ["max_map_loss=1"]  # of a network that has hardly trained
    if line.command == "doctor":
        overrides += ["data.batch_size=4", "trainer.accelerator=cpu", "trial_steps=1"]
    shutil.rmtree(desk / "new_images", ignore_errors=True)  # of another page: labels are never replaced
    for suffix in (".onnx", ".param", ".bin", ".param.json"):  # nor are exported files
        (desk / f"detector{suffix}").unlink(missing_ok=True)
    run(desk, line.command, *overrides)


PYTHON = [
    pytest.param(block, id=f"{page}-{number}")
    for page in ("README.md", "docs/predict.md", "docs/export.md", "docs/results.md")
    for number, block in enumerate(re.findall(r"(?s)```python\n(.*?)```", (REPOSITORY / page).read_text()))
    if "push_to_hub" not in block  # wants an account; `test_hub.py` has a server
]
TINY_FILES = REPOSITORY / "tests" / "inference" / "runtime" / "tiny_files"
EXPORTS = {"detector.onnx": {"preprocessing": True, "nms": True}, "jetson.onnx": DETECTNET}


@pytest.mark.slow
@pytest.mark.parametrize("block", PYTHON)
def test_python_on_the_pages_runs(desk: Path, block: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(desk)
    monkeypatch.setattr(Image.Image, "show", lambda image: None)
    photo = next((desk / "shots").iterdir())
    for name in ("image.jpg", "holiday.jpg"):
        (desk / name).write_bytes(photo.read_bytes())
    if not (desk / "outputs" / "demo").exists():
        (desk / "outputs" / "demo").symlink_to("ssd/RUN")
    detector = Detector.load(desk / "outputs/ssd/RUN")
    for file, contents in EXPORTS.items():
        if file in block:
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
