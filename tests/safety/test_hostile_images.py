"""Images and annotations made to harm: refused by their header, no hang, one line that names the file."""

import io
import os
import re
import resource
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from helpers.hostile_files import check_message, png, png_chunk, refused
from ssd_lightning.data.formats.voc import parse_annotation
from ssd_lightning.data.images import image_size_px, read_image
from ssd_lightning.errors import DataError


def jpeg_of_size(width: int, height: int) -> bytes:
    """A small JPEG whose header says another size: to a decoder, an image that was cut off."""
    stream = io.BytesIO()
    Image.new("RGB", (64, 64), "red").save(stream, "JPEG")
    data = bytearray(stream.getvalue())
    frame = data.index(b"\xff\xc0")
    data[frame + 5 : frame + 9] = struct.pack(">HH", height, width)
    return bytes(data)


def peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


@pytest.mark.parametrize("content", [jpeg_of_size(20_000, 20_000), png(20_000, 20_000, bytes(100))], ids=["jpg", "png"])
def test_twenty_thousand_squared_is_refused_by_its_header(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "huge"
    path.write_bytes(content)
    before = peak_mib()
    for read in (read_image, image_size_px, lambda path: read_image(path, (20_000, 20_000), reduction=8)):
        message = refused(path, read, DataError)
        assert re.search("decompression bomb.*400000000 pixels.*tiles", message)
    assert peak_mib() < before + 100


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize(("width", "height"), [(65_000, 2), (63, 64), (1, 1), (0, 64)])
def test_a_jpeg_header_that_lies_gives_a_image_of_that_size_or_one_sentence(
    tmp_path: Path, width: int, height: int
) -> None:
    path = tmp_path / "lies.jpg"
    path.write_bytes(jpeg_of_size(width, height))
    for stated in (None, (height, width)):
        try:
            assert read_image(path, stated).shape == (height, width, 3)
        except DataError as error:
            check_message(str(error), path)
    refused(path, lambda path: read_image(path, (64, 64)), DataError)


def test_text_in_a_png_that_blows_up(tmp_path: Path) -> None:
    path = tmp_path / "text.png"
    packer = zlib.compressobj(1)
    data = b"key\0\0" + b"".join(packer.compress(bytes(10**6)) for _ in range(120)) + packer.flush()
    path.write_bytes(png(2, 1, bytes(3), before_pixels=png_chunk(b"zTXt", data)))
    before = peak_mib()
    refused(path, read_image, DataError)
    assert peak_mib() < before + 100


ODD: dict[str, Callable[[Path], object]] = {
    "pipe": os.mkfifo,
    "device": lambda path: path.symlink_to("/dev/zero"),
    "loop": lambda path: path.symlink_to(path.name),
    "folder": Path.mkdir,
}


READERS = (read_image, image_size_px, parse_annotation)


@pytest.mark.timeout(20)
@pytest.mark.parametrize("kind", ODD)
def test_what_is_no_file_is_refused_at_once(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "odd.jpg"
    ODD[kind](path)
    for read in READERS:
        refused(path, read, DataError)


def test_files_that_may_not_be_read(tmp_path: Path) -> None:
    path = tmp_path / "secret.jpg"
    path.write_bytes(jpeg_of_size(64, 64))
    path.chmod(0)
    own = os.geteuid()
    os.seteuid(own or 65534)  # root may read everything
    try:
        for read in READERS:
            assert "Permission denied" in refused(path, read, DataError)
    finally:
        os.seteuid(own)


EXTERNAL = """<!DOCTYPE annotation [<!ENTITY x SYSTEM "{url}">]><annotation><filename>&x;</filename></annotation>"""
PARAMETER = """<!DOCTYPE annotation [<!ENTITY % x SYSTEM "{url}"> %x;]><annotation/>"""
QUADRATIC = f"""<!DOCTYPE annotation [<!ENTITY x "{"y" * 50_000}">]><annotation>{"&x;" * 50_000}</annotation>"""


def test_entities_are_neither_fetched_nor_expanded(tmp_path: Path) -> None:
    secret, path = tmp_path / "secret.txt", tmp_path / "a.xml"
    secret.write_text("very secret")
    texts = [text.format(url=url) for text in (EXTERNAL, PARAMETER) for url in (secret.as_uri(), "http://localhost:9/")]
    for text in [*texts, QUADRATIC]:
        path.write_text(text)
        message = refused(path, parse_annotation, DataError)
        assert "the XML declares entities, which is refused" in message
        assert "very secret" not in message


def test_xml_of_odd_forms(tmp_path: Path) -> None:
    """A document type elsewhere, which is not fetched; deep; wide."""
    path = tmp_path / "a.xml"
    attributes = " ".join(f"a{number}='1'" for number in range(10_000))
    for text in (
        '<!DOCTYPE annotation SYSTEM "http://localhost:9/a.dtd"><annotation/>',
        f"<annotation>{'<a>' * 30_000}{'</a>' * 30_000}</annotation>",
        f"<annotation {attributes}/>",
    ):
        path.write_text(text)
        assert parse_annotation(path).tag == "annotation"
