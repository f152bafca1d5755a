"""Records of evaluations through the commands."""

from pathlib import Path

import pytest
import torch

from helpers.commands import SMALL, run_command
from ssd_lightning.analysis.evaluation_record import EvaluationRecord
from ssd_lightning.analysis.pr_curves import mean_ap, pr_curves


@pytest.mark.slow
def test_a_run_leaves_records_and_evaluate_writes_the_same(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_command(tmp_path, "train", *SMALL, "hydra.run.dir=run", "test=true")
    run_command(tmp_path, "evaluate", "checkpoint=run", "data=toy", "data.num_train=24", "data.num_val=5",
        "data.num_test=7", "data.side_px=96", "data.num_workers=0", "device=cpu", "record=new/test.npz",
    )  # fmt: skip
    assert "record:     new/test.npz" in capsys.readouterr().out
    val, test, again = (
        EvaluationRecord.load(tmp_path / name)
        for name in ("run/evaluations/val.npz", "run/evaluations/test.npz", "new/test.npz")
    )
    assert (len(val.image_ids), len(test.image_ids)) == (5, 7)
    assert (test.split, test.image_ids, test.class_names) == (again.split, again.image_ids, again.class_names)
    assert mean_ap(pr_curves(test)) == pytest.approx(mean_ap(pr_curves(again)), abs=1e-6)
    assert torch.equal(test.objects.boxes, again.objects.boxes)
    assert all(Path(path).is_absolute() and Path(path).is_file() for path in again.image_paths)
