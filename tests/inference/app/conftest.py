"""A small detector that finds many boxes in any image, images for it, and a server on this machine."""

import io
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import pytest
import torch
import uvicorn
from PIL import Image
from starlette.testclient import TestClient

from helpers.tiny_nets import tiny_net
from ssd_lightning.inference.app.app import Application
from ssd_lightning.inference.app.examples import Example, draw_toy_examples
from ssd_lightning.inference.detector import Detector
from ssd_lightning.models.postprocess import PostProcess

CLASS_NAMES = ("disk", "ring, large", "star")


@pytest.fixture(scope="session")
def detector() -> Detector:
    net = tiny_net(num_classes=len(CLASS_NAMES), image_size=(48, 64))
    with torch.no_grad():  # scores of all sizes, boxes beside their priors and over the image's edge
        for name, weight in net.head.named_parameters():
            weight.mul_(0.0 if name.endswith("bias") else 150.0)
    return Detector(net, class_names=CLASS_NAMES, postprocess=PostProcess(max_detections=150))


@pytest.fixture(scope="session")
def image() -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (6, 8, 3), np.uint8).repeat(20, axis=0).repeat(20, axis=1)


@pytest.fixture(scope="session")
def png(image: np.ndarray) -> bytes:
    return encoded(image, "PNG")


def encoded(image: np.ndarray, image_format: str, **settings: object) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image).save(file, format=image_format, **settings)
    return file.getvalue()


@pytest.fixture(scope="session")
def examples() -> list[Example]:
    return draw_toy_examples()[:3]


@pytest.fixture
def application(detector: Detector, examples: list[Example]) -> Application:
    return Application(detector, name="a model", examples=examples, score_threshold=0.3)


@pytest.fixture
def client(application: Application) -> Iterator[TestClient]:
    with TestClient(application.build(), base_url="http://127.0.0.1:8000") as client:
        yield client


Serve = Callable[[Application], str]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Serve an application until the test ends; gives its address."""
    running = []

    def start(application: Application) -> str:
        server = served(application)
        running.append(server)
        return server.__enter__()

    yield start
    for server in running:
        server.__exit__(None, None, None)


@contextmanager
def served(application: Application) -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        settings = uvicorn.Config(application.build(), log_level="error", lifespan="off", timeout_graceful_shutdown=2)
        server = uvicorn.Server(settings)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        while not server.started:
            time.sleep(0.01)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        server.should_exit = True
        thread.join(20)
        assert not thread.is_alive()
