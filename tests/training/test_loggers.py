"""A logger that fails does not end a training."""

import csv
import logging
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

from helpers.interrupted import assert_same, assert_same_end, everything, fit
from ssd_lightning.training import loggers
from ssd_lightning.training.callbacks.dashboard.callback import Dashboard
from ssd_lightning.training.loggers import SturdyCSVLogger, SturdyTensorBoardLogger, SturdyWandbLogger, earlier_id

SHORT: dict[str, Any] = {"max_epochs": 1, "limit_train_batches": 2, "limit_val_batches": 1}


def full_disk(*_: Any, **__: Any) -> None:
    raise OSError("No space left on device")


@pytest.mark.parametrize(
    ("kind", "where"),
    [(SturdyCSVLogger, "save"), (SturdyCSVLogger, "log_metrics"), (SturdyTensorBoardLogger, "experiment")],
)
def test_a_training_outlives_its_logger(
    tmp_path: Path, kind: type, where: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    parent, run = kind.__mro__[2], tmp_path / "run"
    monkeypatch.setattr(parent, where, property(full_disk) if where == "experiment" else full_disk)
    logger = kind(save_dir=str(run), name="", version="")
    logger.log_hyperparams({"seed": 1})
    fit(run, logger=[logger], log_every_n_steps=1, callbacks=(Dashboard(),), default_root_dir=run, **SHORT)
    told = [message for message in caplog.messages if "training continues" in message]
    assert sum("failed" in message for message in told) == 1
    assert len(told) <= 2  # the dashboard may have a sentence of its own
    fit(tmp_path / "plain", **SHORT)
    assert_same_end(run, tmp_path / "plain")


@pytest.mark.parametrize("column", ["loss", "val/map"])
def test_rows_that_found_no_room_come_with_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, column: str
) -> None:
    """A disk that fills up within a row does not damage the log, also if the row has a new column."""

    def write_half(self: Any, rows: Any) -> None:
        self.writer.writerow(["9"])
        full_disk()

    logger, log = SturdyCSVLogger(save_dir=str(tmp_path), name="", version=""), tmp_path / "metrics.csv"
    logger.log_metrics({"loss": 1.0}, 0)
    logger.save()
    before = log.read_text()
    with monkeypatch.context() as patch:
        patch.setattr(csv.DictWriter, "writerows", write_half)
        logger.log_metrics({column: 2.0}, 1)
        logger.save()
    assert log.read_text() == before
    logger.log_metrics({"loss": 3.0}, 2)
    logger.save()
    rows = {
        "loss": ["loss,step", "1.0,0", "2.0,1", "3.0,2"],
        "val/map": ["loss,step,val/map", "1.0,0,", ",1,2.0", "3.0,2,"],
    }
    assert log.read_text().split() == rows[column]
    written = log.stat().st_ino
    logger.log_metrics({"loss": 4.0}, 3)
    logger.save()
    assert log.stat().st_ino == written  # a long log is not written again


def wandb_in(folder: Path, monkeypatch: pytest.MonkeyPatch, **settings: Any) -> SturdyWandbLogger:
    monkeypatch.setenv("WANDB_SILENT", "true")
    return loggers.SturdyWandbLogger(project="p", save_dir=str(folder), **settings)


def test_a_run_that_cannot_be_begun_is_begun_offline_then_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    import wandb

    asked: list[object] = []

    def refuse(**settings: Any) -> Any:
        asked.append(settings.get("mode"))
        if settings.get("mode") != "disabled":
            raise wandb.errors.CommError("Timed out\nwhile retrying")
        return init(**settings)

    init = wandb.init
    monkeypatch.setattr(wandb, "init", refuse)
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    monkeypatch.delenv("WANDB_MODE", raising=False)
    logger = wandb_in(tmp_path, monkeypatch)
    assert not logger.is_offline
    with caplog.at_level(logging.WARNING, logger=loggers.__name__):
        logger.log_metrics({"loss": 1.0}, 0)
        logger.log_metrics({"loss": 1.0}, 1)
    assert asked == [None, "offline", "disabled"]
    assert caplog.messages == [
        f"wandb: a run cannot be started {mode}, so {instead}: CommError: Timed out\\nwhile retrying"
        for mode, instead in (("online", "it is recorded offline"), ("offline", "nothing is recorded"))
    ]
    assert logger.is_offline
    wandb.finish()


def test_a_run_that_goes_on_goes_on_in_wandb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert earlier_id(tmp_path) is None
    for name in ("run-20260101_000000-old00000", "offline-run-20260102_000000-new00000", "latest-run"):
        (tmp_path / "wandb" / name).mkdir(parents=True)
    assert earlier_id(tmp_path) is None  # it starts from scratch: `begin_directory` has removed the checkpoints
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "last.ckpt").touch()
    assert earlier_id(tmp_path) == "new00000"
    assert wandb_in(tmp_path, monkeypatch)._wandb_init["id"] == "new00000"
    assert wandb_in(tmp_path, monkeypatch, id="mine")._wandb_init["id"] == "mine"
    monkeypatch.setenv("WANDB_RUN_ID", "told")
    assert wandb_in(tmp_path, monkeypatch)._wandb_init["id"] is None


def test_wandb_without_an_account_is_offline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    netrc = tmp_path / "netrc"
    monkeypatch.setenv("NETRC", str(netrc))
    for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_BASE_URL", "WANDB_IDENTITY_TOKEN_FILE"):
        monkeypatch.delenv(name, raising=False)
    assert wandb_in(tmp_path, monkeypatch).is_offline
    assert len(caplog.messages) == 1
    assert "offline" in caplog.messages[0]
    netrc.write_text("machine api.wandb.ai login user password secret\n")
    assert loggers.has_wandb_account()
    netrc.write_text("machine elsewhere login user password secret\n")
    assert not loggers.has_wandb_account()
    monkeypatch.setenv("WANDB_API_KEY", "k" * 40)
    assert loggers.has_wandb_account()


@pytest.mark.slow
def test_a_training_outlives_the_service_of_wandb(tmp_path: Path, whole: Path) -> None:
    """In a process of its own, whose service is killed in the middle: it ends with 0 and with the same weights."""
    script = textwrap.dedent(
        """
        import os, signal, subprocess, sys
        from pathlib import Path
        sys.path.insert(0, sys.argv[2])
        import pytorch_lightning as pl
        from helpers.interrupted import fit
        from ssd_lightning.training import loggers
        from ssd_lightning.training.callbacks.dashboard.callback import Dashboard

        class Kill(pl.Callback):
            def on_train_epoch_end(self, trainer, pl_module):
                if trainer.current_epoch == 0:
                    listed = subprocess.run(["ps", "-eo", "pid,ppid,comm"], capture_output=True, text=True).stdout
                    own = [row.split() for row in listed.splitlines() if "wandb-core" in row]
                    (pid,) = [int(pid) for pid, parent, _ in own if int(parent) == os.getpid()]
                    os.kill(pid, signal.SIGKILL)

        run = Path(sys.argv[1])
        run.mkdir()
        logger = loggers.SturdyWandbLogger(project="p", save_dir=str(run))
        logger.log_hyperparams({"seed": 1})
        fit(run, callbacks=(Dashboard(every_n_validations=1), Kill()), logger=[logger], default_root_dir=run,
            log_every_n_steps=1)
        """
    )
    command = [sys.executable, "-c", script, str(tmp_path / "run"), str(Path(__file__).parents[1])]
    environment = {**os.environ, "WANDB_MODE": "offline", "WANDB_DATA_DIR": str(tmp_path / "data")}
    environment.pop("WANDB_SERVICE", None)  # that of this process, if another test has started one
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=150, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stderr.count("training continues") in (1, 2)  # of the logger, and of the dashboard
    with_it, without = everything(tmp_path / "run"), everything(whole)
    assert with_it.pop("random").keys() == without.pop("random").keys()  # Python's own begins elsewhere in each process
    assert_same(with_it, without)
