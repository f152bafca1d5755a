"""Who may import whom, and that the lower layers work without Lightning, Hydra and W&B."""

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import ssd_lightning

PACKAGE = Path(ssd_lightning.__file__).parent
FRAMEWORKS = {"pytorch_lightning", "lightning", "lightning_fabric", "hydra", "omegaconf", "wandb"}

BASE = ("types", "errors", "checks")
MAY_IMPORT = {
    "digest": (),
    "run_files": (),
    "types": (),
    "errors": (),
    "checks": ("errors",),
    "ops": (*BASE, "ops"),
    "models": (*BASE, "ops", "models"),
    "losses": (*BASE, "ops", "losses"),
    "metrics": (*BASE, "ops", "metrics"),
    "data": (*BASE, "ops.boxes", "data"),
    "analysis": (*BASE, "ops", "metrics.average_precision", "analysis"),
    "runtime": (*BASE, "ops", "models.postprocess", "data.resize", "runtime"),
    "detections": (*BASE, "visualization.draw"),
    "visualization": ("errors", "visualization"),
    "detector": (*BASE, "ops", "models", "data", "runtime", "detections"),
}
"""The lower layers. A name stands for itself and all that is in it."""

TOP_LAYER = {
    *("assembly", "configs", "list_settings", "overrides", "run_dirs", "sweeping"),
    *("train", "evaluate", "predict", "export", "convert", "benchmark", "doctor", "report", "show", "demo"),
}
"""The commands, and what composes their configurations: above all others."""
UPPER_LAYERS = {
    "benchmarking": TOP_LAYER,
    "dataset_check": TOP_LAYER,
    "training": {*TOP_LAYER, "benchmarking"},
    **{package: {*TOP_LAYER, "training"} for package in ("prediction", "exporting", "reporting", "serving")},
}
"""Room -> what it may not import."""

FILES = sorted(PACKAGE.rglob("*.py"))


def module_of(path: Path) -> str:
    """Name within the package: `ops.boxes`; of a package its folder's: `ops`; of ours the empty name."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


def lower_modules() -> list[str]:
    return [module for module in map(module_of, FILES) if module.partition(".")[0] in MAY_IMPORT]


def imports(source: str) -> list[tuple[str, int]]:
    """Every name that a source imports, inside functions too, each with its level (0 is absolute)."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [(alias.name, 0) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            # `from ssd_lightning import losses` imports a package as much as `import ssd_lightning.losses` does.
            found += [(f"{node.module or ''}.{alias.name}", node.level) for alias in node.names]
    return found


def of_this_package(source: str) -> list[str]:
    return [name.removeprefix("ssd_lightning.") for name, _ in imports(source) if name.startswith("ssd_lightning.")]


def within(name: str, packages: tuple[str, ...] | set[str]) -> bool:
    return any(f"{name}.".startswith(f"{package}.") for package in packages)


def forbidden(package: str, source: str) -> list[str]:
    if package in MAY_IMPORT:
        return [name for name in of_this_package(source) if not within(name, MAY_IMPORT[package])]
    return [name for name in of_this_package(source) if within(name, UPPER_LAYERS.get(package, set()))]


def frameworks_after_importing(modules: list[str], path: Path | None = None) -> set[str]:
    """Import modules in a process of their own and see which frameworks are loaded then."""
    code = (
        "import importlib, json, sys\n"
        f"for module in {modules}: importlib.import_module(module)\n"
        f"print(json.dumps(sorted({FRAMEWORKS} & sys.modules.keys())))"
    )
    search = os.pathsep.join(filter(None, [str(path or ""), *sys.path]))
    run = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": search, "NO_ALBUMENTATIONS_UPDATE": "1"},
    )
    assert run.returncode == 0, run.stderr
    return set(json.loads(run.stdout.splitlines()[-1]))


def test_lower_floors_load_no_framework() -> None:
    assert {"ops.boxes", "models.ssd", "losses", "metrics.voc", "data.voc", "visualization.draw", "detector"} <= set(
        lower_modules()
    )
    assert frameworks_after_importing([f"ssd_lightning.{module}" for module in lower_modules()]) == set()


@pytest.mark.parametrize("framework", sorted(FRAMEWORKS))
@pytest.mark.parametrize("statement", ["import {}", "from {} import anything"])
def test_a_module_that_loads_one_is_noticed(framework: str, statement: str, tmp_path: Path) -> None:
    """A stand-in takes the framework's place, since the real ones take seconds to load."""
    (tmp_path / f"{framework}.py").write_text("anything = 1\n")
    (tmp_path / "spoiler.py").write_text(statement.format(framework) + "\n")
    assert frameworks_after_importing(["json", "spoiler"], path=tmp_path) == {framework}


@pytest.mark.parametrize("path", FILES, ids=[module_of(path) or "ssd_lightning" for path in FILES])
def test_imports_go_downwards(path: Path) -> None:
    source, package = path.read_text(), module_of(path).partition(".")[0]
    assert package in {"", *MAY_IMPORT, *UPPER_LAYERS, *TOP_LAYER}, (
        f"{package} is a new package: say what it may import"
    )
    assert [name for name, level in imports(source) if level] == []
    assert forbidden(package, source) == []
    if package == "":  # the public API
        assert all(within(name, {"detector", "losses", "metrics", "models"}) for name in of_this_package(source))


@pytest.mark.parametrize(
    ("package", "statement"),
    [
        ("ops", "from ssd_lightning.models.ssd import SSD"),
        ("ops", "import ssd_lightning.losses"),
        ("ops", "def late():\n    from ssd_lightning import data"),
        ("models", "from ssd_lightning.data.dataset import ImageAnnotation"),
        ("losses", "from ssd_lightning.models import SSD"),
        ("data", "from ssd_lightning.ops.priors import make_priors"),
        ("data", "from ssd_lightning.ops import priors"),
        ("metrics", "from ssd_lightning.data import voc"),
        ("visualization", "from ssd_lightning.types import Detections"),
        ("detector", "from ssd_lightning.training.module import SSDModule"),
        ("training", "from ssd_lightning.configs import compose"),
        ("training", "from ssd_lightning import train"),
        ("training", "from ssd_lightning.benchmarking import timing"),
        ("benchmarking", "from ssd_lightning.configs import compose_config"),
    ],
)
def test_an_import_upwards_or_sideways_is_noticed(package: str, statement: str) -> None:
    assert len(forbidden(package, statement)) == 1


@pytest.mark.parametrize(
    ("package", "statement"),
    [
        ("data", "from ssd_lightning.ops.boxes import clip_boxes"),
        ("data", "from ssd_lightning.ops import boxes"),
        ("detector", "from ssd_lightning.data.resize import resize_image"),
        ("training", "from ssd_lightning.training.module import SSDModule"),
        ("training", "import ssd_lightning"),
        ("ops", "import torch"),
    ],
)
def test_an_import_downwards_is_none_of_our_business(package: str, statement: str) -> None:
    assert forbidden(package, statement) == []


def test_relative_imports_are_seen() -> None:
    assert [level for _, level in imports("from . import boxes\nfrom ..types import Target\nimport os")] == [1, 2, 0]
