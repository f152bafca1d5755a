import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def unpacked_wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel as an installation lays it out."""
    directory = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(directory)]
    subprocess.run(build, cwd=REPOSITORY, check=True, capture_output=True)
    wheel = next(directory.glob("ssd_lightning-*.whl"))
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(directory / "site")
    return directory / "site"


def run(site: Path, cwd: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(site)}
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False, timeout=300)


def test_the_wheel_is_what_runs(unpacked_wheel: Path, tmp_path: Path) -> None:
    code = "import ssd_lightning.config as c; print(c.PACKAGE, c.find_folder('conf'), c.find_folder('experiments'))"
    places = run(unpacked_wheel, tmp_path, "-c", code).stdout.split()
    assert len(places) == 3
    assert all(Path(place).is_relative_to(unpacked_wheel) for place in places)
    composed = run(unpacked_wheel, tmp_path, "-m", "ssd_lightning.train", "experiment=toy_tiny", "--cfg", "job")
    assert "name: toy_tiny" in composed.stdout


def test_the_wheel_holds_every_configuration_and_the_demo_s_images(unpacked_wheel: Path) -> None:
    for folder in ("conf", "experiments"):
        source = {path.relative_to(REPOSITORY / folder) for path in (REPOSITORY / folder).rglob("*.yaml")}
        packed = unpacked_wheel / "ssd_lightning" / folder
        assert {path.relative_to(packed) for path in packed.rglob("*.yaml")} == source
    images = {path.relative_to(REPOSITORY) for path in (REPOSITORY / "demo_data").rglob("*.*")}
    assert len(images) > 364
    assert all((unpacked_wheel / "ssd_lightning" / path).is_file() for path in images)
    for path in (
        "demo_data/LICENSE",
        "py.typed",
        "reporting/templates/style.css",
    ):
        assert (unpacked_wheel / "ssd_lightning" / path).is_file()


@pytest.mark.slow
def test_the_wheel_trains_from_another_directory(unpacked_wheel: Path, tmp_path: Path) -> None:
    done = run(
        unpacked_wheel, tmp_path, "-m", "ssd_lightning.train", "experiment=toy_tiny", "trainer.fast_dev_run=true",
        "data.num_train=8", "data.num_val=4", "data.num_test=4", "data.batch_size=4", "data.num_workers=0",
        "image_size=[64,64]",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "datasets" / "toy" / "JPEGImages").is_dir()
