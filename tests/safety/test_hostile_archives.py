"""Archives made to harm: refused whole before a byte is written, nothing outside the folder, one sentence."""

import io
import stat
import tarfile
import zipfile
from pathlib import Path
from types import SimpleNamespace

import pytest

from helpers.hostile_files import check_message, damaged, refused
from ssd_lightning.data.download import unpack
from ssd_lightning.errors import DataError


def write_tar(path: Path, *members: tarfile.TarInfo, content: bytes = b"") -> Path:
    with tarfile.open(path, "w") as tar:
        good = tarfile.TarInfo("top/good.txt")
        good.size = 4
        tar.addfile(good, io.BytesIO(b"good"))
        for member in members:
            tar.addfile(member, io.BytesIO(content))
    return path


def write_zip(path: Path, name: str, content: bytes = b"evil", *, mode: int = stat.S_IFREG | 0o644) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("top/good.txt", b"good")
        info = zipfile.ZipInfo(name)
        info.external_attr, info.compress_type = mode << 16, zipfile.ZIP_DEFLATED
        archive.writestr(info, content)
    return path


def assert_refused(path: Path, answer: str) -> None:
    folder = path.parent / "out"
    folder.mkdir(exist_ok=True)
    before = sorted(path.parent.rglob("*"))
    assert answer in refused(path, lambda path: unpack(path, folder, top_folder="top"), DataError)
    assert sorted(path.parent.rglob("*")) == before


@pytest.mark.parametrize("name", ["/escaped", "../escaped", "top/\n/../../escaped", "top\\..\\escaped", "C:/escaped"])
def test_paths_that_climb_out(tmp_path: Path, name: str) -> None:
    assert_refused(write_tar(tmp_path / "bad.tar", tarfile.TarInfo(name)), "leads outside")
    assert_refused(write_zip(tmp_path / "bad.zip", name), "leads outside")


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE])
def test_links_and_devices(tmp_path: Path, kind: bytes) -> None:
    """A file written through a link that came before it in the archive would land outside."""
    door = tarfile.TarInfo("top/door")
    door.type, door.linkname = kind, "/etc"
    archive = write_tar(tmp_path / "bad.tar", door, tarfile.TarInfo("top/door/escaped"))
    assert_refused(archive, "is a link or a device")


def test_links_in_zip_files_become_plain_files(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "bad.zip", "top/link", b"/etc", mode=stat.S_IFLNK | 0o777)
    unpack(path, tmp_path, top_folder="top")
    assert not (tmp_path / "link").is_symlink()


def test_what_lies_beside_the_top_folder_is_dropped(tmp_path: Path) -> None:
    unpack(write_tar(tmp_path / "some.tar", tarfile.TarInfo("topper/escaped")), tmp_path, top_folder="top")
    assert {path.name for path in tmp_path.iterdir()} == {"some.tar", "good.txt"}


def test_a_zip_bomb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_zip(tmp_path / "bomb.zip", "top/zeros", bytes(5_000_000))
    assert path.stat().st_size < 100_000
    monkeypatch.setattr("shutil.disk_usage", lambda folder: SimpleNamespace(free=4_000_000))
    assert_refused(path, "5,000,004 bytes, and 4,000,000 are free")


@pytest.mark.parametrize("size", [10**15, 5000])
def test_a_size_that_is_only_declared(tmp_path: Path, size: int) -> None:
    member = tarfile.TarInfo("top/huge")
    member.size = size
    path = tmp_path / "bad.tar"
    path.write_bytes(member.tobuf() + bytes(1024))
    assert_refused(path, "cannot be unpacked")


@pytest.mark.parametrize(("offset", "value"), [(8, 1), (10, 99)], ids=["password", "method"])
def test_a_zip_file_with_a_password_or_an_unknown_method(tmp_path: Path, offset: int, value: int) -> None:
    path, folder = write_zip(tmp_path / "bad.zip", "top/file"), tmp_path / "out"
    data = bytearray(path.read_bytes())
    data[data.rindex(b"PK\x01\x02") + offset] = value  # of the last entry of the directory
    path.write_bytes(data)
    folder.mkdir()
    refused(path, lambda path: unpack(path, folder, top_folder="top"), DataError)
    assert {entry.name for entry in folder.rglob("*")} <= {"good.txt"}


@pytest.mark.parametrize("suffix", [".tar", ".zip"])
def test_damage_anywhere_is_one_sentence_or_none(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"bad{suffix}"
    good = (write_zip(path, "top/b", b"abc" * 50) if suffix == ".zip" else write_tar(path)).read_bytes()
    for trial, content in enumerate(damaged(good, 40, within=None if suffix == ".zip" else 600)):
        path.write_bytes(content)
        folder = tmp_path / "out" / str(trial)
        folder.mkdir(parents=True)
        try:
            unpack(path, folder, top_folder="top")
        except DataError as error:
            check_message(str(error), path)
    assert {entry.name for entry in tmp_path.iterdir()} == {path.name, "out"}


def test_long_and_odd_names_stay_inside(tmp_path: Path) -> None:
    names = ["top/-rf", "top/ö ü.txt", "top/line\nfeed", "top/tab\t", "top/" + "d/" * 40 + "deep", "top/" + "x" * 200]
    folder = tmp_path / "out"
    folder.mkdir()
    unpack(write_tar(tmp_path / "odd.tar", *map(tarfile.TarInfo, names)), folder, top_folder="top")
    found = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert found == {name.removeprefix("top/") for name in [*names, "top/good.txt"]}
