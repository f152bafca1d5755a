"""Stands for training in tests of sweeps: it obeys the same contract in a moment, here or as a real process.

An epoch takes FAKE_EPOCH_S seconds. The objective grows with the epochs and is best at optimizer.lr=0.003; a learning
rate of 13 fails. What is done is kept in `checkpoints/epochs.txt`, a line an epoch, so that a second call goes on.
"""

import json
import math
import os
import signal
import sys
import time
from pathlib import Path

from omegaconf import OmegaConf

from ssd_lightning.digest import config_digest
from ssd_lightning.sweeps.processes import end_with_sweep


def main(folder: str) -> None:
    end_with_sweep()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    signal.signal(signal.SIGINT, lambda *_: sys.exit(130))
    directory = str(OmegaConf.load(Path(folder) / "job.yaml").hydra.run.dir)
    OmegaConf.register_new_resolver("hydra", {"runtime.output_dir": directory}.__getitem__)
    train(folder)


def train(folder: str) -> None:
    config = OmegaConf.load(Path(folder) / "job.yaml")
    directory = Path(config.pop("hydra").run.dir)
    if config.optimizer.lr == 13:
        sys.exit("error: 13 brings bad luck")
    done = directory / "checkpoints/epochs.txt"
    done.parent.mkdir(exist_ok=True)
    for epoch in range(len(done.read_text().split()) if done.is_file() else 0, config.trainer.max_epochs):
        time.sleep(float(os.environ.get("FAKE_EPOCH_S", "0")))
        value = objective(config.optimizer.lr, config.seed, epoch)
        for name, line in (
            ("objective.jsonl", json.dumps({"epoch": epoch, "value": value})),
            ("checkpoints/epochs.txt", "done"),
        ):
            with (directory / name).open("a") as file:
                file.write(f"{line}\n")
    value = objective(config.optimizer.lr, config.seed, config.trainer.max_epochs - 1)
    plain = OmegaConf.to_container(config, resolve=True)
    scores = {"val/map_11point": value, "val/map_area": value + 0.1, "val/ap_11point/disk": 1.0, "train/loss": 2.0}
    result = {"digest": config_digest(plain), "status": "finished", "scores": scores, "checkpoint": None}
    result["environment"] = {key: text for key, text in os.environ.items() if key.startswith("WANDB_")}
    (directory / "result.json").write_text(json.dumps(result))


def objective(lr: float, seed: int, epoch: int) -> float:
    return 0.8 - 0.2 * abs(math.log10(lr / 0.003)) + 0.01 * seed + 0.001 * epoch


if __name__ == "__main__":
    main(sys.argv[1])
