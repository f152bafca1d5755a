"""The download against a server on this machine: mirrors, resumption, checks, safe unpacking, complete data sets."""

import hashlib
import io
import logging
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import pytest

from ssd_lightning.data import download as download_module
from ssd_lightning.data.download import ARCHIVES, Archive, install, prepare
from ssd_lightning.errors import ConfigurationError, DataError

TAR_NAME = "fake.tar"
FILES = {
    "VOC2007/ImageSets/Main/test.txt": b"000001\n000002\n",
    "VOC2007/JPEGImages/000001.jpg": bytes(30_000),
    "VOC2007/JPEGImages/000002.jpg": b"image",
    "VOC2007/Annotations/000001.xml": b"<annotation/>",
    "VOC2007/Annotations/000002.xml": b"<annotation/>",
}


def tar_of(files: dict[str, bytes], top: str = "VOCdevkit/") -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        folder = tarfile.TarInfo(top + "VOC2007")
        folder.type = tarfile.DIRTYPE
        tar.addfile(folder)
        for name, content in files.items():
            member = tarfile.TarInfo(top + name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return stream.getvalue()


CONTENT = tar_of(FILES)


class Handler(BaseHTTPRequestHandler):
    """Each folder of the server misbehaves in a way of its own."""

    server: "Server"

    def do_GET(self) -> None:
        behaviour = self.path.split("/")[1]
        requested = self.headers["Range"]
        self.server.requests.append((behaviour, requested))
        content = self.server.content
        if behaviour == "absent":
            self.send_error(404)
            return
        if behaviour == "hangs":
            self.server.stop_hanging.wait(10)
            return
        if behaviour == "wrong":
            content = bytes(len(content))
        start = int(requested.removeprefix("bytes=").rstrip("-")) if requested and behaviour != "rangeless" else 0
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        ends = {"drops": start + len(content) // 3 + 1, "stalls": start or len(content) // 2}
        self.wfile.write(content[start : ends.get(behaviour)])

    def log_message(self, *_: object) -> None:
        pass


class Server(ThreadingHTTPServer):
    daemon_threads = True
    content = CONTENT

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.requests: list[tuple[str, str | None]] = []
        self.stop_hanging = threading.Event()

    def handle_error(self, *_: object) -> None:
        """The client may hang up."""

    def archive(self, *behaviours: str) -> Archive:
        ports = [1 if name == "closed" else self.server_port for name in behaviours]
        places = zip(ports, behaviours, strict=True)
        return replace(
            ARCHIVES["2007_test"],
            filename=TAR_NAME,
            size_bytes=len(self.content),
            checksum=f"md5:{hashlib.md5(self.content).hexdigest()}",
            urls=tuple(f"http://127.0.0.1:{port}/{name}/{TAR_NAME}" for port, name in places),
        )


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield running
        running.stop_hanging.set()
        running.shutdown()
        thread.join()


def fetch(root: Path, archive: Archive, timeout_s: float = 30) -> None:
    install(archive, root, timeout_s=timeout_s)


def assert_in_place(root: Path) -> None:
    for name, content in FILES.items():
        assert (root / name).read_bytes() == content
    assert not list(root.rglob("*.part"))
    assert not (root / "VOCdevkit").exists()


def test_nothing_is_fetched_unasked_and_what_is_asked_for_once(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "not" / "yet"
    monkeypatch.setitem(ARCHIVES, "fake", server.archive("good"))  # type: ignore[arg-type]
    fetches = r"the data fake are not in .*data\.download=true fetches them \(0\.0 GB\).*data\.root="
    with pytest.raises(DataError, match=fetches):
        prepare(root, archives=["fake"], download=False)
    assert not server.requests
    for download in (True, True, False):
        prepare(root, archives=["fake"], download=download)
        assert_in_place(root)
    (root / "VOC2007").rename(root / "elsewhere")
    prepare(root, archives=["fake"], download=True)
    assert_in_place(root)
    assert server.requests == [("good", None)]


@pytest.mark.parametrize(
    ("behaviour", "cause", "timeout_s"),
    [("absent", "404", 30), ("wrong", "hash", 30), ("stalls", "more expected", 30), ("hangs", "timed out", 0.2)],
)
def test_the_next_mirror_is_asked(
    tmp_path: Path, server: Server, caplog: pytest.LogCaptureFixture, behaviour: str, cause: str, timeout_s: float
) -> None:
    fetch(tmp_path, server.archive(behaviour, "good"), timeout_s=timeout_s)

    assert_in_place(tmp_path)
    assert server.requests[-1][0] == "good"
    assert f"/{behaviour}/{TAR_NAME}: " in caplog.text
    assert cause in caplog.text


def test_a_mirror_that_drops_the_connection_is_asked_for_the_rest(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download_module, "CHUNK_BYTES", 1000)  # what arrived of the last chunk is lost
    fetch(tmp_path, server.archive("drops"))

    assert_in_place(tmp_path)
    assert server.requests == [("drops", start) for start in (None, "bytes=13000-", "bytes=26000-", "bytes=39000-")]


@pytest.mark.parametrize(
    ("name", "content", "behaviour", "requests"),
    [
        (".part", CONTENT[:1000], "good", ["bytes=1000-"]),
        (".part", CONTENT[:1000], "rangeless", ["bytes=1000-"]),
        (".part", b"x" * 1000, "good", ["bytes=1000-", None]),  # spoilt
        (".part", b"x" * len(CONTENT), "good", [f"bytes={len(CONTENT)}-", None]),
        ("", CONTENT, "absent", []),
        ("", bytes(len(CONTENT)), "good", [None]),
    ],
    ids=["part", "rangeless", "spoilt part", "spoilt whole", "archive", "spoilt archive"],
)
def test_what_an_earlier_run_left_is_taken_up_or_thrown_away(
    tmp_path: Path, server: Server, name: str, content: bytes, behaviour: str, requests: list[str | None]
) -> None:
    (tmp_path / f"{TAR_NAME}{name}").write_bytes(content)

    fetch(tmp_path, server.archive(behaviour))

    assert_in_place(tmp_path)
    assert [requested for _, requested in server.requests] == requests
    assert (tmp_path / TAR_NAME).read_bytes() == CONTENT


def test_ones_own_copy_needs_neither_archive_nor_network_and_is_not_written_to(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(ARCHIVES, "fake", server.archive("absent"))  # type: ignore[arg-type]
    for name, content in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content)
    before = sorted(tmp_path.rglob("*"))

    prepare(tmp_path, archives=["fake"], download=True)
    assert sorted(tmp_path.rglob("*")) == before

    (tmp_path / "VOC2007/JPEGImages/000002.jpg").unlink()
    with pytest.raises(DataError, match="could not be downloaded"):
        prepare(tmp_path, archives=["fake"], download=True)


def test_all_mirrors_failing_says_what_to_do(tmp_path: Path, server: Server) -> None:
    with pytest.raises(DataError) as caught:
        fetch(tmp_path, server.archive("absent", "wrong", "closed"))

    message = str(caught.value)
    assert message.startswith(f"{TAR_NAME} could not be downloaded; put this file into {tmp_path}, or ")
    assert all(cause in message for cause in ("data.root=", "404", "hash", "refused"))
    assert "\n" not in message
    assert not (tmp_path / "VOC2007").exists()


def test_an_archive_that_lacks_images(tmp_path: Path, server: Server) -> None:
    server.content = tar_of({name: FILES[name] for name in FILES if "000002" not in name})
    with pytest.raises(DataError, match="lacks files"):
        fetch(tmp_path, server.archive("good"))


def test_a_disk_that_is_too_small(tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=9))

    with pytest.raises(DataError, match=r"bytes of disk, 9 are free"):
        fetch(tmp_path, server.archive("good"))
    assert server.requests == []


def test_a_root_that_cannot_be_made(tmp_path: Path, server: Server) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(DataError, match=r"file: cannot write fake\.tar"):
        fetch(tmp_path / "file", server.archive("good"))


def test_two_runs_that_start_together_fetch_and_unpack_once(
    tmp_path: Path, server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: fetch(tmp_path, server.archive("good")), range(4)))
    assert_in_place(tmp_path)
    assert server.requests == [("good", None)]
    assert caplog.text.count("unpacking") == 1


def test_an_unknown_archive(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no archive '2013'; there is 2007_trainval, 2007_test, 2012_trainval, bananas"):
        prepare(tmp_path, archives=["2013"], download=True)
    with pytest.raises(ConfigurationError, match=r"data\.download is 'no'"):
        prepare(tmp_path, archives=["2007_test"], download="no")  # type: ignore[arg-type]


def test_the_catalogue_is_that_of_torchvision() -> None:
    from torchvision.datasets.voc import DATASET_YEAR_DICT

    for name, theirs in (("2007_trainval", "2007"), ("2007_test", "2007-test"), ("2012_trainval", "2012")):
        ours = ARCHIVES[name]
        assert ours.filename == DATASET_YEAR_DICT[theirs]["filename"]
        assert ours.checksum == f"md5:{DATASET_YEAR_DICT[theirs]['md5']}"
        assert DATASET_YEAR_DICT[theirs]["url"] in ours.urls
        assert len(ours.urls) == 3


BANANAS = ("bananas_train", "bananas_val")


def zip_of_images() -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for split in BANANAS:
            archive.writestr(f"banana-detection/{split}/label.csv", "img_name,label,xmin\n0.png,0,1\n1.png,0,1\n")
            for name in ("0.png", "1.png"):
                archive.writestr(f"banana-detection/{split}/images/{name}", b"image")
        archive.writestr("__MACOSX/banana-detection/._x", b"")
    return stream.getvalue()


def test_the_bananas_are_unpacked_once_and_a_lost_image_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content, path = zip_of_images(), tmp_path / ARCHIVES["bananas"].filename
    path.write_bytes(content)
    missing = (tmp_path / "no server").as_uri()
    archive = replace(ARCHIVES["bananas"], checksum=f"sha1:{hashlib.sha1(content).hexdigest()}", urls=(missing,))
    monkeypatch.setitem(ARCHIVES, "bananas", archive)  # type: ignore[arg-type]

    prepare(tmp_path, archives=["bananas"], download=True)
    path.unlink()
    prepare(tmp_path, archives=["bananas"], download=False)

    files = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.*") if path.is_file()}
    assert files - {".download.lock"} == {
        f"{split}/{name}" for split in BANANAS for name in ("label.csv", "images/0.png", "images/1.png")
    }
    (tmp_path / BANANAS[1] / "images/1.png").unlink()
    with pytest.raises(DataError, match=r"data\.download=true fetches them"):
        prepare(tmp_path, archives=["bananas"], download=False)
