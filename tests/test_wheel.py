import os
import shutil
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
    code = (
        "import ssd_lightning.config as c; print(c.PACKAGE, c.find_folder('conf'), c.find_folder('experiments'));"
        "from ssd_lightning.train import main; main()"
    )
    places, *composed = run(unpacked_wheel, tmp_path, "-c", code, "experiment=toy_tiny", "--cfg", "job").stdout.split(
        "\n"
    )
    assert len(places.split()) == 3
    assert all(Path(place).is_relative_to(unpacked_wheel) for place in places.split())
    assert "name: toy_tiny" in composed


def test_the_wheel_holds_every_configuration_and_the_demo_s_images(unpacked_wheel: Path) -> None:
    for folder in ("conf", "experiments"):
        source = {path.relative_to(REPOSITORY / folder) for path in (REPOSITORY / folder).rglob("*.yaml")}
        packed = unpacked_wheel / "ssd_lightning" / folder
        assert {path.relative_to(packed) for path in packed.rglob("*.yaml")} == source
    images = {path.relative_to(REPOSITORY) for path in (REPOSITORY / "demo_data").rglob("*.*")}
    assert len(images) > 364
    assert all((unpacked_wheel / "ssd_lightning" / path).is_file() for path in images)
    for path in ("demo_data/LICENSE", "py.typed", "reporting/templates/style.css"):
        assert (unpacked_wheel / "ssd_lightning" / path).is_file()


def test_the_version_is_that_of_the_tag_and_a_tree_without_git_has_one_too(tmp_path: Path) -> None:
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(REPOSITORY / name, tmp_path)
    identity = ("-c", "user.name=A", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false")

    def version_after(*git: tuple[str, ...]) -> str:
        for arguments in git:
            subprocess.run(["git", *identity, *arguments], cwd=tmp_path, check=True, capture_output=True)
        command = [sys.executable, "-m", "hatchling", "version"]
        return subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, text=True).stdout.strip()

    assert version_after() == "0.1.0.dev0"
    assert version_after(("init",), ("add", "."), ("commit", "-m", "first"), ("tag", "v1.2.3")) == "1.2.3"


@pytest.mark.slow
def test_the_wheel_trains_from_another_directory(unpacked_wheel: Path, tmp_path: Path) -> None:
    done = run(
        unpacked_wheel, tmp_path, "-m", "ssd_lightning.train", "experiment=toy_tiny", "trainer.fast_dev_run=true",
        "data.num_train=8", "data.num_val=4", "data.num_test=4", "data.batch_size=4", "data.num_workers=0",
        "image_size=[64,64]",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "datasets" / "toy" / "JPEGImages").is_dir()
