import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from ssd_lightning import run_dirs
from ssd_lightning.command_line import CommandLine
from ssd_lightning.errors import ConfigurationError
from ssd_lightning.run_dirs import create_run_dir, is_restarted, newest_unfinished, run_dir, started_at, why_new


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(run_dirs, "_chosen", {})
    monkeypatch.setattr(run_dirs, "_unused", set())


def begin(name: str, *overrides: str, age_s: float = 0.0, over: bool = False) -> Path:
    run = Path("outputs") / "ssd" / name
    (run / ".hydra").mkdir(parents=True)
    OmegaConf.save(OmegaConf.create(list(overrides)), run / ".hydra" / "overrides.yaml")
    (run / "run.json").write_text("{}")
    if over:
        (run / "result.json").write_text("{}")
    stamp = time.time() - age_s
    os.utime(run / ".hydra", (stamp, stamp))
    return run


def chosen(resume: str | None, *overrides: str) -> str:
    root = OmegaConf.create({"seed": 1, "hydra": {"overrides": {"task": list(overrides)}}})
    return run_dir("ssd", resume, _root_=root)


def test_auto_goes_on_with_the_newest_run_of_the_same_overrides() -> None:
    begin("a", "seed=1", "name=x_${seed}", age_s=30)
    wanted = begin("b", "name=x_${seed}", "seed=1", age_s=20)
    begin("c", "name=x_${seed}", "seed=2", age_s=10)
    begin("d", "name=x_${seed}", "seed=1", over=True)
    assert chosen("auto", "resume=auto", "seed=1", "name=x_${seed}") == str(wanted)  # compared as it was written


def test_auto_without_such_a_run_and_no_resume_are_new_runs() -> None:
    begin("a", "seed=1", over=True)
    begin("b", "seed=2")
    for resume in ("auto", None):
        assert Path(chosen(resume, "seed=1")).name[:4] == time.strftime("%Y")


def test_a_process_asks_often_and_always_gets_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    first = chosen(None, "seed=1")
    monkeypatch.setattr(time, "strftime", lambda *arguments: "later")
    assert chosen(None, "seed=1") == first


def test_a_command_that_was_refused_is_no_unfinished_run() -> None:
    refused = begin("a", "seed=1")
    (refused / "run.json").unlink()
    assert newest_unfinished(Path("outputs/ssd"), ["seed=1"]) is None


def test_a_repetition_goes_on_with_a_repetition_of_the_same_run(monkeypatch: pytest.MonkeyPatch) -> None:
    one, two = begin("a", age_s=20), begin("b", age_s=10)
    (one / "run.json").write_text('{"repeats": "first"}')
    (two / "run.json").write_text('{"repeats": "second"}')
    for repeated, wanted in ((Path("first"), one), (Path("second"), two), (None, None)):
        monkeypatch.setattr(CommandLine, "repeated_run", repeated)
        assert newest_unfinished(Path("outputs/ssd"), []) == wanted


def test_why_auto_begins_anew() -> None:
    new = begin("z", "seed=2", "resume=auto")
    assert why_new(new, ["seed=2"]) == "no run in outputs/ssd is unfinished"
    begin("a", "seed=1", "experiment=x", age_s=20)
    begin("b", "seed=2", over=True)
    assert why_new(new, ["experiment=x", "seed=2"]) == (
        "outputs/ssd/a is unfinished, but was started with seed=1 while this command has seed=2"
    )


def test_runs_of_one_second_have_directories_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_dirs, "started_at", lambda environment: "2026-01-02_03-04-05")
    for name in ("2026-01-02_03-04-05", "2026-01-02_03-04-05_2", "2026-01-02_03-04-05_3"):
        run_dirs._chosen.clear()
        assert Path(chosen(None)).name == name
        begin(name)
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "x")
    run_dirs._chosen.clear()
    assert Path(chosen(None)).name == "2026-01-02_03-04-05"


def test_a_directory_that_another_process_has_created_meanwhile_is_not_shared(monkeypatch: pytest.MonkeyPatch) -> None:
    OmegaConf.register_new_resolver("run_dir", run_dir, replace=True)
    config = OmegaConf.create({"hydra": {"run": {"dir": "${run_dir:ssd,null}"}, "overrides": {"task": []}}})
    monkeypatch.setattr(run_dirs, "started_at", lambda environment: "2026-01-02_03-04-05")
    assert config.hydra.run.dir == "outputs/ssd/2026-01-02_03-04-05"
    begin("2026-01-02_03-04-05")
    assert create_run_dir(config) == Path("outputs/ssd/2026-01-02_03-04-05_2") == Path(config.hydra.run.dir)


@pytest.mark.parametrize("holds", ["checkpoints/last.ckpt", "result.json"])
def test_a_directory_with_a_run_is_not_used_for_another(holds: str) -> None:
    run = begin("a") / holds
    run.parent.mkdir(exist_ok=True)
    run.write_text("{}")

    def create(**settings: str) -> Path:
        return create_run_dir(OmegaConf.create({"hydra": {"run": {"dir": "outputs/ssd/a"}}, **settings}))

    for settings in ({}, {"resume": "outputs/ssd/b"}):
        with pytest.raises(ConfigurationError, match="outputs/ssd/a already holds a run, which this one would replace"):
            create(**settings)
    for resume in ("auto", "outputs/ssd/a", "outputs/ssd/a/checkpoints/last.ckpt"):
        assert create(resume=resume) == Path("outputs/ssd/a")


@pytest.mark.parametrize(("place", "said"), [("file", "file: File exists"), ("file/run", "file/run: Not a directory")])
def test_a_directory_that_cannot_be_created_is_named(place: str, said: str) -> None:
    Path("file").touch()
    with pytest.raises(ConfigurationError, match=f"the run directory {place} cannot be created: {said}"):
        create_run_dir(OmegaConf.create({"hydra": {"run": {"dir": place}}}))


@pytest.mark.parametrize("unreadable", ["", "{", "a: 1"])
def test_runs_whose_overrides_cannot_be_read_are_passed_over(unreadable: str) -> None:
    run = begin("a", "seed=1")
    (run / ".hydra" / "overrides.yaml").write_text(unreadable)
    assert newest_unfinished(Path("outputs/ssd"), ["seed=1"]) is None
    assert newest_unfinished(Path("nowhere"), []) is None


def test_a_job_that_slurm_starts_again_has_the_same_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    job, array = {"SLURM_JOB_ID": "17", "SLURM_STEP_ID": "0"}, {"SLURM_ARRAY_JOB_ID": "5", "SLURM_ARRAY_TASK_ID": "3"}
    assert started_at(job) == "slurm_17_0"
    assert started_at(job | array) == "slurm_5_3_0"
    assert started_at({"SLURM_JOB_ID": "17"}).startswith("20")  # a shell on a node: every run has its own
    assert not is_restarted()
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    assert is_restarted()


only_linux = pytest.mark.skipif(not Path("/proc/self/stat").is_file(), reason="only Linux tells when a process began")


@only_linux
def test_processes_of_one_torchrun_have_the_time_at_which_it_was_started(monkeypatch: pytest.MonkeyPatch) -> None:
    before = time.time()
    torchrun = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        monkeypatch.setattr(os, "getppid", lambda: torchrun.pid)
        seconds = [time.strftime("%Y-%m-%d_%H-%M-%S", time.localtime(before + late)) for late in range(-2, 4)]
        monkeypatch.setattr(time, "time", lambda: 0.0)
        assert started_at({"TORCHELASTIC_RUN_ID": "none"}) in seconds
    finally:
        torchrun.communicate(b"\n")


PROGRAM = """
import time
time.sleep(0.5)
from ssd_lightning.run_dirs import command_start
now = time.monotonic()
print(now - command_start("program"), now - command_start("another", "program.py"))
"""


@only_linux
def test_a_command_begins_with_its_process_where_that_runs_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(PROGRAM)
    for arguments, begun in ((["-m", "program"], (True, False)), (["program.py"], (False, True))):
        paths = os.pathsep.join(filter(None, [str(tmp_path), *sys.path]))
        environment = {**os.environ, "PYTHONPATH": paths}
        run = subprocess.run(
            [sys.executable, *arguments], capture_output=True, text=True, check=True, env=environment, cwd=tmp_path
        )
        assert tuple(float(seconds) > 0.4 for seconds in run.stdout.split()) == begun
