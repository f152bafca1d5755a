"""The quick way for JPEGs gives Pillow's pixels or leaves the file to Pillow."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image, ImageOps

from ssd_lightning.data.images import choose_reduction, read_image, reduced_size_px
from ssd_lightning.data.jpeg import Frame, decode_plain_jpeg, read_frame
from ssd_lightning.errors import DataError

ORIENTATION_TAG = 0x0112


def photo(height: int = 60, width: int = 90) -> Image.Image:
    noise = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    smooth = cv2.GaussianBlur(noise, (0, 0), 3).astype(float)
    return Image.fromarray(((smooth - smooth.min()) / np.ptp(smooth) * 255).astype(np.uint8))


def by_pillow(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.array(image.convert("RGB"))


@pytest.mark.parametrize("size", [(37, 51), (1, 3)])
@pytest.mark.parametrize(
    ("mode", "subsampling", "progressive"),
    [("RGB", 0, False), ("RGB", 1, True), ("RGB", 2, False), ("RGB", 2, True), ("L", 0, False), ("L", 0, True)],
)
def test_plain_jpegs_come_out_as_from_pillow(tmp_path, mode, subsampling, progressive, size):
    path = tmp_path / "plain.jpg"
    photo(*size).convert(mode).save(path, quality=85, subsampling=subsampling, progressive=progressive)

    pixels = decode_plain_jpeg(path, size)

    assert pixels is not None
    assert np.abs(pixels.astype(int) - by_pillow(path)).max() <= 1
    assert pixels.flags.c_contiguous
    assert pixels.flags.writeable
    np.testing.assert_array_equal(read_image(path), pixels)


def with_orientation(path: Path, orientation: int) -> Path:
    exif = Image.Exif()
    exif[ORIENTATION_TAG] = orientation
    photo().save(path, exif=exif, quality=95)
    return path


@pytest.mark.parametrize("orientation", [1, 3, 6])
def test_the_size_decides_about_orientation_as_for_other_formats(tmp_path, orientation):
    path = with_orientation(tmp_path / "phone.jpg", orientation)
    stored = by_pillow(path)
    with Image.open(path) as image:
        upright = np.array(ImageOps.exif_transpose(image))

    # The size of an image that is mirrored or upside down is the same upright, and upright it is read.
    keeps_size = orientation in (2, 3, 4)
    assert (decode_plain_jpeg(path, (60, 90)) is None) == keeps_size
    assert decode_plain_jpeg(path, None) is None
    expected = upright if keeps_size else stored
    assert np.abs(read_image(path, (60, 90)).astype(int) - expected).max() <= 1
    np.testing.assert_array_equal(read_image(path), upright)
    if orientation >= 5:
        np.testing.assert_array_equal(read_image(path, (90, 60)), upright)
    with pytest.raises(DataError, match="annotation says 20 x 10"):
        read_image(path, (10, 20))


def test_a_turn_may_be_stated_by_xmp_alone(tmp_path):
    path = tmp_path / "edited.jpg"
    photo().save(path, quality=95, xmp=b'<x:xmpmeta><rdf:Description tiff:Orientation="3"/></x:xmpmeta>')
    for size_px in (None, (60, 90)):
        assert np.abs(read_image(path, size_px).astype(int) - by_pillow(path)[::-1, ::-1]).max() <= 1


def test_what_is_not_plain_is_left_to_pillow(tmp_path):
    whole = tmp_path / "whole.jpg"
    photo().save(whole)
    data = whole.read_bytes()
    files = {
        "cmyk": lambda path: photo().convert("CMYK").save(path, "jpeg"),
        "png": lambda path: photo().save(path, "png"),
        "truncated": lambda path: path.write_bytes(data[: len(data) // 2]),
        "last byte": lambda path: path.write_bytes(data[:-1]),
        "padded": lambda path: path.write_bytes(data + b"\0\0"),
        "header alone": lambda path: path.write_bytes(data[:2] + data[-2:]),
        "no scan": lambda path: path.write_bytes(data[: data.index(b"\xff\xc0")] + data[-2:]),
        "twelve bits": lambda path: path.write_bytes(data.replace(b"\xff\xc0\x00\x11\x08", b"\xff\xc0\x00\x11\x0c")),
        "arithmetic": lambda path: path.write_bytes(data.replace(b"\xff\xc0", b"\xff\xc9")),
        "empty": lambda path: path.write_bytes(b""),
        "missing": lambda path: None,
        "folder": lambda path: path.mkdir(),
    }
    for name, write in files.items():
        path = tmp_path / name
        write(path)
        assert decode_plain_jpeg(path, None) is None, name
        assert decode_plain_jpeg(path, (60, 90)) is None, name
    assert decode_plain_jpeg(whole, (90, 60)) is None
    np.testing.assert_array_equal(read_image(tmp_path / "padded"), by_pillow(whole))


@pytest.mark.parametrize(("cut", "progressive"), [(0.5, True), (0.999, False)])
def test_a_truncated_jpeg_never_gives_an_image(tmp_path, cut, progressive):
    path = tmp_path / "half.jpg"
    photo(200, 300).save(path, quality=95, progressive=progressive)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * cut)])
    for size in (None, (200, 300)):
        for reduction in (1, 2):
            with pytest.raises(DataError, match=r"half\.jpg"):
                read_image(path, size, reduction=reduction)


def test_the_header_is_read_past_fill_bytes_and_other_segments():
    other = b"\xff\xe0\x00\x04ab" + b"\xff\xe1\x00\x08Exif\0\0"
    frame = b"\xff\xff\xff\xc2\x00\x11\x08\x01\x02\x03\x04\x03" + bytes(9)
    assert read_frame(b"\xff\xd8" + other + frame) == Frame((0x0102, 0x0304), 3, exif=b"Exif\0\0")
    assert read_frame(b"\xff\xd8" + frame) == Frame((0x0102, 0x0304), 3, exif=None)
    assert read_frame(b"\xff\xd8\x00" + frame) is None
    assert read_frame(b"\xff\xd8") is None


@pytest.mark.parametrize(("suffix", "reduction"), [(".jpg", 2), (".jpg", 8), (".png", 2)])
def test_reduced_images_look_as_the_full_ones_shrunk(tmp_path, suffix, reduction):
    size = (957, 1273)
    path = tmp_path / f"large{suffix}"
    photo(120, 160).resize(size[::-1], Image.Resampling.BICUBIC).save(path, quality=95, compress_level=1)

    reduced = read_image(path, size, reduction=reduction)

    assert reduced.shape[:2] == reduced_size_px(size, reduction)
    # To the input of a network, a third of the reduced image's sides.
    target = (reduced.shape[1] // 3, reduced.shape[0] // 3)
    small = [cv2.resize(image, target, interpolation=cv2.INTER_AREA) for image in (reduced, read_image(path, size))]
    difference = np.abs(small[0].astype(float) - small[1]).mean()
    assert difference < 3  # up to 7 of the 1273 columns are a last, partial one
    assert np.abs(small[0][:, ::-1].astype(float) - small[1]).mean() > 10 * difference


def test_reduced_images_are_turned_too(tmp_path):
    path = with_orientation(tmp_path / "phone.jpg", 6)
    upright = read_image(path, (90, 60))
    reduced = read_image(path, (90, 60), reduction=2)
    assert reduced.shape == (45, 30, 3)
    shrunk = cv2.resize(upright, (30, 45), interpolation=cv2.INTER_AREA)
    assert np.abs(reduced.astype(float) - shrunk).mean() < 2


@pytest.mark.parametrize(
    ("size_px", "least_px", "expected"),
    [
        ((375, 500), (900, 900), 1),
        ((1799, 4000), (900, 900), 1),
        ((1800, 4000), (900, 900), 2),
        ((100_000, 100_000), (900, 900), 8),
        ((960, 2000), (240, 960), 2),
    ],
)
def test_the_reduction_leaves_both_sides_large_enough(size_px, least_px, expected):
    assert choose_reduction(size_px, least_px) == expected
