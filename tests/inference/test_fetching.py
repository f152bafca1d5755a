import re
import time
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from helpers.prediction_media import Web, sends
from ssd_lightning.errors import DataError
from ssd_lightning.inference.frames import fetch


def refused(url: str, tmp_path: Path, **limits: Any) -> str:
    with pytest.raises(DataError) as caught:
        fetch(url, tmp_path / "file", **{"most_bytes": 1000, "silence_s": 5.0, **limits})
    message = str(caught.value)
    assert message.startswith(f"{url}: ")
    assert "\n" not in message
    return message


def test_a_file_comes_as_it_is(web: Web, tmp_path: Path) -> None:
    url, answers = web
    answers["/a"] = sends(bytes(range(256)), "image/png; charset=x")
    assert fetch(f"{url}/a?size=1", tmp_path / "a", most_bytes=256) == "image/png"
    assert (tmp_path / "a").read_bytes() == bytes(range(256))
    answers["/b"] = sends(b"")
    assert fetch(f"{url}/b", tmp_path / "b", most_bytes=256) == ""


def test_redirects_are_followed_within_the_web_alone(web: Web, tmp_path: Path) -> None:
    url, answers = web
    answers["/a"] = sends(b"here")
    answers["/there"] = sends(b"", to="/a")
    fetch(f"{url}/there", tmp_path / "a", most_bytes=9)
    assert (tmp_path / "a").read_bytes() == b"here"
    for target in ("file:///etc/hostname", "ftp://127.0.0.1/a", "data:,here", "javascript:1"):
        answers["/out"] = sends(b"", to=target)
        assert target in refused(f"{url}/out", tmp_path)
    answers["/loop"] = sends(b"", to="/loop")
    assert "redirects" in refused(f"{url}/loop", tmp_path)


def test_what_is_not_there(web: Web, tmp_path: Path) -> None:
    url, _ = web
    assert "404" in refused(f"{url}/nothing", tmp_path)
    assert "Connection refused" in refused("http://127.0.0.1:9/a", tmp_path)
    for odd in (
        "http://",
        "http://[",
        "http:///a",
        "http://127.0.0.1:99999/a",
        "http://127.0.0.1:port/a",
        "file:///etc",
    ):
        refused(odd, tmp_path)


def endless(handler: BaseHTTPRequestHandler) -> None:
    handler.send_response(200)
    handler.end_headers()
    try:
        while True:
            handler.wfile.write(b"x" * 4096)
    except OSError:
        pass


def drip(handler: BaseHTTPRequestHandler) -> None:
    handler.send_response(200)
    handler.end_headers()
    try:
        while True:
            handler.wfile.write(b"x")
            time.sleep(0.05)
    except OSError:
        pass


def silence(handler: BaseHTTPRequestHandler) -> None:
    time.sleep(2)


@pytest.mark.timeout(20)
def test_what_has_no_end_or_no_beginning(web: Web, tmp_path: Path) -> None:
    url, answers = web
    answers |= {"/endless": endless, "/drip": drip, "/silence": silence}
    assert "0.001 MB that are allowed (max_download_mb)" in refused(f"{url}/endless", tmp_path)
    assert re.search(r"incomplete after 0 s, with \d+ bytes received", refused(f"{url}/drip", tmp_path, most_s=0.3))
    assert "timed out" in refused(f"{url}/silence", tmp_path, silence_s=0.3)


def test_lengths_that_are_too_large_or_lie(web: Web, tmp_path: Path) -> None:
    url, answers = web
    answers |= {"/large": sends(b"x", length=10**12), "/short": sends(b"x" * 10, length=900)}
    assert "has 1,000,000,000,000 bytes" in refused(f"{url}/large", tmp_path)
    assert "10 bytes read, 890 more expected" in refused(f"{url}/short", tmp_path)
    answers["/exact"] = sends(b"x" * 1000)
    fetch(f"{url}/exact", tmp_path / "a", most_bytes=1000)
    answers["/beyond"] = sends(b"x" * 1001)
    refused(f"{url}/beyond", tmp_path)
