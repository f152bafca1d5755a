"""What a plain import loads. Who may import whom is written in pyproject.toml, and `lint-imports` checks it."""

import json
import subprocess
import sys

FRAMEWORKS = {"pytorch_lightning", "lightning_fabric", "hydra", "omegaconf", "wandb"}


def test_the_public_api_loads_no_framework() -> None:
    code = (
        "import json, sys, ssd_lightning\n"
        "for name in ssd_lightning.__all__: getattr(ssd_lightning, name)\n"
        "print(json.dumps(sorted(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = {name.partition(".")[0] for name in json.loads(done.stdout)}
    assert loaded & {"torch"}
    assert loaded & FRAMEWORKS == set()
