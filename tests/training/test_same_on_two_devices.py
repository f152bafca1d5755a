"""One run through the command line, on one device and on two."""

import csv
import json
import os
from pathlib import Path

import pytest
from test_distributed_runs import STARTS_WITHIN_S, TRAIN, Run

from ssd_lightning.data.toy import write_toy_dataset

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks for processes in /proc"),
]


def test_a_run_is_the_same_on_one_and_two_devices(tmp_path: Path) -> None:
    """Same images in each of 20 steps, same losses, same mAP; batch norm would have statistics of each process.

    At the paper's rate: at ten times it, the order of a sum alone moves the loss by 3.5e-5 after 18 steps.
    """
    toy = {"num_train": 45, "num_val": 8, "num_test": 2}  # five steps an epoch, and five images left over
    write_toy_dataset(root=tmp_path / "toy", image_size_px=(96, 96), **toy)
    overrides = [
        "data=toy", f"data.root={tmp_path / 'toy'}", *(f"data.{key}={count}" for key, count in toy.items()),
        "data.side_px=96", "data.batch_size=8", "data.num_workers=0", "model=qfgaohao_squeezenet_lite",
        "backbone.weights=null", "image_size=[160,160]", "optimizer.lr=0.001", "trainer.accelerator=cpu",
        "trainer.max_epochs=4", "trainer.log_every_n_steps=1", "trainer.check_val_every_n_epoch=4",
        "trainer.enable_progress_bar=false", "report=false", "+callbacks.seen._target_=helpers.seen_images.SeenImages",
    ]  # fmt: skip
    runs = {}
    for ranks in (1, 2):
        run, folder = Run(tmp_path), tmp_path / str(ranks)
        path = os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
        command = [*TRAIN, *overrides, f"trainer.devices={ranks}", f"hydra.run.dir={folder}"]
        run.start(command, PYTHONPATH=path, SEEN_IMAGES=str(tmp_path / f"seen{ranks}"))
        assert run.wait_for_all(STARTS_WITHIN_S) == [0], run.output()
        with (folder / "metrics.csv").open() as file:
            losses = [float(row["loss"]) for row in csv.DictReader(file) if row["loss"]]
        record = json.loads((folder / "run.json").read_text())
        scores = json.loads((folder / "result.json").read_text())["scores"]
        runs[ranks] = images_of_steps(tmp_path / f"seen{ranks}", ranks), losses, scores, record["batch"], run.output()
    (alone, losses, scores, _, _), (spread, spread_losses, spread_scores, batch, told) = runs[1], runs[2]
    assert len(alone) == len(losses) == 20
    assert spread == alone
    assert spread_losses == pytest.approx(losses, rel=1e-5)
    assert spread_scores["val/map_area"] == pytest.approx(scores["val/map_area"], abs=0.005)
    assert batch == {"batch_size": 8, "devices": 2, "accumulate_grad_batches": 1, "device_batch_size": 4}
    assert "8 images in each optimiser step, shared by 2 devices: 4 at a time" in told


def images_of_steps(folder: Path, ranks: int) -> list[list[str]]:
    of_ranks = [[json.loads(line) for line in (folder / f"{rank}.jsonl").open()] for rank in range(ranks)]
    return [sorted(name for names in step for name in names) for step in zip(*of_ranks, strict=True)]
