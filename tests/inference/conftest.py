"""A web server of this process, a video, and an exported file."""

import os
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock

from helpers.exported_networks import exported, tiny_detector
from helpers.prediction_media import Answer, Web, serving, write_video


@pytest.fixture
def web() -> Iterator[Web]:
    """Address of a server, and what answers each of its paths; others are a 404."""
    answers: dict[str, Answer] = {}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answer = answers.get(self.path.partition("?")[0])
            if answer is None:
                self.send_error(404)
            else:
                answer(self)

        def log_message(self, *arguments: object) -> None:
            pass

    with serving(Handler) as url:
        yield url, answers


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    """12 frames of 64 x 48 pixels, 5 a second, each 20 brighter than the one before."""
    return write_video(tmp_path / "clip.mp4", [np.full((48, 64, 3), 20 * index, np.uint8) for index in range(12)])


@pytest.fixture(scope="session")
def faithful(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The ONNX file of `tiny_detector()`. It takes ten seconds, so one process of pytest-xdist writes it for all."""
    folder = tmp_path_factory.getbasetemp()
    folder = folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder
    with FileLock(folder / "detector.lock"):
        path = folder / "detector.onnx"
        return path if path.exists() else exported(tiny_detector(), folder, ".onnx")


@pytest.fixture(scope="session")
def scripted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The TorchScript file of `tiny_detector()`."""
    return exported(tiny_detector(), tmp_path_factory.mktemp("scripted"), ".torchscript")
