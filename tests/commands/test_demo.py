"""The command that serves the page: what it refuses, where it listens, and how it ends."""

import json
import os
import re
import runpy
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gradio as gr
import httpx
import pytest
import torch
from omegaconf import OmegaConf
from PIL import Image

from helpers.commands import output_of, refused
from helpers.exported_networks import TINY_FILES
from helpers.tiny_nets import tiny_net
from ssd_lightning.commands import demo
from ssd_lightning.config import compose_config
from ssd_lightning.errors import ConfigurationError, UserError
from ssd_lightning.inference import app, app_server
from ssd_lightning.inference.detector import Detector


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("run") / "best.ckpt"
    Detector(tiny_net(num_classes=2, image_size=(32, 32)), class_names=("cat", "dog")).save(path)
    return path


def test_what_cannot_be_served_is_reported_in_a_sentence(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    foreign = tmp_path / "foreign.pth"
    torch.save({"model": {"weight": torch.zeros(3)}}, foreign)
    assert "checkpoint is required" in refused(capsys, tmp_path, "demo", "port=0")
    assert "does not describe a detector" in refused(capsys, tmp_path, "demo", f"checkpoint={foreign}", "port=0")
    config = compose_config("demo", [f"checkpoint={checkpoint}", "port=0"])
    for settings, answer in (
        ({"checkpoint": "none.ckpt"}, r"none\.ckpt"),
        ({"examples": str(tmp_path / "none")}, "no image"),
        ({"score_threshold": 2}, "score_threshold is 2"),
    ):
        with pytest.raises(UserError, match=answer):
            demo.demo(OmegaConf.merge(config, settings))


def test_a_space_shows_the_same_detector_and_its_examples(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shots, space = tmp_path / "shots", tmp_path / "space"
    shots.mkdir()
    for name in ("one.png", "again/one.png"):
        (shots / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (40, 30)).save(shots / name)
    given = (f"checkpoint={checkpoint}", f"examples={shots}", f"space={space}")
    monkeypatch.setattr(demo, "__version__", "1.2.4.dev1+g0123456")
    assert f"{space / 'requirements.txt'} names 1.2.4.dev1+g0123456" in output_of(tmp_path, "demo", *given)
    launched: list[gr.Blocks] = []
    monkeypatch.setattr(gr.Blocks, "launch", lambda page: launched.append(page))
    runpy.run_path(str(space / "app.py"))
    text = json.dumps(launched[0].get_config_file(), default=str)
    assert all(shown in text for shown in ("2 classes", "one.png", "one_2.png"))
    assert (space / "README.md").read_text().startswith("---\ntitle:")
    assert re.fullmatch(r"ssd-lightning\[demo\]==\S+\n", (space / "requirements.txt").read_text())
    assert str(space) in refused(capsys, tmp_path, "demo", *given)  # nothing is replaced
    exported = f"checkpoint={TINY_FILES / 'tiny.tflite'}"
    assert "exported network" in refused(capsys, tmp_path, "demo", exported, f"examples={shots}", "space=other")
    assert not (tmp_path / "other").exists()


def test_a_missing_package_is_named(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(demo, "find_spec", lambda name: None)
    said = "the demo needs gradio: pip install 'ssd-lightning[demo]'"
    assert said in refused(capsys, tmp_path, "demo", f"checkpoint={checkpoint}")


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
def test_only_this_machine_is_let_in_unless_a_host_is_given(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, host: str
) -> None:
    calls: list[dict[str, Any]] = []

    @contextmanager
    def served(page: object, **settings: Any) -> Iterator[str]:
        calls.append(settings)
        yield f"http://{settings['host']}:{settings['port']}/"

    monkeypatch.setattr(app, "build_page", lambda detector, **settings: calls.append(settings))
    monkeypatch.setattr(app_server, "served", served)
    monkeypatch.setattr(demo, "threading", SimpleNamespace(Event=lambda: SimpleNamespace(wait=lambda: None)))
    monkeypatch.setattr(demo.webbrowser, "open", lambda url: pytest.fail("it was opened"))
    given = [] if host == "127.0.0.1" else [f"host={host}"]
    printed = output_of(tmp_path, "demo", f"checkpoint={checkpoint}", "port=0", *given)
    page, settings = calls
    assert page == {"name": f"{checkpoint.parent.name}/best.ckpt", "examples": [], "score_threshold": 0.4}
    assert (settings["host"], settings["port"] > 0, settings["max_bytes"]) == (host, True, 20_000_000)
    assert bool(settings["hosts"]) == (not given)
    assert ("everybody who can reach this machine" in printed) == bool(given)


@pytest.mark.parametrize(
    ("checkpoint", "name"),
    [
        ("/a/outputs/demo", "demo"),
        ("/a/outputs/demo/checkpoints/best.ckpt", "demo/best.ckpt"),
        ("model.onnx", "model.onnx"),
        ("/model.onnx", "model.onnx"),
        ("/a/b/model.onnx", "b/model.onnx"),
    ],
)
def test_a_models_name_has_no_folders_of_the_machine(checkpoint: str, name: str) -> None:
    assert demo.model_name(Path(checkpoint)) == name


@pytest.mark.parametrize(
    ("host", "port", "answer"),
    [
        ("127.0.0.1", 70000, "port is 70000"),
        ("127.0.0.1", "web", "port is 'web'"),
        ("192.0.2.1", 0, "host=192.0.2.1"),  # an address of no machine (RFC 5737)
    ],
)
def test_an_address_that_cannot_be_taken(host: str, port: int, answer: str) -> None:
    with pytest.raises(ConfigurationError, match=answer):
        demo.find_address(host, port)


def test_hosts_have_to_be_known_and_ports_free(monkeypatch: pytest.MonkeyPatch) -> None:
    assert demo.find_address("localhost", 0)[0] in ("127.0.0.1", "::1")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigurationError, match=f"port={port} .*port=0 takes a free one"):
            demo.find_address("127.0.0.1", port)

    def fail(*arguments: object, **settings: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", fail)
    with pytest.raises(ConfigurationError, match=r"host=box: .* \(Name or service not known\)"):
        demo.find_address("box", 0)


@pytest.mark.slow
def test_the_command_serves_until_it_is_interrupted(checkpoint: Path, tmp_path: Path) -> None:
    """Ctrl-C is its usual end: exit code 0, nothing left behind, also while an upload is under way."""
    folder, scratch = tmp_path / "here", tmp_path / "scratch"
    folder.mkdir()
    scratch.mkdir()
    process = subprocess.Popen(
        [sys.executable, "-m", "ssd_lightning.demo", f"checkpoint={checkpoint}", "port=0"],
        cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
        env={**os.environ, "TMPDIR": str(scratch), "HTTP_PROXY": "http://127.0.0.1:9"},
    )  # fmt: skip
    try:
        url = re.search(r"http://127\.0\.0\.1:(\d+)", process.stdout.readline())
        assert url is not None, process.stderr.read()
        answer = httpx.post(f"{url[0]}/gradio_api/upload", files={"files": ("a.png", b"none")}, timeout=30)
        assert Path(answer.json()[0]).is_relative_to(scratch)
        with socket.create_connection(("127.0.0.1", int(url[1])), timeout=5) as connection:
            connection.sendall(
                b"POST /gradio_api/upload HTTP/1.1\r\nHost: localhost\r\nContent-Length: 500\r\n\r\nhalf"
            )
            process.send_signal(signal.SIGINT)
            output, errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors
        assert output.splitlines() == ["the demo has ended"]
        with pytest.raises(ProcessLookupError):
            os.killpg(process.pid, 0)  # no process of the group is left
        assert [*folder.iterdir(), *scratch.glob("ssd-demo-*")] == []
    finally:
        process.kill()
