"""The bananas: a zip archive of unknown size, checked by SHA-1, unpacked and found complete."""

import hashlib
import io
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from ssd_lightning.data.archive import Archive
from ssd_lightning.data.bananas import BANANAS, SPLITS, prepare_bananas
from ssd_lightning.errors import DataError


def zip_of_images() -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for split in SPLITS:
            archive.writestr(f"banana-detection/{split}/label.csv", "img_name,label,xmin\n0.png,0,1\n1.png,0,1\n")
            for name in ("0.png", "1.png"):
                archive.writestr(f"banana-detection/{split}/images/{name}", b"image")
        archive.writestr("__MACOSX/banana-detection/._x", b"")
    return stream.getvalue()


def put(root: Path) -> Archive:
    content = zip_of_images()
    (root / BANANAS.filename).write_bytes(content)
    missing = (root / "no server").as_uri()
    return replace(BANANAS, checksum=f"sha1:{hashlib.sha1(content).hexdigest()}", urls=(missing,))


def test_an_archive_that_lies_there_is_unpacked_once(tmp_path: Path) -> None:
    archive = put(tmp_path)

    prepare_bananas(tmp_path, download=True, archive=archive)
    (tmp_path / BANANAS.filename).unlink()
    prepare_bananas(tmp_path, download=False, archive=archive)

    files = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.*") if path.is_file()}
    assert files - {".download.lock"} == {
        f"{split}/{name}" for split in SPLITS for name in ("label.csv", "images/0.png", "images/1.png")
    }


def test_a_lost_image_is_noticed(tmp_path: Path) -> None:
    archive = put(tmp_path)
    prepare_bananas(tmp_path, download=True, archive=archive)
    (tmp_path / SPLITS[1] / "images/1.png").unlink()

    with pytest.raises(DataError, match=r"data\.download=true fetches them"):
        prepare_bananas(tmp_path, download=False, archive=archive)
