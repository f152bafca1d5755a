from pathlib import Path

import pytest

from helpers.evaluation_records import EMPTY
from helpers.report_runs import make_run
from ssd_lightning.errors import DataError
from ssd_lightning.reporting.run import read_curves, read_run, runs_below


def test_a_whole_run_is_read(tmp_path: Path) -> None:
    run = read_run(make_run(tmp_path / "run", record=EMPTY["neither"]))
    assert (run.name, run.seconds(), run.epochs_trained()) == ("toy · run", 3720, 3)
    assert run.images() == {"train": 99, "val": 2}
    assert run.checkpoint is not None
    assert set(run.evaluations) == {"val"}
    assert run.curves["loss"].steps.tolist() == list(range(30))
    assert run.best_validation() == 1
    assert run.score("val/map_11point") == 0.6
    assert run.score("val/loss_cls") == 1.0  # of the second epoch, not the last
    assert run.score("loss") == pytest.approx(0.3)
    assert run.score("test/map_11point") is None


def test_scores_come_from_the_result_where_there_is_no_log(tmp_path: Path) -> None:
    directory = make_run(tmp_path / "run", record=EMPTY["neither"], without=("metrics.csv",))
    (directory / "result.json").write_text('{"scores": {"val/map_11point": 0.25, "val/map": null}}')
    run = read_run(directory)
    assert run.score("val/map_11point") == 0.25
    assert run.score("val/map") is None
    assert run.best_validation() is None


def test_a_line_cut_off_by_a_crash_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    path.write_text("epoch,loss,step\n0,1.5,0\n,1.25,1\n0,nan,2\n0,1.")
    curve = read_curves(path)["loss"]
    assert curve.steps.tolist() == [0, 1, 2]
    assert curve.epochs.tolist() == [0, 0, 0]  # what was skipped is that of the line before
    assert curve.values[:2].tolist() == [1.5, 1.25]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("metrics.csv", b"epoch,loss,step\n0,1.5,0\n0,1.5\n0,1,2\n", "line 3 has 2 values for 3 columns"),
        ("metrics.csv", b"epoch,loss,step\n0,high,0\n0,1,1\n", "line 2: could not convert string to float: 'high'"),
        ("metrics.csv", b"a,b\n1,2\n", "has no columns 'epoch' and 'step'"),
        ("metrics.csv", b"epoch,loss,step\n\xff\xfe,1,1\n", "is damaged"),
        ("run.json", b"{", "is damaged"),
        ("run.json", b"[]", "a list"),
        ("result.json", b"\xff", "is damaged"),
        ("config.yaml", b"a: [1", "is damaged"),
        ("config.yaml", b"a: !!python/object/apply:os.system [ls]\n", "is damaged"),
        ("evaluations/val.npz", b"PK", "damaged"),
    ],
)
def test_a_damaged_file_is_named_in_one_line(tmp_path: Path, name: str, content: bytes, said: str) -> None:
    path = make_run(tmp_path / "run", record=EMPTY["neither"]) / name
    path.write_bytes(content)
    with pytest.raises(DataError, match=said) as refused:
        read_run(tmp_path / "run")
    assert str(path) in str(refused.value)
    assert len(str(refused.value).splitlines()) == 1


def test_what_is_no_run_is_said(tmp_path: Path) -> None:
    (tmp_path / "model.ckpt").write_bytes(b"weights")
    (tmp_path / "other").mkdir()
    make_run(tmp_path / "empty", without=("metrics.csv", "checkpoint"))
    make_run(tmp_path / "kept", without=("metrics.csv",))
    for name, said in {
        "nowhere": "there is no run directory",
        "other": r"is not a run directory: it has none of run\.json",
        "model.ckpt": r"model\.ckpt is a file outside of a run directory",
        "empty": "has nothing to show yet",
        "kept": r"evaluate it first: .*checkpoint=.*kept .*kept/evaluations/val.npz",
    }.items():
        with pytest.raises(DataError, match=said):
            read_run(tmp_path / name)


def test_folders_and_files_stand_for_their_runs(tmp_path: Path) -> None:
    outputs = tmp_path / "outputs"
    of_sweep = [make_run(outputs / "sweep" / name) for name in ("b", "9", "10")]
    make_run(outputs / "sweep" / "failed", without=("metrics.csv",))
    other = make_run(outputs / "tiny" / "1")
    (outputs / "sweep" / "plots").mkdir()
    for path, runs in {
        outputs: [*of_sweep, other],
        outputs / "sweep": of_sweep,
        other: [other],
        other / "checkpoints" / "best.ckpt": [other],
        other / "metrics.csv": [other],
        tmp_path / "nowhere": [tmp_path / "nowhere"],
        outputs / "sweep" / "plots": [outputs / "sweep" / "plots"],
    }.items():
        assert runs_below(path) == runs
