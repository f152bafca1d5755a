"""Images and annotations made to harm: refused by their header, no hang, one line that names the file."""

import io
import os
import resource
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from ssd_lightning.data.formats.voc import parse_annotation
from ssd_lightning.data.images import image_size_px, read_image
from ssd_lightning.errors import DataError


def png(width: int, height: int, rows: bytes) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows, 9)) + chunk(b"IEND", b"")


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


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
@pytest.mark.parametrize(("stated", "reduction"), [(None, 1), ((20_000, 20_000), 8)])
def test_twenty_thousand_squared_is_refused_by_its_header(
    tmp_path: Path, suffix: str, stated: tuple[int, int] | None, reduction: int
) -> None:
    path = tmp_path / f"huge{suffix}"
    path.write_bytes(jpeg_of_size(20_000, 20_000) if suffix == ".jpg" else png(20_000, 20_000, bytes(100)))
    before = peak_mib()
    for read in (lambda: read_image(path, stated, reduction=reduction), lambda: image_size_px(path)):
        with pytest.raises(DataError, match=rf"huge{suffix}: .*decompression bomb.*400000000 pixels.*tiles"):
            read()
    assert peak_mib() < before + 100


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize(("width", "height"), [(65_000, 2), (63, 64), (1, 1), (0, 64)])
def test_a_jpeg_header_that_lies_gives_a_image_of_that_size_or_one_sentence(
    tmp_path: Path, width: int, height: int
) -> None:
    path = tmp_path / "lies.jpg"
    path.write_bytes(jpeg_of_size(width, height))
    for stated in (None, (64, 64), (height, width)):
        try:
            assert read_image(path, stated).shape == (height, width, 3)
        except DataError as error:
            assert str(error).startswith(f"{path}: ")  # noqa: PT017
    with pytest.raises(DataError, match=r"lies\.jpg"):
        read_image(path, (64, 64))


def test_text_in_a_png_that_blows_up(tmp_path: Path) -> None:
    path = tmp_path / "text.png"
    good = png(2, 1, bytes(3))
    packer = zlib.compressobj(1)
    data = b"key\0\0" + b"".join(packer.compress(bytes(10**6)) for _ in range(120)) + packer.flush()
    text = struct.pack(">I", len(data)) + b"zTXt" + data + struct.pack(">I", zlib.crc32(b"zTXt" + data))
    path.write_bytes(good[:33] + text + good[33:])
    before = peak_mib()
    with pytest.raises(DataError, match=r"text\.png"):
        read_image(path)
    assert peak_mib() < before + 100


ODD: dict[str, Callable[[Path], object]] = {
    "pipe": os.mkfifo,
    "device": lambda path: path.symlink_to("/dev/zero"),
    "loop": lambda path: path.symlink_to(path.name),
    "folder": Path.mkdir,
}


@pytest.mark.timeout(20)
@pytest.mark.parametrize("make", ODD.values(), ids=ODD)
@pytest.mark.parametrize("read", [read_image, image_size_px, parse_annotation])
def test_what_is_no_file_is_refused_at_once(
    tmp_path: Path, make: Callable[[Path], object], read: Callable[[Path], object]
) -> None:
    path = tmp_path / "odd.jpg"
    make(path)
    with pytest.raises(DataError, match=r"odd\.jpg: ") as caught:
        read(path)
    assert "\n" not in str(caught.value)


def test_files_that_may_not_be_read(tmp_path: Path) -> None:
    path = tmp_path / "secret.jpg"
    path.write_bytes(jpeg_of_size(64, 64))
    path.chmod(0)
    own = os.geteuid()
    os.seteuid(own or 65534)  # root may read everything
    try:
        for read in (read_image, image_size_px, parse_annotation):
            with pytest.raises(DataError, match=r"secret\.jpg: .*Permission denied"):
                read(path)
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
        with pytest.raises(DataError, match=r"a\.xml: the XML declares entities, which is refused") as caught:
            parse_annotation(path)
        assert "very secret" not in str(caught.value)


def test_a_document_type_elsewhere_is_not_fetched(tmp_path: Path) -> None:
    path = tmp_path / "a.xml"
    path.write_text('<!DOCTYPE annotation SYSTEM "http://localhost:9/a.dtd"><annotation/>')
    assert parse_annotation(path).tag == "annotation"


def test_xml_that_is_deep_or_wide(tmp_path: Path) -> None:
    path = tmp_path / "a.xml"
    path.write_text(f"<annotation>{'<a>' * 30_000}{'</a>' * 30_000}</annotation>")
    assert parse_annotation(path).tag == "annotation"
    attributes = " ".join(f"a{number}='1'" for number in range(10_000))
    path.write_text(f"<annotation {attributes}/>")
    assert parse_annotation(path).tag == "annotation"
