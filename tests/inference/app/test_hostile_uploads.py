"""Whatever is sent, the answer is a 4xx with one sentence, and the server lives on."""

import io
import socket
import struct
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

from ssd_lightning.data import images
from ssd_lightning.inference.app.app import Application
from ssd_lightning.inference.app.uploads import ENVELOPE_BYTES, Limits
from ssd_lightning.inference.detector import Detector

MAX_BYTES = 200_000
pytestmark = pytest.mark.filterwarnings("ignore:Corrupt EXIF data")


@pytest.fixture
def application(detector: Detector) -> Application:
    limits = Limits(max_bytes=MAX_BYTES, max_pixels=1_000_000, seconds=0.5)
    return Application(detector, name="fenced", limits=limits)


def written(image_format: str, **settings: object) -> bytes:
    file = io.BytesIO()
    grounds = np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)
    Image.fromarray(grounds).save(file, format=image_format, **settings)
    return file.getvalue()


def png_claiming(width: int, height: int) -> bytes:
    """A PNG of some bytes whose header says any size."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    rows = zlib.compress(bytes(100_000), 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def zipped() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("image.jpg", written("JPEG"))
    return file.getvalue()


JPEG, PNG = written("JPEG"), written("PNG")
SVG = b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>'
HOSTILE = {
    "nothing": (b"", 400, "empty (0 bytes)"),
    "truncated JPEG": (JPEG[: len(JPEG) // 2], 400, "cannot read"),
    "truncated PNG": (PNG[: len(PNG) // 2], 400, "cannot read"),
    "JPEG header alone": (JPEG[:4], 400, ""),
    "bits flipped": (PNG[:60] + bytes(byte ^ 0xFF for byte in PNG[60:200]) + PNG[200:], 400, "cannot read"),
    "HTML": (b"<!doctype html><script>alert(1)</script>", 415, "known format"),
    "SVG": (SVG, 415, "known format"),
    "XML bomb": (b'<?xml version="1.0"?><!DOCTYPE a [<!ENTITY b "&c;&c;">]><svg>&b;</svg>', 415, "known format"),
    "zip with an image": (zipped(), 415, "known format"),
    "HTML that begins as a BMP": (b"BM<script>alert(1)</script>", 400, ""),
    "HTML that begins as a GIF": (b"GIF89a/*<script>alert(1)</script>", 400, ""),
    "PostScript": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n", 415, "known format"),
    "PDF": (b"%PDF-1.7\n", 415, "known format"),
    "pickle": (b"\x80\x04cos\nsystem\n(S'true'\ntR.", 415, "known format"),
    "ELF": (b"\x7fELF" + bytes(200), 415, "known format"),
    "script": (b"#!/bin/sh\nrm -rf /\n", 415, "known format"),
    "noise": (np.random.default_rng(3).bytes(5000), 415, "known format"),
    "more pixels than are read": (png_claiming(1001, 1000), 413, "at most 1 million"),
    "decompression bomb": (png_claiming(60_000, 60_000), 413, "at most 1 million"),
    "more pixels than there are": (png_claiming(2**31 - 1, 2**31 - 1), 413, ""),
    "fewer pixels than said": (png_claiming(1000, 1000), 400, ""),
    "no pixels": (png_claiming(0, 0), 400, ""),
    "PPM of any size": (b"P6 999999999 999999999 255\n", 413, ""),
    "WebP without an image": (b"RIFF\x04\x00\x00\x00WEBP", 400, ""),
    "TIFF that points beyond itself": (b"II*\x00\xff\xff\xff\x7f", 400, ""),
    "larger than allowed": (PNG + bytes(MAX_BYTES), 413, "larger than 0.2 MB"),
}


def is_alive(client: TestClient) -> bool:
    return client.post("/api/detect", content=PNG).status_code == 200


@pytest.mark.parametrize("path", ["/api/detect", "/api/candidates"])
@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_body(client: TestClient, kind: str, path: str) -> None:
    body, status, overrides = HOSTILE[kind]
    answer = client.post(path, content=body)
    assert (answer.status_code, list(answer.json())) == (status, ["error"]), answer.text
    sentence = answer.json()["error"]
    assert overrides in sentence
    assert "/tmp" not in sentence
    assert "ssd-demo-" not in sentence
    assert "\n" not in sentence
    assert is_alive(client)


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_file_in_a_form(client: TestClient, kind: str) -> None:
    body, status, _ = HOSTILE[kind]
    answer = client.post("/api/detect", files={"file": ("../../etc/passwd.png", body, "image/png")})
    assert (answer.status_code, list(answer.json())) == (status, ["error"]), answer.text
    assert is_alive(client)


PART = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.png"\r\n\r\n'
FORMS = {
    "no boundary": ("multipart/form-data", PART + PNG, "boundary"),
    "empty boundary": ("multipart/form-data; boundary=", PART + PNG, ""),
    "another boundary": ("multipart/form-data; boundary=y", PART + PNG + b"\r\n--x--\r\n", ""),
    "endless boundary": (f"multipart/form-data; boundary={'x' * 5000}", PART + PNG, ""),
    "no end": ("multipart/form-data; boundary=x", PART + PNG, "no complete file"),
    "no parts": ("multipart/form-data; boundary=x", b"--x--\r\n", "no complete file"),
    "nothing": ("multipart/form-data; boundary=x", b"", "no complete file"),
    "noise": ("multipart/form-data; boundary=x", bytes(range(256)) * 40, ""),
    "a part without a name": ("multipart/form-data; boundary=x", b"--x\r\n\r\nhello\r\n--x--\r\n", "name"),
    "text instead of a file": (
        "multipart/form-data; boundary=x",
        b'--x\r\nContent-Disposition: form-data; name="file"\r\n\r\n/etc/passwd\r\n--x--\r\n',
        "no complete file",
    ),
    "two files": ("multipart/form-data; boundary=x", PART + PNG + b"\r\n" + PART + PNG + b"\r\n--x--\r\n", "Too many"),
    "many fields": (
        "multipart/form-data; boundary=x",
        b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\n1\r\n' * 500 + b"--x--\r\n",
        "Too many",
    ),
}


@pytest.mark.parametrize("kind", FORMS)
def test_a_broken_form(client: TestClient, kind: str) -> None:
    media_type, body, overrides = FORMS[kind]
    answer = client.post("/api/detect", content=body, headers={"content-type": media_type})
    assert (answer.status_code, list(answer.json())) == (400, ["error"]), answer.text
    assert overrides in answer.json()["error"]
    assert is_alive(client)


@pytest.mark.parametrize(
    "settings",
    [{"image_format": image_format} for image_format in ("JPEG", "PNG", "BMP", "GIF", "PPM", "TIFF", "WEBP")],
    ids=lambda settings: settings["image_format"],
)
def test_images_of_all_formats_are_none(client: TestClient, settings: dict[str, str]) -> None:
    answer = client.post("/api/detect", content=written(**settings), headers={"content-type": "text/plain"})
    assert answer.status_code == 200
    assert (answer.json()["width"], answer.json()["height"]) == (50, 40)


def test_a_image_with_an_archive_behind_it_is_a_image(client: TestClient) -> None:
    """It is never given out again, so that what it is to others does no harm."""
    assert client.post("/api/detect", content=PNG + zipped()).status_code == 200


def test_it_is_turned_as_its_camera_was(client: TestClient) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    answer = client.post("/api/detect", content=written("JPEG", exif=exif))
    assert (answer.json()["width"], answer.json()["height"]) == (40, 50)


def test_no_path_of_the_client_is_opened(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    read, opened = images.read_image, []

    def note(path: Path | str) -> np.ndarray:
        opened.append(Path(path))
        return read(path)

    monkeypatch.setattr("ssd_lightning.inference.app.uploads.read_image", note)
    for name in ("../../../etc/passwd", "/etc/passwd", "C:\\boot.ini", "a\x00.png", "file:///etc/passwd"):
        assert client.post("/api/detect", files={"file": (name, PNG)}).status_code == 200
    assert len(opened) == 5
    assert {path.name for path in opened} == {"upload"}
    assert not any(path.parent.exists() for path in opened)  # nothing is left behind


def test_a_form_may_be_as_large_as_a_body(client: TestClient) -> None:
    """The limit is the image's; what a form adds has a limit of its own."""
    full = PNG + bytes(MAX_BYTES - len(PNG))
    assert client.post("/api/detect", content=full).status_code == 200
    assert client.post("/api/detect", files={"file": ("a.png", full)}).status_code == 200
    assert client.post("/api/detect", files={"file": ("a.png", full + b"x")}).status_code == 413
    padded = client.post(
        "/api/detect", files={"file": ("a.png", PNG)}, data={"note": "x" * (MAX_BYTES + ENVELOPE_BYTES)}
    )
    assert padded.status_code == 413


def in_pieces(piece: bytes, times: int, pause: float, sent: list[int]) -> Iterator[bytes]:
    for _ in range(times):
        sent.append(len(piece))
        yield piece
        time.sleep(pause)


def test_an_endless_upload_is_not_read_to_its_end(
    application: Application, serve: Callable[[Application], str]
) -> None:
    """Without a Content-Length, only counting tells that it is too large."""
    url, sent = serve(application), []
    with httpx.Client(base_url=url, timeout=10) as client:
        try:
            answer = client.post("/api/detect", content=in_pieces(bytes(50_000), 2000, 0.001, sent))
            assert answer.status_code == 413
        except httpx.WriteError:
            pass  # the server has answered and hung up while the client was still sending
        assert sum(sent) < 50_000 * 2000
    assert httpx.post(f"{url}/api/detect", content=PNG).status_code == 200


def raw_request(url: str, *overrides: bytes) -> socket.socket:
    host, port = url.removeprefix("http://").split(":")
    connection = socket.create_connection((host, int(port)), timeout=10)
    connection.sendall(b"POST /api/detect HTTP/1.1\r\nHost: 127.0.0.1\r\n" + b"".join(overrides))
    return connection


def test_one_that_says_it_is_too_large_is_not_waited_for(
    application: Application, serve: Callable[[Application], str]
) -> None:
    url = serve(application)
    with raw_request(url, b"Content-Length: 99999999999999999999\r\n\r\n") as connection:
        assert connection.recv(100).startswith(b"HTTP/1.1 413")
    assert httpx.post(f"{url}/api/detect", content=PNG).status_code == 200


@pytest.mark.parametrize("length", [b"-5", b"many", b"1e3"])
def test_a_length_that_is_none(application: Application, serve: Callable[[Application], str], length: bytes) -> None:
    url = serve(application)
    with raw_request(url, b"Content-Length: " + length + b"\r\n\r\n") as connection:
        assert connection.recv(100).startswith(b"HTTP/1.1 400")
    assert httpx.post(f"{url}/api/detect", content=PNG).status_code == 200


def test_a_slow_upload_is_given_up(application: Application, serve: Callable[[Application], str]) -> None:
    url = serve(application)
    with raw_request(url, b"Content-Length: 5000\r\n\r\n", PNG[:100]) as connection:
        assert httpx.get(f"{url}/health").json()["waiting"] == 1
        answer = connection.recv(1000)
        assert answer.startswith(b"HTTP/1.1 408")
        assert b"within 0.5 seconds" in answer + connection.recv(1000)
    assert httpx.post(f"{url}/api/detect", content=PNG).status_code == 200
    assert httpx.get(f"{url}/health").json()["waiting"] == 0


def test_a_client_that_hangs_up_leaves_nothing_waiting(
    application: Application, serve: Callable[[Application], str]
) -> None:
    url = serve(application)
    for _ in range(20):
        raw_request(url, b"Content-Length: 5000\r\n\r\n", PNG[:100]).close()
    deadline = time.monotonic() + 10
    while httpx.get(f"{url}/health").json()["waiting"] and time.monotonic() < deadline:
        time.sleep(0.01)
    assert httpx.get(f"{url}/health").json()["waiting"] == 0
    assert httpx.post(f"{url}/api/detect", content=PNG).status_code == 200
