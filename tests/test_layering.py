"""What a plain import loads. Who may import whom is written in pyproject.toml, and `lint-imports` checks it."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
from PIL import Image

from helpers.tiny_nets import tiny_net
from ssd_lightning.inference.detector import Detector

FRAMEWORKS = {"pytorch_lightning", "lightning_fabric", "hydra", "omegaconf", "wandb"}


def test_the_package_loads_torch_when_it_is_used_and_no_framework() -> None:
    code = (
        "import json, sys, ssd_lightning\n"
        "assert 'torch' not in sys.modules\n"
        "for name in ssd_lightning.__all__: getattr(ssd_lightning, name)\n"
        "print(json.dumps(sorted(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = {name.partition(".")[0] for name in json.loads(done.stdout)}
    assert loaded & {"torch"}
    assert loaded & FRAMEWORKS == set()


def test_predict_loads_no_lightning(tmp_path: Path) -> None:
    Detector(tiny_net(num_classes=1), class_names=["cat"]).save(tmp_path / "tiny.ckpt")
    Image.fromarray(np.zeros((48, 64, 3), np.uint8)).save(tmp_path / "one.png")
    code = (
        "import json, sys\n"
        "from ssd_lightning.predict import main\n"
        "main()\n"
        "json.dump(sorted(sys.modules), open('modules.json', 'w'))"
    )
    line = [sys.executable, "-c", code, "checkpoint=tiny.ckpt", "source=one.png"]
    subprocess.run(line, cwd=tmp_path, capture_output=True, text=True, check=True)
    loaded = {name.partition(".")[0] for name in json.loads((tmp_path / "modules.json").read_text())}
    assert (tmp_path / "predictions" / "predictions.json").is_file()
    assert loaded & {"pytorch_lightning", "lightning_fabric", "torchmetrics", "albumentations", "matplotlib"} == set()
