"""From sources to batches: what is read and fetched, in which order, and how much of it is held."""

import json
import re
import time
import weakref
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from helpers.hostile_files import png
from helpers.prediction_media import Answer, Web, sends
from ssd_lightning.commands import predict
from ssd_lightning.config import compose_config
from ssd_lightning.errors import DataError
from ssd_lightning.inference.detector import Detector
from ssd_lightning.inference.frames import SourceImage, SourceReader, fetch
from ssd_lightning.inference.progress import Bar
from ssd_lightning.inference.results import ImageDetections
from ssd_lightning.inference.sources import Source, find_sources


def read(sources: list[Source], **settings: int) -> tuple[list[SourceImage], list[str]]:
    bad: list[str] = []
    source_images = list(SourceReader(**settings).read(sources, on_bad=lambda error: bad.append(str(error))))
    return source_images, bad


def test_all_kinds_one_after_the_other(web: Web, clip: Path, tmp_path: Path) -> None:
    url, answers = web
    (tmp_path / "a.png").write_bytes(content := png(40, 30, bytes([0, *[77] * 40] * 30)))
    answers |= {
        "/a.png": sends(content, "image/png"),
        "/image": sends(content),
        "/film": sends(clip.read_bytes(), "video/mp4"),
        "/film.mp4": sends(clip.read_bytes()),
    }
    (tmp_path / "bad.jpg").write_text("<html>404</html>")
    names = [f"{tmp_path}/bad.jpg", f"{tmp_path}/a.png", *(f"{url}{path}" for path in answers), str(clip), "87"]
    found, bad = read(find_sources(names), frame_stride=6)
    assert [(str(one.source).rpartition("/")[2], one.frame, one.fps) for one in found] == [
        ("a.png", None, None), ("a.png", None, None), ("image", None, None),
        *((name, frame, 5 / 6) for name in ("film", "film.mp4", "clip.mp4") for frame in (0, 6)),
    ]  # fmt: skip
    assert [one.time_s for one in found] == [None] * 3 + [0, pytest.approx(1.2)] * 3
    assert all((one.image == 77).all() for one in found[:3])
    assert [one.path is None for one in found] == [False, *[True] * 8]
    assert [sentence.partition(":")[0].rpartition("/")[2] for sentence in bad] == [
        "bad.jpg", "there is no camera 87, or it is in use or this account has no permission to use it",
    ]  # fmt: skip


def test_what_comes_from_the_web_is_named_by_its_address_and_not_kept(
    web: Web, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, answers = web
    content = png(40, 30, bytes(41 * 30))
    answers |= {
        "/page.jpg": sends(b"<html>hello</html>", "image/jpeg"),
        "/cut.png": sends(content[:40]),
        "/film.mp4": sends(b"no film"),
        "/a/..%2f..%2fetc%2fpasswd": sends(b"x"),
        "/large.png": sends(content + b" "),
        "/a.png": sends(content),
    }
    (place := tmp_path / "temporary").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(place))
    addresses = [f"{url}{path}" for path in ("/gone.jpg", *answers)]
    [one], bad = read(find_sources(addresses), most_bytes=len(content))
    assert str(one.source) == addresses.pop()
    for address, sentence in zip(addresses, bad, strict=True):
        assert sentence.startswith(f"{address}: ")
        assert "ssd_lightning_" not in sentence  # the folder it was kept in
    assert list(place.iterdir()) == []


def test_a_file_comes_as_it_is_over_redirects_within_the_web(web: Web, tmp_path: Path) -> None:
    url, answers = web
    content, path = bytes(range(256)), tmp_path / "a"
    answers |= {"/a": sends(content, "image/png; charset=x"), "/b": sends(b""), "/there": sends(b"", to="/a")}
    assert fetch(f"{url}/b", path, most_bytes=256) == ""
    for place in ("a?size=1", "there"):
        assert fetch(f"{url}/{place}", path, most_bytes=256) == "image/png"
        assert path.read_bytes() == content


def unending(data: bytes, pause_s: float) -> Answer:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.end_headers()
        try:
            while True:
                handler.wfile.write(data)
                time.sleep(pause_s)
        except OSError:
            pass

    return answer


AWAY = ("file:///etc/hostname", "ftp://127.0.0.1/a", "data:,here")
ANSWERS: dict[str, Answer] = {
    **{f"/out{index}": sends(b"", to=target) for index, target in enumerate(AWAY)},
    "/loop": sends(b"", to="/loop"),
    "/endless": unending(b"x" * 4096, 0),
    "/drip": unending(b"x", 0.05),
    "/silence": lambda handler: time.sleep(1),
    "/short": sends(b"x" * 10, length=900),
    "/beyond": sends(b"x" * 1001),
}


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    ("address", "limits", "answer"),
    [
        *((f"/out{index}", {}, re.escape(target)) for index, target in enumerate(AWAY)),
        ("/loop", {}, "redirects"),
        ("/nothing", {}, "404"),
        ("http://127.0.0.1:9/a", {}, "Connection refused"),
        *((odd, {}, "") for odd in ("http://[", "http:///a", "http://127.0.0.1:99999/a", "file:///etc")),
        ("/endless", {}, re.escape("0.001 MB that are allowed (max_download_mb)")),
        ("/drip", {"most_s": 0.3}, r"incomplete after 0 s, with \d+ bytes received"),
        ("/silence", {"silence_s": 0.3}, "timed out"),
        ("/short", {}, "10 bytes read, 890 more expected"),
        ("/beyond", {}, "1,001 bytes or more"),
    ],
    ids=lambda value: value if isinstance(value, str) and value[:1] == "/" else "",
)
def test_what_is_not_fetched(address: str, limits: dict[str, float], answer: str, web: Web, tmp_path: Path) -> None:
    url, answers = web
    answers |= ANSWERS
    address = f"{url}{address}" if address.startswith("/") else address
    with pytest.raises(DataError, match=rf"^{re.escape(address)}: .*{answer}"):
        fetch(address, tmp_path / "file", most_bytes=1000, **{"silence_s": 5.0, **limits})


class FindsOne:
    """Stands in for a detector: one detection in every image, surer in the brighter ones."""

    class_names = ("thing",)

    def __init__(self) -> None:
        self.batches: list[int] = []

    def use_postprocess(self) -> None:
        pass

    def __call__(self, images: list[np.ndarray], batch_size: int) -> list[ImageDetections]:
        self.batches.append(len(images))
        box, label = np.array([[1, 2, 3, 4]], np.float32), np.array([1])
        scores = [np.array([one.mean() / 255], np.float32) for one in images]
        return [ImageDetections(one, box, score, label, ("thing",)) for one, score in zip(images, scores, strict=True)]


@pytest.mark.parametrize(("count", "size"), [(0, 3), (7, 3), (5, 1), (60, 4)])
def test_images_come_once_in_order_and_no_more_than_two_batches_are_held(count: int, size: int) -> None:
    """One is worked on while the next is made, whatever the number of images."""
    alive: list[weakref.ref] = []
    most = 0

    def source_images() -> Iterator[SourceImage]:
        nonlocal most
        for index in range(count):
            image = np.full((8, 8, 3), index, np.uint8)
            alive.append(weakref.ref(image))
            most = max(most, sum(reference() is not None for reference in alive))
            yield SourceImage(Source("image", str(index)), image)

    detector: Any = FindsOne()
    places = [int(one.source.address) for one, found in predict.detect_in(source_images(), detector, size, 9)]
    assert places == list(range(count))
    assert detector.batches == [size] * (count // size) + ([count % size] if count % size else [])
    assert most <= 2 * size + 1


def test_what_is_counted_written_and_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shown: list[str] = []

    def show(image: Image.Image, *, title: str, fps: float | None = None) -> bool:
        shown.append(title)
        return len(shown) < 7  # then the user had enough

    for index in range(10):
        Image.fromarray(np.full((4, 4, 3), 25 * index, np.uint8)).save(tmp_path / f"{index}.png")
    monkeypatch.setattr(Detector, "load", lambda *_, **__: FindsOne())
    monkeypatch.setattr(predict, "Window", lambda: SimpleNamespace(show=show, close=lambda: shown.append("closed")))
    overrides = ["checkpoint=x", f"source={tmp_path}", "score_threshold=0.5", "save=json", f"output={tmp_path / 'out'}"]
    predict.predict(compose_config("predict", [*overrides, "show=true"]))
    records = json.loads((tmp_path / "out" / "predictions.json").read_text())["images"]
    assert [(record["file"], len(record["detections"])) for record in records] == [
        (str(tmp_path / f"{i}.png"), int(25 * i >= 127.5)) for i in range(7)
    ]
    assert shown[6:] == [f"{tmp_path}/6.png: 1 found - space: next, q: quit", "closed"]
    assert f"1 detection (1 thing) in 7 images: json in {tmp_path / 'out'}" in capsys.readouterr().out


@pytest.mark.parametrize(("frames", "total"), [([], 3), ([10, 5], 16), ([None, 5], None), ([5, None], None)])
def test_the_bar_expects_what_is_known(frames: list[int | None], total: int | None) -> None:
    with Bar(3) as bar:
        for count in frames:
            bar.opened_video(count)
        bar.step()
        (task,) = bar.tasks
        assert (task.total, task.completed) == (total, 1)
