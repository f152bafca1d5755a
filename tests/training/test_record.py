"""What a run directory says about the code, the packages and the data that made it."""

import logging
import subprocess
import sys
from pathlib import Path

import pytest

from ssd_lightning.training import record as record_module
from ssd_lightning.training.record import (
    git_state,
    installed_packages,
    log_changed_data,
    read_record,
    run_record,
    write_surroundings,
)


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository that the package seems to run from."""
    package = tmp_path / "repo" / "package"
    module = package / "training" / "record.py"
    module.parent.mkdir(parents=True)
    module.write_text("first\n\n")
    for overrides in (["init", "-q"], ["add", "."], ["-c", "user.name=n", "-c", "user.email=e", "commit", "-qm", "m"]):
        subprocess.run(["git", "-C", str(package.parent), *overrides], check=True)
    monkeypatch.setattr(record_module, "__file__", str(module))
    return package


def test_a_clean_checkout_has_no_diff(checkout: Path, tmp_path: Path) -> None:
    (tmp_path / "git.diff").write_text("of an earlier run\n")
    write_surroundings(tmp_path)
    assert not (tmp_path / "git.diff").exists()
    state = git_state()
    assert len(state["git_commit"]) == 40
    assert state["git_dirty"] is False
    assert state["git_untracked"] == []


def test_the_diff_gives_the_code_back(checkout: Path, tmp_path: Path) -> None:
    module = checkout / "training" / "record.py"
    content = b"first \n  second \xff\n \n"  # blanks at the ends, and no UTF-8
    module.write_bytes(content)
    (checkout / "new one.py").write_text("new\n")
    (checkout.parent / "notes.txt").write_text("not of the package\n")
    write_surroundings(tmp_path)
    state = git_state()
    assert state["git_dirty"] is True
    assert state["git_untracked"] == ["new one.py"]
    subprocess.run(["git", "-C", str(checkout.parent), "checkout", "-q", "package/training"], check=True)
    assert module.read_text() == "first\n\n"
    subprocess.run(["git", "-C", str(checkout.parent), "apply", str(tmp_path / "git.diff")], check=True)
    assert module.read_bytes() == content


def test_a_large_diff_is_cut_off_with_a_note(checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(record_module, "LARGEST_DIFF", 1000)
    (checkout / "training" / "record.py").write_text("long\n" * 1000)
    write_surroundings(tmp_path)
    text = (tmp_path / "git.diff").read_text()
    assert len(text) < 1100
    assert text.splitlines()[-1].startswith("# cut off: the whole has ")


def test_no_checkout_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(record_module, "__file__", str(tmp_path / "site" / "package" / "training" / "record.py"))
    (tmp_path / "site/package/training").mkdir(parents=True)
    write_surroundings(tmp_path)
    assert not (tmp_path / "git.diff").exists()
    assert set(git_state().values()) == {None}


def test_every_installed_package_is_listed_once_as_it_is_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder, numpy in (("first", "2.0"), ("second", "1.0")):
        (tmp_path / folder / "numpy.dist-info").mkdir(parents=True)
        (tmp_path / folder / "numpy.dist-info/METADATA").write_text(f"Name: numpy\nVersion: {numpy}\n")
    monkeypatch.setattr("sys.path", [str(tmp_path / "first"), str(tmp_path / "second"), *sys.path])
    assert installed_packages.__wrapped__()["numpy"] == "2.0"
    write_surroundings(tmp_path)
    lines = (tmp_path / "requirements.txt").read_text().splitlines()
    assert len(lines) == len(set(lines)) > 20
    assert all(line.count("==") == 1 for line in lines)
    assert any(line.startswith("torch==") for line in lines)


def test_a_record_that_is_missing_or_broken_is_empty(tmp_path: Path) -> None:
    assert read_record(tmp_path) == {}
    (tmp_path / "run.json").write_text("{")
    assert read_record(tmp_path) == {}


def test_changed_data_are_reported_with_what_differs(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    now = {"train": {"images": 5, "boxes": "a"}, "val": {"images": 2, "boxes": "b"}}
    with caplog.at_level(logging.WARNING):
        for same in ({}, {"data": None}, {"data": {"train": None}}, {"data": now}, {"data": {"test": {"images": 1}}}):
            log_changed_data(same, now, run=tmp_path)
        assert caplog.messages == []
        log_changed_data({"data": {**now, "train": {"images": 4, "boxes": "z"}}}, now, run=tmp_path)
    (message,) = caplog.messages
    assert message.startswith(f"the train images differ from those of {tmp_path}: ")
    assert "the number of images (4, now 5)" in message
    assert "boxes, labels" in message


def test_the_version_of_a_package_is_found_in_any_spelling_of_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "hydra_core-9.0.dist-info").mkdir()
    (tmp_path / "hydra_core-9.0.dist-info/METADATA").write_text("Name: Hydra_Core\nVersion: 9.0\n")
    monkeypatch.setattr("sys.path", [str(tmp_path), *sys.path])
    assert run_record(0)["versions"]["hydra-core"] == "9.0"
