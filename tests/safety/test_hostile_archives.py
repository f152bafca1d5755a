"""Archives made to harm: refused whole before a byte is written, nothing outside the folder, one sentence."""

import io
import random
import stat
import tarfile
import zipfile
from pathlib import Path
from types import SimpleNamespace

import pytest

from ssd_lightning.data.archive import unpack
from ssd_lightning.errors import DataError


def write_tar(path: Path, *members: tarfile.TarInfo, content: bytes = b"") -> Path:
    with tarfile.open(path, "w") as tar:
        good = tarfile.TarInfo("top/good.txt")
        good.size = 4
        tar.addfile(good, io.BytesIO(b"good"))
        for member in members:
            tar.addfile(member, io.BytesIO(content))
    return path


def special(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, target
    return member


def write_zip(path: Path, name: str, content: bytes = b"evil", *, mode: int = stat.S_IFREG | 0o644) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("top/good.txt", b"good")
        info = zipfile.ZipInfo(name)
        info.external_attr, info.compress_type = mode << 16, zipfile.ZIP_DEFLATED
        archive.writestr(info, content)
    return path


def assert_refused(path: Path, match: str) -> None:
    folder = path.parent / "out"
    folder.mkdir()
    before = sorted(path.parent.rglob("*"))
    with pytest.raises(DataError, match=match) as caught:
        unpack(path, folder, top_folder="top")
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)
    assert sorted(path.parent.rglob("*")) == before


@pytest.mark.parametrize("name", ["/escaped", "../escaped", "top/\n/../../escaped", "top\\..\\escaped", "C:/escaped"])
def test_paths_that_climb_out(tmp_path: Path, name: str) -> None:
    (tmp_path / "tar").mkdir()
    (tmp_path / "zip").mkdir()
    assert_refused(write_tar(tmp_path / "tar/bad.tar", tarfile.TarInfo(name)), "leads outside")
    assert_refused(write_zip(tmp_path / "zip/bad.zip", name), "leads outside")


@pytest.mark.parametrize(
    ("kind", "target"),
    [
        (tarfile.SYMTYPE, "/etc"),
        (tarfile.LNKTYPE, "top/good.txt"),
        (tarfile.CHRTYPE, ""),
        (tarfile.FIFOTYPE, ""),
    ],
)
def test_links_and_devices(tmp_path: Path, kind: bytes, target: str) -> None:
    """A file written through a link that came before it in the archive would land outside."""
    through = tarfile.TarInfo("top/door/escaped")
    archive = write_tar(tmp_path / "bad.tar", special("top/door", kind, target), through)
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


def test_a_zip_file_with_a_password_or_an_unknown_method(tmp_path: Path) -> None:
    for name, offset, value in (("locked", 8, 1), ("method", 10, 99)):
        folder = tmp_path / name
        folder.mkdir()
        path = write_zip(folder / "bad.zip", "top/file")
        data = bytearray(path.read_bytes())
        at = data.rindex(b"PK\x01\x02")  # the last entry of the directory
        data[at + offset] = value
        path.write_bytes(data)
        folder = path.parent / "out"
        folder.mkdir()
        with pytest.raises(DataError, match=r"bad\.zip"):
            unpack(path, folder, top_folder="top")
        assert {entry.name for entry in folder.rglob("*")} <= {"good.txt"}


@pytest.mark.parametrize("suffix", [".tar", ".zip"])
def test_damage_anywhere_is_one_sentence_or_none(tmp_path: Path, suffix: str) -> None:
    path, rng = tmp_path / f"bad{suffix}", random.Random(0)
    good = (write_zip(path, "top/b", b"abc" * 50) if suffix == ".zip" else write_tar(path)).read_bytes()
    for trial in range(40):
        damaged = bytearray(good)
        for _ in range(rng.randrange(1, 4)):
            damaged[rng.randrange(len(damaged) if suffix == ".zip" else 600)] = rng.randrange(256)
        path.write_bytes(damaged)
        folder = tmp_path / "out" / str(trial)
        folder.mkdir(parents=True)
        try:
            unpack(path, folder, top_folder="top")
        except DataError as error:
            assert str(error).startswith(f"{path}: ")  # noqa: PT017
            assert "\n" not in str(error)  # noqa: PT017
    assert {entry.name for entry in tmp_path.iterdir()} == {path.name, "out"}


def test_long_and_odd_names_stay_inside(tmp_path: Path) -> None:
    names = ["top/-rf", "top/ö ü.txt", "top/line\nfeed", "top/tab\t", "top/" + "d/" * 40 + "deep", "top/" + "x" * 200]
    folder = tmp_path / "out"
    folder.mkdir()
    unpack(write_tar(tmp_path / "odd.tar", *map(tarfile.TarInfo, names)), folder, top_folder="top")
    found = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert found == {name.removeprefix("top/") for name in [*names, "top/good.txt"]}
