"""The demo page: what it finds, what it refuses, and how it behaves in a browser."""

import base64
import io
import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import numpy as np
import pytest
import torch
from gradio_client import Client, handle_file
from PIL import Image
from torch import Tensor

from helpers.exported_networks import exported
from helpers.hostile_files import png
from helpers.tiny_nets import tiny_net
from ssd_lightning.commands.demo import find_address
from ssd_lightning.data.resize import Letterbox
from ssd_lightning.inference import app
from ssd_lightning.inference.app import build_page, detections_of, fixed_overlap, look_at
from ssd_lightning.inference.app_server import served
from ssd_lightning.inference.detector import Detector
from ssd_lightning.models.postprocess import PostProcess

if TYPE_CHECKING:
    from playwright.sync_api import Page

CLASS_NAMES = ("disk", "ring, large", "star")
MAX_BYTES = 200_000


@pytest.fixture(scope="module")
def detector() -> Detector:
    net = tiny_net(num_classes=len(CLASS_NAMES), image_size=(48, 64))
    with torch.no_grad():  # scores of all sizes, boxes beside their priors and over the image's edge
        for name, weight in net.head.named_parameters():
            weight.mul_(0.0 if name.endswith("bias") else 150.0)
    return Detector(net, class_names=CLASS_NAMES, postprocess=PostProcess(max_detections=150))


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (6, 8, 3), np.uint8).repeat(20, axis=0).repeat(20, axis=1)


def encoded(image: np.ndarray, image_format: str, **settings: object) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image).save(file, format=image_format, **settings)
    return file.getvalue()


@pytest.fixture(scope="module")
def example(image: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("examples") / "grid.png"
    path.write_bytes(encoded(image, "PNG"))
    return path


@pytest.fixture(scope="module")
def url(detector: Detector, example: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADIO_TEMP_DIR", str(tmp_path_factory.mktemp("uploads")))
        host, port = find_address("127.0.0.1", 0)
        page = build_page(detector, name="a model", examples=[example], score_threshold=0.3)
        with served(page, host=host, port=port, max_bytes=MAX_BYTES, hosts=("127.0.0.1", "localhost", "::1")) as url:
            yield url.rstrip("/")


def upload(url: str, data: bytes, name: str = "a.png") -> httpx.Response:
    return httpx.post(f"{url}/gradio_api/upload", files={"files": (name, data)}, timeout=30)


def call(url: str, *data: Any) -> tuple[str, Any]:
    """Call the endpoint; gives `complete` or `error`, and the answer."""
    begun = httpx.post(f"{url}/gradio_api/call/detect", json={"data": data}, timeout=30)
    told = httpx.get(f"{url}/gradio_api/call/detect/{begun.json()['event_id']}", timeout=30)
    event, answer = told.text.strip().split("\n")
    return event.removeprefix("event: "), json.loads(answer.removeprefix("data: "))


def as_file(**where: str) -> dict[str, Any]:
    return {**where, "meta": {"_type": "gradio.FileData"}}


def detect(url: str, data: bytes, *settings: Any) -> tuple[str, Any]:
    return call(url, as_file(path=upload(url, data).json()[0]), *(settings or (0.3, 0.45, [])))


@pytest.mark.parametrize(
    ("settings", "iou_threshold", "inside"),
    [
        ({"class_agnostic": True, "score_threshold": 0.2}, 0.1, None),
        ({}, 0.8, None),
        ({"soft_nms": "linear"}, 0.1, None),
        ({}, 0.1, {"nms": False}),
        ({}, 0.1, {"nms": True}),
    ],
)
def test_one_look_gives_what_the_detector_finds_at_any_setting(
    detector: Detector, image: np.ndarray, settings: dict, iou_threshold: float, inside: dict | None, tmp_path: Path
) -> None:
    """Of a network, and of an exported file with NMS inside or not."""
    postprocess = replace(detector.postprocess, **settings)
    looking = Detector(detector.net, class_names=CLASS_NAMES, postprocess=postprocess, resize=Letterbox())
    if inside:
        looking = Detector.load(exported(looking, tmp_path, ".torchscript", **inside))
    found = detections_of(
        look_at(looking, image), looking, score_threshold=0.25, iou_threshold=iou_threshold, classes=["disk", "star"]
    )
    is_fixed = inside == {"nms": True}
    assert (fixed_overlap(looking) is not None) == is_fixed
    if not is_fixed:
        looking.use_postprocess(iou_threshold=iou_threshold)
    wanted = looking(image).select(0.25, ["disk", "star"])
    assert len(wanted) > 0
    assert found.as_record() == wanted.as_record()


def test_the_endpoint_answers_as_predict_does(url: str, detector: Detector, image: np.ndarray) -> None:
    event, [record] = detect(url, encoded(image, "PNG"), 0.5, 0.45, [])
    assert event == "complete"
    assert record.pop("network_ms") > 0
    wanted = detector(image).select(0.5).as_record()
    assert len(wanted["detections"]) > 3
    assert record == wanted
    exif = Image.Exif()
    exif[0x0112] = 6
    _, [record] = detect(url, encoded(image, "JPEG", exif=exif))
    assert (record["width"], record["height"]) == (120, 160)  # upright
    assert call(url, FRAME, 0.3, 0.45, [])[0] == "complete"  # of a webcam


def test_a_client_of_gradio_is_answered(url: str, detector: Detector, image: np.ndarray, example: Path) -> None:
    client = Client(url, verbose=False, analytics_enabled=False)
    record = client.predict(image=handle_file(example), classes=["ring, large"], api_name="/detect")
    assert record["detections"] == detector(image).select(0.3, ["ring, large"]).as_record()["detections"]


PNG = encoded(np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8), "PNG")
FRAME = as_file(url=f"data:image/png;base64,{base64.b64encode(PNG).decode()}")
REFUSED: dict[str, tuple[Any, ...]] = {
    "text": (b"hello", "not an image in a known format"),
    "SVG": (b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>', "HTML or XML page"),
    "truncated": (PNG[: len(PNG) // 2], "cannot read"),
    "no pixels": (png(0, 0, b""), ""),
    "many pixels": (png(8001, 8000, bytes(100_000), is_rgb=True), "8001 x 8000 pixels; at most 64 million"),
    "decompression bomb": (png(60_000, 60_000, bytes(100_000), is_rgb=True), "decompression bomb"),
    "a frame that is not an image": (as_file(url="data:image/png;base64,AAAA"), "not an image in a known format"),
    "a frame that is not base64": (as_file(url="data:image/png;base64,!"), "not base64"),
    "a file of this machine": (as_file(path=str(Path(__file__).resolve())), None),
    "an address": (as_file(path="http://127.0.0.1:1/a.png"), "fetches no addresses"),
    "nothing": (None, "image is missing"),
    "a number": (3, None),
    "a threshold of text": (FRAME, "score_threshold is 'much'", "much", 0.45, []),
    "a negative threshold": (FRAME, "iou_threshold is -1", 0.3, -1, []),
    "an unknown class": (FRAME, "the nearest is 'star'", 0.3, 0.45, ["sta"]),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_refused(url: str, kind: str) -> None:
    """Without a message, visitors learn only that the request failed."""
    given, message, *settings = REFUSED[kind]
    path = upload(url, given).json()[0] if isinstance(given, bytes) else None
    event, answer = call(url, as_file(path=path) if path else given, *(settings or (0.3, 0.45, [])))
    assert event == "error"
    assert (answer["error"] is None) if message is None else (message in answer["error"])
    assert path is None or path not in answer["error"]


def test_an_upload_has_a_limit(url: str) -> None:
    assert upload(url, PNG + bytes(MAX_BYTES - len(PNG))).status_code == 200
    assert upload(url, PNG + bytes(MAX_BYTES - len(PNG) + 1)).status_code == 413
    assert "0.2 MB" in upload(url, bytes(2 * MAX_BYTES)).json()["error"]
    long = httpx.post(f"{url}/gradio_api/call/detect", json={"data": ["x" * 2 * MAX_BYTES]})
    endless = httpx.post(f"{url}/gradio_api/upload", content=iter([PNG]))
    assert [long.status_code, endless.status_code] == [413, 411]


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"host": "localhost:1"}, 200),
        ({"host": "[::1]:8000"}, 200),
        ({"host": "evil.example"}, 421),
        ({"host": "127.0.0.1.evil.example:8000"}, 421),
        ({"host": "127.0.0.1:1", "origin": "http://127.0.0.1:1"}, 200),
        ({"origin": "http://evil.example"}, 403),
        ({"origin": "null"}, 403),
    ],
)
def test_only_pages_of_this_machine(url: str, headers: dict[str, str], status: int) -> None:
    """A name of the internet that points to 127.0.0.1 would let its pages read what this server says."""
    assert httpx.get(f"{url}/config", headers=headers).status_code == status


def test_one_image_at_a_time_and_failures_without_details(
    url: str, detector: Detector, monkeypatch: pytest.MonkeyPatch
) -> None:
    inside, most = [0], []
    guard = threading.Lock()

    def fail(images: Tensor) -> None:
        with guard:
            inside[0] += 1
            most.append(inside[0])
        time.sleep(0.1)
        inside[0] -= 1
        raise RuntimeError("secret")

    monkeypatch.setattr(detector.net, "forward", fail)
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: call(url, FRAME, 0.3, 0.45, []), range(4)))
    assert answers == [("error", {"error": None})] * 4
    assert most == [1] * 4


def rows(page: "Page", count: int) -> list[str]:
    """Wait for this number of detections; gives the classes in the table, which shows as many rows as fit."""
    page.get_by_text(f"{count} detection").wait_for()
    cells = page.locator("[role=gridcell][aria-colindex='1']")
    cells.first.wait_for()
    return [text.strip() for text in cells.all_inner_texts()]


def test_broken_files_are_reported_sliders_redraw_without_the_network_and_a_webcam_is_seen(
    page: "Page", url: str, detector: Detector, image: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[int] = []
    monkeypatch.setattr(app, "look_at", lambda *arguments: looks.append(1) or look_at(*arguments))
    page.set_viewport_size({"width": 390, "height": 860})
    page.goto(url)
    page.get_by_role("heading", name="Detector demo").wait_for()
    (tmp_path / "broken.png").write_bytes(PNG[: len(PNG) // 2])
    page.locator("input[type=file]").first.set_input_files(tmp_path / "broken.png")
    page.get_by_text("cannot read the image").wait_for()
    page.get_by_label("Remove Image").click()
    page.locator(".gallery-item").click()  # the example
    many, few = detector(image).select(0.3), detector(image).select(0.6)
    assert 0 < len(few) < len(many)
    rows(page, len(many))
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    page.get_by_label("number input for Score at least").fill("0.6")
    page.get_by_label("number input for Score at least").press("Enter")
    classes = rows(page, len(few))
    assert len(classes) > 5
    assert classes == few.names[: len(classes)]
    assert len(looks) == 1
    page.set_viewport_size({"width": 1280, "height": 860})
    page.get_by_role("tab", name="Webcam").click()
    page.get_by_text("Click to Access Webcam").last.click()
    page.get_by_label("capture photo").last.click()
    page.get_by_text("640 × 480 px").first.wait_for()
