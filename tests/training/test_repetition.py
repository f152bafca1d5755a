"""A run directory is enough to repeat the run: the same numbers, in a directory of its own."""

import json
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from PIL import Image

from helpers.commands import refused, run_command
from ssd_lightning.digest import config_digest

SMALL = [
    "experiment=toy_tiny", "data.num_train=12", "data.num_val=4", "data.num_test=2", "data.side_px=96", "seed=3",
    "data.num_workers=0", "data.batch_size=4", "image_size=[64,64]", "trainer.max_epochs=1", "data.checksum=true",
    "trainer.check_val_every_n_epoch=1", "trainer.accelerator=cpu", "trainer.enable_progress_bar=false",
    "report=false", "~callbacks.dashboard",
]  # fmt: skip


def run_in(directory: Path, *arguments: str) -> Path:
    before = set(directory.glob("outputs/*/*"))
    run_command(directory, "train", *arguments)
    (made,) = set(directory.glob("outputs/*/*")) - before
    return made


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run_in(tmp_path_factory.mktemp("repeated"), *SMALL, "hydra.run.dir=outputs/first/run")


def weights(run: Path) -> dict[str, torch.Tensor]:
    return torch.load(run / "checkpoints/last.ckpt", weights_only=True)["state_dict"]


def digest_of(run: Path) -> str:
    return config_digest(yaml.safe_load((run / "config.yaml").read_text()))


def test_a_run_directory_has_all_that_repeats_it(first: Path) -> None:
    record = json.loads((first / "run.json").read_text())
    assert {"command", "git_commit", "git_dirty", "git_untracked", "machine", "directory", "python"} <= record.keys()
    assert (record["seed"], record["versions"]["torch"]) == (3, torch.__version__.split("+")[0])
    assert record["data"]["train"]["images"] == 12
    assert record["data"]["train"].keys() >= {"names", "boxes", "files", "contents"}
    assert set(record["data"]) == {"train", "val"}  # the test split is not looked at unless it is scored
    assert f"torch=={torch.__version__.split('+')[0]}" in (first / "requirements.txt").read_text()
    for name in ("config.yaml", "hydra.yaml", "overrides.yaml"):
        assert (first / ".hydra" / name).is_file()
    assert record["git_dirty"] in (None, False) or (first / "git.diff").is_file() or record["git_untracked"]


def test_a_run_is_repeated_to_the_bit(first: Path) -> None:
    root = first.parents[2]
    again = run_in(root, "-cp", f"{first.relative_to(root)}/.hydra/")
    assert again.parent.parent == root / "outputs"
    assert again != first
    assert again.parent.name != "first"  # the recipe's own name: the directory of the first was chosen by hand
    assert (again / "train.log").is_file()
    assert digest_of(again) == digest_of(first)
    one, two = weights(first), weights(again)
    assert one.keys() == two.keys()
    assert all(torch.equal(one[name], two[name]) for name in one)
    record = json.loads((again / "run.json").read_text())
    assert record["repeats"] == str(first)
    assert record["data"] == json.loads((first / "run.json").read_text())["data"]
    shutil.rmtree(again)


def test_a_repetition_refuses_what_the_run_did_not_know(first: Path, capsys: pytest.CaptureFixture[str]) -> None:
    message = refused(capsys, first.parents[2], "train", "--config-path", str(first / ".hydra"), "optimzer.lr=1")
    assert "did you mean 'optimizer.lr'" in message


def test_a_repetition_may_change_a_setting_and_reports_other_data(first: Path) -> None:
    root = first.parents[2]
    toy = root / "datasets/toy"
    path = toy / f"JPEGImages/{(toy / 'ImageSets/Main/train.txt').read_text().split()[0]}.jpg"
    kept = path.read_bytes()
    with Image.open(path) as image:
        changed = image.convert("L").convert("RGB")
    changed.save(path, "JPEG", quality=50)
    try:
        again = run_in(
            root, f"--config-path={first}/.hydra", "seed=4", "trainer.max_steps=0", "hydra.run.dir=outputs/o/p"
        )
    finally:
        path.write_bytes(kept)
    assert again == root / "outputs/o/p"
    assert json.loads((again / "run.json").read_text())["seed"] == 4
    told = [line for line in (again / "train.log").read_text().splitlines() if "differ from those of" in line]
    assert len(told) == 1
    assert "the sizes of single image files" in told[0]
    assert "the contents of the image files" in told[0]
    assert "boxes" not in told[0]
    shutil.rmtree(again)
