from collections.abc import Callable
from pathlib import Path

import pytest

from ssd_lightning.errors import DataError
from ssd_lightning.reporting.metric_log import read_curves
from ssd_lightning.reporting.run import read_run, runs_below

MakeRun = Callable[..., Path]


def test_a_whole_run_is_read(make_run: MakeRun) -> None:
    run = read_run(make_run())
    assert run.name == "toy · run"
    assert run.seconds() == 3720
    assert run.images() == {"train": 99, "val": 30}
    assert run.epochs_trained() == 3
    assert run.checkpoint is not None
    assert set(run.evaluations) == {"val"}
    assert run.curves["loss"].steps.tolist() == list(range(30))


def test_the_best_validation_is_that_of_the_objective_and_tells_all_scores(make_run: MakeRun) -> None:
    run = read_run(make_run())
    assert run.best_validation() == 1
    assert run.score("val/map_11point") == 0.6
    assert run.score("val/loss_cls") == 1.0  # of the second epoch, not the last
    assert run.score("loss") == pytest.approx(0.3)
    assert run.score("test/map_11point") is None


def test_scores_come_from_the_result_where_there_is_no_log(make_run: MakeRun) -> None:
    directory = make_run(without=("metrics.csv",))
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
    ("content", "said"),
    [
        (b"epoch,loss,step\n0,1.5,0\n0,1.5\n0,1,2\n", "line 3 has 2 values for 3 columns"),
        (b"epoch,loss,step\n0,high,0\n0,1,1\n", "line 2: could not convert string to float: 'high'"),
        (b"epoch,loss,step\n0,1,first\n0,1,1\n", "line 2: invalid literal"),
        (b"a,b\n1,2\n", "has no columns 'epoch' and 'step'"),
        (b"epoch,loss,step\n\xff\xfe,1,1\n", "is damaged"),
        (b"epoch,loss,step\n0,\x00,1\n", "is damaged"),
    ],
)
def test_a_damaged_log_is_named_with_its_line(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "metrics.csv"
    path.write_bytes(content)
    with pytest.raises(DataError, match=said) as refused:
        read_curves(path)
    assert str(path) in str(refused.value)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("run.json", b"{"),
        ("run.json", b"[]"),
        ("run.json", b"\xff"),
        ("result.json", b"nothing"),
        ("config.yaml", b"a: [1"),
        ("config.yaml", b"- 1\n"),
        ("config.yaml", b"a: !!python/object/apply:os.system [ls]\n"),
        ("evaluations/val.npz", b"PK"),
        ("evaluations/val.npz", b""),
    ],
)
def test_a_damaged_file_is_named_in_one_line(make_run: MakeRun, name: str, content: bytes) -> None:
    directory = make_run()
    (directory / name).write_bytes(content)
    with pytest.raises(DataError) as refused:
        read_run(directory)
    assert str(directory / name) in str(refused.value)
    assert len(str(refused.value).splitlines()) == 1


def test_what_is_no_run_is_said(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no run directory"):
        read_run(tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"is not a run directory: it has none of run\.json"):
        read_run(tmp_path)


def test_a_run_that_left_nothing_to_show_says_what_to_do(make_run: MakeRun) -> None:
    parts = ("metrics.csv", "result.json")
    with pytest.raises(DataError, match="has nothing to show yet"):
        read_run(make_run("empty", without=(*parts, "checkpoint"), splits=()))
    with pytest.raises(DataError, match=r"evaluate it first: .*checkpoint=.*kept .*record=.*kept/evaluations/val.npz"):
        read_run(make_run("kept", without=parts, splits=()))


def test_a_folder_of_runs_stands_for_them(make_run: MakeRun, tmp_path: Path) -> None:
    for name in ("10", "9", "b"):
        make_run(f"sweep/{name}", splits=())
    make_run("sweep/failed", without=("metrics.csv",), splits=())
    (tmp_path / "sweep" / "plots").mkdir()
    assert [path.name for path in runs_below(tmp_path / "sweep")] == ["b", "9", "10"]
    assert runs_below(tmp_path / "sweep" / "9") == [tmp_path / "sweep" / "9"]
    assert runs_below(tmp_path / "nowhere") == [tmp_path / "nowhere"]
    assert runs_below(tmp_path / "sweep" / "plots") == [tmp_path / "sweep" / "plots"]


def test_a_folder_of_several_names_and_a_checkpoint_stand_for_their_runs(make_run: MakeRun, tmp_path: Path) -> None:
    runs = [make_run(f"outputs/{name}", splits=()) for name in ("ssd/1", "ssd/2", "tiny/1")]
    (tmp_path / "outputs" / "cache").mkdir()
    assert runs_below(tmp_path / "outputs") == runs
    assert runs_below(runs[1] / "checkpoints" / "best.ckpt") == [runs[1]]
    assert runs_below(runs[1] / "metrics.csv") == [runs[1]]
    alone = tmp_path / "model.ckpt"
    alone.write_bytes(b"weights")
    with pytest.raises(DataError, match=r"model\.ckpt is a file outside of a run directory"):
        read_run(*runs_below(alone))
