import csv
import multiprocessing
import shutil
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch

from helpers.interrupted import EPOCHS, PowerCut, also, assert_same, assert_same_end, data, everything, fit, module
from helpers.small_network import small_net
from ssd_lightning.analysis.evaluation_record import EvaluationRecord
from ssd_lightning.errors import ConfigurationError, WeightsError
from ssd_lightning.inference.detector import Detector
from ssd_lightning.train import best_checkpoint
from ssd_lightning.training._compat import GrowingCSVLogger
from ssd_lightning.training.callbacks.evaluations import Evaluations
from ssd_lightning.training.fault_tolerance.data_state import BatchCounters
from ssd_lightning.training.fault_tolerance.new_settings import NewSettings
from ssd_lightning.training.fault_tolerance.resumption import (
    begin_directory,
    check_fits,
    check_work_is_left,
    find_resumable,
    hold_directory,
    keep_rows,
    log_differences,
)
from ssd_lightning.training.schedules import cosine

LAST = Path("checkpoints") / "last.ckpt"


@pytest.mark.parametrize(
    ("hook", "call", "every_n_steps"),
    [
        ("on_train_batch_start", 8, 3), ("on_validation_end", 2, 1), ("on_train_epoch_end", 2, None),
        also("on_train_batch_end", 15, 1), also("on_validation_start", 2, None), also("on_train_epoch_start", 3, 1),
    ],
)  # fmt: skip
def test_a_run_that_is_cut_anywhere_ends_as_if_it_had_not_been(
    tmp_path: Path, whole: Path, hook: str, call: int, every_n_steps: int | None
) -> None:
    run = tmp_path / "run"
    watch = {"callbacks": (Evaluations(),), "default_root_dir": run, "every_n_steps": every_n_steps}
    with pytest.raises(PowerCut):
        fit(run, cut=(hook, call), **watch)  # type: ignore[arg-type]
    fit(run, resume=find_resumable(run), **watch)  # type: ignore[arg-type]
    assert_same_end(run, whole)
    one, two = (EvaluationRecord.load(path / "evaluations" / "val.npz") for path in (run, whole))
    assert_same([*one.detections, *one.objects], [*two.detections, *two.objects])
    assert one.image_ids == two.image_ids


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings", [{"check_val_every_n_epoch": 2, "limit_train_batches": 3}, {"max_steps": 7, "precision": "bf16-mixed"}]
)
def test_other_ways_to_train_are_gone_on_with_too(tmp_path: Path, settings: dict) -> None:
    settings = {"max_epochs": 2, **settings}
    fit(tmp_path / "whole", **settings)
    run = tmp_path / "run"
    with pytest.raises(PowerCut):
        fit(run, cut=("on_train_batch_end", 4), every_n_steps=1, **settings)
    fit(run, resume=find_resumable(run), **settings)
    assert_same_end(run, tmp_path / "whole")


def test_repeated_images_drawn_sizes_and_validations_within_epochs_go_on_too(tmp_path: Path) -> None:
    def train(name: str, **settings: Any) -> list[int]:
        sizes: list[int] = []

        class SeenSizes(pl.Callback):
            def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
                sizes.append(batch[0].shape[-1])

        model = module()
        model.net.allow_training_sizes([(64, 64), (96, 96)])
        more = {"multiscale": [32, 96], "repeat_rare": True, "val_check_interval": 2, "max_epochs": 2, "num_images": 7}
        fit(tmp_path / name, model=model, every_n_steps=1, callbacks=(SeenSizes(),), **{**more, **settings})
        return sizes

    whole = train("whole")
    assert len(whole) == 2 * 4  # 7 images, one of them sqrt(.9 * 7) times
    assert set(whole) == {32, 64, 96}
    with pytest.raises(PowerCut):
        train("run", cut=("on_train_batch_end", 7))  # before the seventh step was saved
    with pytest.raises(WeightsError, match=r"of 8 training images.*and 7 images"):
        train("run", repeat_rare=False, resume=tmp_path / "run" / LAST)
    assert train("run", resume=tmp_path / "run" / LAST) == whole[6:]
    assert_same_end(tmp_path / "run", tmp_path / "whole")


def test_a_run_that_goes_on_elsewhere_knows_the_best_score(tmp_path: Path, whole: Path) -> None:
    (tmp_path / "other").mkdir()
    begin_directory(tmp_path / "other", whole / LAST)
    trainer = fit(tmp_path / "other", resume=whole / LAST)
    assert best_checkpoint(trainer) == str(tmp_path / "other" / "checkpoints" / "best.ckpt")
    assert trainer.checkpoint_callback.best_model_score == everything(whole)["best"]  # type: ignore[union-attr]


def test_a_best_checkpoint_that_was_left_behind_does_not_count(
    tmp_path: Path, whole: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """As if only `last.ckpt` was copied from another machine, of a run that no later score can beat."""
    state = torch.load(whole / LAST, weights_only=True)
    (best,) = (kept for key, kept in state["callbacks"].items() if key.startswith("BestCheckpoint"))
    perfect = torch.tensor(1.0)
    best |= {"best_model_score": perfect, "kth_value": perfect, "best_k_models": {best["best_model_path"]: perfect}}
    torch.save(state, tmp_path / "last.ckpt")
    trainer = fit(tmp_path / "run", resume=tmp_path / "last.ckpt", max_epochs=EPOCHS + 1)
    assert best_checkpoint(trainer) == str(tmp_path / "run" / "checkpoints" / "best.ckpt")
    assert Detector.load(tmp_path / "run" / "checkpoints" / "best.ckpt")
    assert "best.ckpt is missing" in caplog.text


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was cut in its fourth step, with two checkpoints; nobody writes into it."""
    run = tmp_path_factory.mktemp("stopped") / "run"
    with pytest.raises(PowerCut):
        fit(run, cut=("on_train_batch_end", 4), every_n_steps=1)
    return run


def test_an_epoch_that_cannot_go_on_is_refused(tmp_path: Path, stopped: Path) -> None:
    with pytest.raises(WeightsError, match=r"middle of epoch 0, after 6 of 11 .*batch_size=2;.*batch_size=4 and 11"):
        fit(tmp_path / "run", resume=stopped / LAST, batch_size=4)
    with pytest.raises(WeightsError, match=r"after 6 of 11 training images.*and 12 images"):
        fit(tmp_path / "run", resume=stopped / LAST, num_images=12)


class SeenImages(pl.Callback):
    """Notes the images of each optimiser step."""

    def __init__(self) -> None:
        self.steps: list[list[str]] = []
        self._gathered: list[str] = []

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._gathered += [target["image_id"] for target in batch[1]]
        if (batch_idx + 1) % trainer.accumulate_grad_batches == 0:
            self.steps.append(sorted(self._gathered))
            self._gathered = []


def test_mid_epoch_goes_on_with_other_accumulated_batches(tmp_path: Path) -> None:
    """As with other devices: a batch is then another part of a step."""
    first, second, settings = SeenImages(), SeenImages(), {"batch_size": 4, "every_n_steps": 1, "max_epochs": 2}
    cut = {"cut": ("on_train_batch_start", 5), "accumulate_grad_batches": 4}
    with pytest.raises(PowerCut):
        fit(tmp_path / "run", callbacks=(first,), **settings, **cut)  # type: ignore[arg-type]
    resumed = {"resume": tmp_path / "run" / LAST, "callbacks": (BatchCounters(), NewSettings(), second)}
    trainer = fit(tmp_path / "run", accumulate_grad_batches=2, **settings, **resumed)  # type: ignore[arg-type]
    sampler, expected = data(tmp_path, batch_size=4).train_sampler(), []
    for epoch in range(2):
        sampler.set_epoch(epoch)
        names = [str(key.image) for key in sampler]
        expected += [sorted(names[:4]), sorted(names[4:])]
    assert first.steps + second.steps == expected
    assert trainer.global_step == 4


class Stop(pl.Callback):
    """Ends a run in order after some steps, as `trainer.max_steps` and `trainer.max_time` do."""

    def __init__(self, steps: int) -> None:
        self.steps = steps

    def on_train_batch_end(self, trainer: pl.Trainer, *arguments: Any) -> None:
        trainer.should_stop = trainer.global_step >= self.steps


@pytest.mark.parametrize("steps", [3, also(5)])
def test_a_run_that_was_ended_in_mid_epoch_goes_on_there(tmp_path: Path, whole: Path, steps: int) -> None:
    fit(tmp_path / "run", callbacks=(Stop(steps),))
    place = torch.load(tmp_path / "run" / LAST, weights_only=True)["DetectionDataModule"]
    assert (place["epoch"], place["samples_seen"]) == (steps // 5, steps % 5 * 2)
    fit(tmp_path / "run", resume=tmp_path / "run" / LAST, callbacks=(BatchCounters(), NewSettings()))
    ended, uncut = everything(tmp_path / "run"), everything(whole)
    del ended["best"], uncut["best"]  # a run that is ended validates once more
    assert_same(ended, uncut)


def test_a_run_that_was_ended_in_mid_epoch_keeps_its_log_and_counts_its_steps_on(tmp_path: Path) -> None:
    run = tmp_path / "run"
    log = {"logger": GrowingCSVLogger(save_dir=run, name="", version=""), "log_every_n_steps": 1}
    fit(run, callbacks=(Stop(3),), **log)
    begin_directory(run, run / LAST)
    fit(run, resume=run / LAST, callbacks=(BatchCounters(), NewSettings()), **log)
    rows = list(csv.DictReader((run / "metrics.csv").read_text().splitlines()))
    assert [row["step"] for row in rows if row["train/loss_cls"]] == [str(step) for step in range(15)]
    assert [row["step"] for row in rows if row["val/map"]] == ["2", "4", "9", "14"]


def test_a_validation_that_will_be_repeated_is_taken_out_of_the_log(tmp_path: Path) -> None:
    run, log = tmp_path / "run", GrowingCSVLogger(save_dir=tmp_path / "run", name="", version="")
    with pytest.raises(PowerCut):
        fit(run, cut=("on_validation_end", 2), every_n_steps=1, logger=log)
    log.save()
    begin_directory(run, run / LAST)
    rows = list(csv.DictReader((run / "metrics.csv").read_text().splitlines()))
    assert [row["step"] for row in rows if row["val/map"]] == ["4"]


def test_a_line_that_was_cut_off_and_the_end_of_a_run_come_again_too(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    path.write_text("loss,step,test/map\n1.0,0,\n,1,0.25\n0.3")
    keep_rows(path, steps=9, with_last_validation=True)
    assert path.read_text().split() == ["loss,step,test/map", "1.0,0,"]
    keep_rows(path, steps=0, with_last_validation=True)
    assert not path.exists()


def test_the_optimiser_s_new_settings_hold_from_the_next_step_on(tmp_path: Path, whole: Path) -> None:
    fresh = partial(torch.optim.SGD, lr=0.01, momentum=0.5, weight_decay=0.1)
    logged: list[list[float]] = []

    class Log(pl.Callback):
        def on_train_batch_start(self, trainer: pl.Trainer, *arguments: Any) -> None:
            groups = trainer.optimizers[0].param_groups
            logged.append([group[key] for group in groups for key in ("lr", "weight_decay")])

    watch = (BatchCounters(), NewSettings(), Log())
    trainer = fit(tmp_path / "run", resume=whole / LAST, model=module(optimizer=fresh), max_epochs=4, callbacks=watch)
    (factor,) = cosine(fresh([torch.zeros(1)]), total_steps=20, warmup_steps=2).lr_lambdas
    rates = [0.01 * factor(step) for step in range(15, 20)]  # 15 steps were done; the schedule is at the same place
    assert logged == [pytest.approx([rate, 0.1, 2 * rate, 0.0]) for rate in rates]
    assert trainer.optimizers[0].param_groups[0]["momentum"] == 0.5
    saved = torch.load(tmp_path / "run" / LAST, weights_only=True)
    assert saved["optimizer_states"][0]["param_groups"][0]["initial_lr"] == 0.01


def test_without_the_moving_average_the_trained_weights_go_on(tmp_path: Path, whole: Path) -> None:
    """The optimiser's state is theirs. Lightning would go on with the average."""
    begun: dict[str, torch.Tensor] = {}

    class Begin(pl.Callback):
        def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
            begun.update({name: tensor.clone() for name, tensor in pl_module.state_dict().items()})

    given = {"resume": whole / LAST, "max_epochs": 4, "callbacks": (NewSettings(), Begin()), "averages": False}
    trainer = fit(tmp_path / "run", **given)  # type: ignore[arg-type]
    saved = torch.load(whole / LAST, weights_only=True)
    assert_same(begun, saved["current_model_state"])
    assert trainer.global_step == 20


@pytest.mark.parametrize(
    ("optimizer", "freeze", "sentence"),
    [
        (partial(torch.optim.AdamW, lr=0.01), None, r"different one: .*momentum.*, this one .*betas.*init_from="),
        (partial(torch.optim.SGD, lr=0.01), 1, r"has \[.*\] parameters in its groups; this run trains \[.*\]"),
    ],
)
def test_another_optimiser_is_refused(
    tmp_path: Path, whole: Path, optimizer: Any, freeze: int | None, sentence: str
) -> None:
    model = module(optimizer=optimizer)
    model.net.freeze_backbone(stages=freeze)
    with pytest.raises(ConfigurationError, match=sentence):
        fit(tmp_path / "run", resume=whole / LAST, model=model, max_epochs=4, callbacks=(NewSettings(),))


def test_a_run_with_nothing_left_to_train_is_refused(tmp_path: Path, whole: Path) -> None:
    check_work_is_left(whole / LAST, max_epochs=4, max_steps=-1)
    check_work_is_left(whole / LAST, max_epochs=None, max_steps=16)
    with pytest.raises(WeightsError, match=r"has trained for 3 epochs, and trainer.max_epochs=3 leaves nothing"):
        check_work_is_left(whole / LAST, max_epochs=3, max_steps=-1)
    with pytest.raises(WeightsError, match=r"trained for 15 steps, and trainer.max_steps=10"):
        check_work_is_left(whole / LAST, max_epochs=-1, max_steps=10)


def characters_read() -> int:
    """Bytes that this process has read by system calls."""
    return int(Path("/proc/self/io").read_text().split()[1])


@pytest.mark.skipif(not Path("/proc/self/io").exists(), reason="counted by Linux")
def test_a_start_reads_a_large_checkpoint_once(tmp_path: Path, whole: Path) -> None:
    """Lightning reads it a second time."""
    state = torch.load(whole / LAST, weights_only=True)
    state["optimizer_states"][0]["state"][0]["momentum_buffer"] = torch.zeros(8 << 20)
    path = tmp_path / "run" / LAST
    path.parent.mkdir(parents=True)
    torch.save(state, path)
    before = characters_read()
    assert find_resumable(tmp_path / "run") == path
    check_work_is_left(path, max_epochs=4, max_steps=-1)
    check_fits(path, ("cat", "dog"), small_net())
    begin_directory(tmp_path / "other", path)
    assert characters_read() - before < 1.1 * path.stat().st_size


def test_another_network_is_refused(whole: Path) -> None:
    check_fits(whole / LAST, ("cat", "dog"), small_net())
    with pytest.raises(WeightsError, match=r"resume=.*last.ckpt has a different network than this command bu.*shape"):
        check_fits(whole / LAST, ("cat", "dog"), small_net(num_classes=3))
    larger, clipped = small_net(image_size=64), small_net(clip_priors=True)
    for net, named in ((larger, "image_size, levels differ"), (clipped, "clip_priors differ")):
        with pytest.raises(WeightsError, match=rf"different network than this command builds: {named}; init_from="):
            check_fits(whole / LAST, ("cat", "dog"), net)


def test_a_file_with_weights_alone_is_refused(tmp_path: Path, whole: Path) -> None:
    Detector.load(whole / LAST).save(tmp_path / "detector.ckpt")
    with pytest.raises(WeightsError, match=r"resume=.*detector.ckpt is not the checkpoint of a tr.*init_from= starts"):
        check_fits(tmp_path / "detector.ckpt", ("cat", "dog"), small_net())


def test_weights_that_are_given_no_step_are_saved_all_the_same(tmp_path: Path) -> None:
    trainer = fit(tmp_path / "run", max_steps=0)
    saved = Detector.load(tmp_path / "run").net.state_dict()
    assert all(torch.equal(tensor, saved[name]) for name, tensor in trainer.lightning_module.net.state_dict().items())


def files_in(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_a_directory_is_made_ready_for_what_goes_on_in_it(tmp_path: Path, whole: Path) -> None:
    run, other = tmp_path / "run", tmp_path / "other"
    shutil.copytree(whole, run)
    (run / "dashboard/images").mkdir(parents=True)
    for name in ("result.json", "metrics.csv", "evaluations/test.npz", "dashboard/a.png", "dashboard/images/b.jpg"):
        (run / name).write_text("loss,step\n1,14\n1,15\n")
    before = files_in(run)
    begin_directory(run, run / LAST)  # 15 steps are done
    assert before - files_in(run) == {"result.json", "evaluations/test.npz"}
    assert (run / "metrics.csv").read_text().split() == ["loss,step", "1,14"]
    (other / "checkpoints").mkdir(parents=True)
    (other / "checkpoints" / "previous.ckpt").write_text("of another run")
    begin_directory(other, run / LAST)
    assert files_in(other) == {"checkpoints/best.ckpt", "evaluations/val.npz", "metrics.csv"}
    assert (other / "metrics.csv").read_text().split() == ["loss,step", "1,14"]
    begin_directory(run, None)
    assert files_in(run) == set()


def test_a_directory_is_one_process_s(tmp_path: Path) -> None:
    fork = multiprocessing.get_context("fork")
    held = fork.Event()

    def hold() -> None:
        hold_directory(tmp_path)
        held.set()
        time.sleep(60)

    other = fork.Process(target=hold, daemon=True)
    other.start()
    assert held.wait(20)
    with pytest.raises(ConfigurationError, match="still in progress"):
        hold_directory(tmp_path, seconds=0.2)
    other.kill()
    other.join()
    hold_directory(tmp_path, seconds=20)
    assert not hold_directory(tmp_path)  # by the same process, as often as it likes


def test_other_settings_are_reported(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "config.yaml").write_text("seed: 1\noptimizer: {lr: 0.1}\ndata: {num_workers: 3}\n")
    config = {"seed": 1, "optimizer": {"lr": 0.2}, "data": {"num_workers": 0}}
    log_differences(tmp_path / LAST, config)
    assert caplog.text.count("\n  ") == 1
    assert "optimizer.lr: 0.1 -> 0.2" in caplog.text


def test_a_damaged_checkpoint_is_reported_and_the_one_before_it_taken(
    tmp_path: Path, whole: Path, stopped: Path, caplog: pytest.LogCaptureFixture
) -> None:
    kept = shutil.copytree(stopped, tmp_path / "run") / "checkpoints"
    content = (kept / "last.ckpt").read_bytes()
    middle = len(content) // 2
    a_bit = content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]
    for spoilt in (content[:-500], b"", b"nothing", a_bit):
        caplog.clear()
        (kept / "last.ckpt").write_bytes(spoilt)
        assert find_resumable(tmp_path / "run") == kept / "previous.ckpt"
        assert "last.ckpt is damaged" in caplog.text
        assert "previous.ckpt instead" in caplog.text
    fit(tmp_path / "run", resume=kept / "previous.ckpt")
    assert_same_end(tmp_path / "run", whole)


def test_where_all_are_damaged_nothing_begins_anew_unasked(tmp_path: Path, stopped: Path) -> None:
    kept = shutil.copytree(stopped, tmp_path / "run") / "checkpoints"
    for path in kept.glob("*.ckpt"):
        path.write_bytes(b"PK")
    with pytest.raises(WeightsError, match=r"all checkpoints in .* are damaged: last.ckpt, previous.ckpt"):
        find_resumable(tmp_path / "run")
    with pytest.raises(WeightsError, match=r"last.ckpt is damaged"):
        find_resumable(kept / "last.ckpt")
    with pytest.raises(WeightsError, match=r"nothing\.ckpt: there is no such file"):
        find_resumable(kept / "nothing.ckpt")
    for path in kept.glob("*.ckpt"):
        path.unlink()
    assert find_resumable(tmp_path / "run") is None
    with pytest.raises(WeightsError, match=r"no checkpoint in .*run/checkpoints: no last.ckpt, previous.ckpt or best"):
        find_resumable(tmp_path / "run", required=True)
