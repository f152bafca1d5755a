"""The command that serves the page: what it refuses, where it listens, and how it ends."""

import ipaddress
import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import httpx
import numpy as np
import pytest
import torch
import uvicorn
from hydra.core.global_hydra import GlobalHydra
from PIL import Image

from helpers.tiny_nets import tiny_net
from ssd_lightning import demo
from ssd_lightning.errors import ConfigurationError
from ssd_lightning.inference.detector import Detector


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("run") / "best.ckpt"
    Detector(tiny_net(num_classes=2, image_size=(32, 32)), class_names=("cat", "dog")).save(path)
    return path


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    monkeypatch.setattr(sys, "argv", ["demo", *arguments])
    GlobalHydra.instance().clear()
    demo.main()


def refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    with pytest.raises(SystemExit) as end:
        run(monkeypatch, *arguments)
    message = capsys.readouterr().err.strip()
    assert end.value.code == 2
    assert message.startswith("error: ")
    assert "\n" not in message
    return message


def test_what_cannot_be_served_is_reported_in_a_sentence(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    foreign = tmp_path / "foreign.pth"
    torch.save({"model": {"weight": torch.zeros(3)}}, foreign)
    good = f"checkpoint={checkpoint}"
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        cases = {
            ("port=0",): "checkpoint is required",
            ("checkpoint=none.ckpt", "port=0"): "none.ckpt",
            (f"checkpoint={foreign}", "port=0"): "does not describe a detector",
            (good, f"port={port}"): "port=0 takes a free one",
            (good, "port=web"): "port is 'web'",
            (good, "port=0", f"examples={tmp_path / 'none'}"): "no image",
            (good, "port=0", "score_threshold=2"): "score_threshold is 2",
        }
        for arguments, overrides in cases.items():
            assert overrides in refused(monkeypatch, capsys, *arguments), arguments


def test_a_missing_package_is_named(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(demo, "find_spec", lambda name: None if name == "uvicorn" else object())
    message = refused(monkeypatch, capsys, f"checkpoint={checkpoint}")
    assert "(uvicorn)" in message
    assert "pip install 'ssd-lightning[demo]'" in message


class Served:
    """Stands for the server: keeps what it would have served, and where."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.addresses: list[tuple[str, int]] = []
        monkeypatch.setattr(uvicorn.Server, "run", self._run)

    def _run(self, sockets: list[socket.socket]) -> None:
        self.addresses += [listener.getsockname()[:2] for listener in sockets]
        raise KeyboardInterrupt


def test_it_listens_to_this_machine_alone(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    served = Served(monkeypatch)
    run(monkeypatch, f"checkpoint={checkpoint}", "port=0")
    [(host, port)] = served.addresses
    printed = capsys.readouterr()
    assert host == "127.0.0.1"
    assert f"http://127.0.0.1:{port} " in printed.out
    assert "everybody" not in printed.out + printed.err
    run(monkeypatch, f"checkpoint={checkpoint}", "port=0")
    assert served.addresses[1][1] != 0


def test_the_whole_network_is_let_in_with_a_warning(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    served = Served(monkeypatch)
    run(monkeypatch, f"checkpoint={checkpoint}", "port=0", "host=0.0.0.0")
    [(host, port)] = served.addresses
    printed = capsys.readouterr()
    assert host == "0.0.0.0"
    assert (printed.out + printed.err).count("everybody who can reach this machine") == 1
    assert f"http://localhost:{port} " in printed.out


def test_the_browser_is_opened_only_when_asked(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    served, opened = Served(monkeypatch), []
    monkeypatch.setattr(demo.webbrowser, "open", opened.append)
    run(monkeypatch, f"checkpoint={checkpoint}", "port=0")
    assert opened == []
    run(monkeypatch, f"checkpoint={checkpoint}", "port=0", "open_browser=true")
    assert opened == [f"http://127.0.0.1:{served.addresses[1][1]}"]


@pytest.mark.parametrize(
    ("address", "url"),
    [("127.0.0.1", "http://127.0.0.1:80"), ("::1", "http://[::1]:80"), ("::", "http://localhost:80")],
)
def test_an_address_for_browsers(address: str, url: str) -> None:
    assert demo.address_in_browser(ipaddress.ip_address(address), 80) == url


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
    ("host", "port", "overrides"),
    [
        ("127.0.0.1", 70000, "port is 70000"),
        ("127.0.0.1", -1, "port is -1"),
        ("127.0.0.1", True, "port is True"),
        ("192.0.2.1", 0, "host=192.0.2.1"),  # an address of no machine (RFC 5737)
    ],
)
def test_an_address_that_cannot_be_taken(host: str, port: int, overrides: str) -> None:
    with pytest.raises(ConfigurationError, match=overrides):
        demo.open_socket(host, port)


def test_a_host_that_nobody_knows(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: object, **settings: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", fail)
    with pytest.raises(ConfigurationError, match=r"host=box: .* \(Name or service not known\)"):
        demo.open_socket("box", 0)


@pytest.mark.slow
@pytest.mark.parametrize("is_busy", [False, True])
def test_the_command_serves_until_it_is_interrupted(checkpoint: Path, tmp_path: Path, is_busy: bool) -> None:
    """Ctrl-C is its usual end: exit code 0, nothing left behind, also while an upload is under way."""
    command = [sys.executable, "-m", "ssd_lightning.demo", f"checkpoint={checkpoint}", "port=0"]
    process = subprocess.Popen(
        command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        line = process.stdout.readline()
        url = re.search(r"http://127\.0\.0\.1:(\d+)", line)
        assert url is not None, process.stderr.read()
        Image.fromarray(np.zeros((40, 50, 3), np.uint8)).save(tmp_path / "black.png")
        answer = httpx.post(f"{url[0]}/api/detect", content=(tmp_path / "black.png").read_bytes(), timeout=30)
        assert answer.json()["width"] == 50
        with socket.create_connection(("127.0.0.1", int(url[1])), timeout=5) as connection:
            if is_busy:
                connection.sendall(b"POST /api/detect HTTP/1.1\r\nHost: localhost\r\nContent-Length: 500\r\n\r\nhalf")
            process.send_signal(signal.SIGINT)
            output, errors = process.communicate(timeout=30)
        assert process.returncode == 0
        assert len(errors.splitlines()) == is_busy, errors  # that it waits no longer for the upload
        assert output.splitlines() == ["the demo has ended"]
        with pytest.raises(ProcessLookupError):
            os.killpg(process.pid, 0)  # no process of the group is left
        assert sorted(path.name for path in tmp_path.iterdir()) == ["black.png"]
    finally:
        if process.poll() is None:
            process.kill()
            process.communicate()
