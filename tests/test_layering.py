"""What a plain import loads. Who may import whom is written in pyproject.toml, and `lint-imports` checks it."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import ssd_lightning
from helpers.tiny_nets import tiny_net
from ssd_lightning.inference.detector import Detector

LIGHTNING = {"pytorch_lightning", "lightning_fabric"}
STAGES = """
import json, os, runpy, sys

def report(stage):
    print("LOADED", json.dumps([stage, sorted({name.partition(".")[0] for name in sys.modules})]), flush=True)

def fork(stage):
    if os.fork() == 0:
        stage()
        sys.exit()
    assert os.wait()[1] == 0, stage

def show_help():
    from hydra.core.global_hydra import GlobalHydra
    for command in ("train", "predict"):
        sys.argv = [command, "--help"]
        GlobalHydra.instance().clear()
        try:
            runpy.run_module(f"ssd_lightning.{command}", run_name="__main__")
        except SystemExit as end:
            assert not end.code
    report("help")

def predict():
    from ssd_lightning.predict import main
    sys.argv = ["predict", "checkpoint=tiny.ckpt", "source=one.png"]
    main()
    report("predict")

import ssd_lightning
report("import")
fork(show_help)
ssd_lightning.Detector  # which loads torch, once for all that follows
fork(predict)
for name in ssd_lightning.__all__:
    assert getattr(ssd_lightning, name) is not None
report("names")
"""


def test_each_use_loads_what_it_needs(tmp_path: Path) -> None:
    Detector(tiny_net(num_classes=1), class_names=["cat"]).save(tmp_path / "tiny.ckpt")
    Image.fromarray(np.zeros((48, 64, 3), np.uint8)).save(tmp_path / "one.png")

    done = subprocess.run([sys.executable, "-c", STAGES], cwd=tmp_path, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr
    lines = [line.removeprefix("LOADED ") for line in done.stdout.splitlines() if line.startswith("LOADED ")]
    loaded = {stage: set(modules) for stage, modules in map(json.loads, lines)}
    assert "torch" not in loaded["import"]
    assert loaded["help"] & {"torch", "wandb", "cv2", *LIGHTNING} == set()
    assert all(f"python -m ssd_lightning.{command}" in done.stdout for command in ("train", "predict"))
    assert loaded["predict"] & {"torchmetrics", "albumentations", "matplotlib", *LIGHTNING} == set()
    assert (tmp_path / "predictions" / "predictions.json").is_file()
    assert "torch" in loaded["names"]
    assert loaded["names"] & {"hydra", "omegaconf", "wandb", *LIGHTNING} == set()


def test_the_package_gives_its_public_names_and_no_others() -> None:
    assert ssd_lightning.Detector is Detector
    with pytest.raises(AttributeError, match="'ssd_lightning' has no attribute 'SSD300'"):
        ssd_lightning.SSD300  # noqa: B018
