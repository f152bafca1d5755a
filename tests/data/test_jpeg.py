"""The quick way for JPEGs gives Pillow's pixels or leaves the file to Pillow."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from helpers.pixels import save_turned, soft_noise
from ssd_lightning.data.images import choose_reduction, read_image, reduced_size_px
from ssd_lightning.data.jpeg import Frame, decode_plain_jpeg, read_frame
from ssd_lightning.errors import DataError


def photo(height: int = 60, width: int = 90) -> Image.Image:
    return Image.fromarray(soft_noise(height, width))


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


@pytest.mark.parametrize("orientation", [1, 3, 6])
def test_a_jpeg_that_is_turned_is_not_plain(tmp_path, orientation):
    """Unless its stored pixels have the size, and the upright image has another."""
    path = save_turned(tmp_path / "phone.jpg", soft_noise(60, 90), orientation)
    assert (decode_plain_jpeg(path, (60, 90)) is None) == (orientation == 3)
    assert decode_plain_jpeg(path, None) is None


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
        "truncated": data[: len(data) // 2],
        "last byte": data[:-1],
        "padded": data + b"\0\0",
        "header alone": data[:2] + data[-2:],
        "no scan": data[: data.index(b"\xff\xc0")] + data[-2:],
        "twelve bits": data.replace(b"\xff\xc0\x00\x11\x08", b"\xff\xc0\x00\x11\x0c"),
        "arithmetic": data.replace(b"\xff\xc0", b"\xff\xc9"),
        "empty": b"",
        "missing": lambda path: None,
        "folder": Path.mkdir,
    }
    for name, content in files.items():
        path = tmp_path / name
        content(path) if callable(content) else path.write_bytes(content)
        assert decode_plain_jpeg(path, None) is decode_plain_jpeg(path, (60, 90)) is None, name
    assert decode_plain_jpeg(whole, (90, 60)) is None
    np.testing.assert_array_equal(read_image(tmp_path / "padded"), by_pillow(whole))


@pytest.mark.parametrize(("cut", "progressive"), [(0.5, True), (0.999, False)])
@pytest.mark.parametrize(("size", "reduction"), [(None, 1), ((200, 300), 2)])
def test_a_truncated_jpeg_never_gives_an_image(tmp_path, cut, progressive, size, reduction):
    path = tmp_path / "half.jpg"
    photo(200, 300).save(path, quality=95, progressive=progressive)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * cut)])
    with pytest.raises(DataError, match=r"half\.jpg"):
        read_image(path, size, reduction=reduction)


def test_the_header_is_read_past_fill_bytes_and_other_segments():
    other = b"\xff\xe0\x00\x04ab" + b"\xff\xe1\x00\x08Exif\0\0"
    frame = b"\xff\xff\xff\xc2\x00\x11\x08\x01\x02\x03\x04\x03" + bytes(9)
    assert read_frame(b"\xff\xd8" + other + frame) == Frame((0x0102, 0x0304), 3, exif=b"Exif\0\0")
    assert read_frame(b"\xff\xd8\x00" + frame) is None


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
    path = save_turned(tmp_path / "phone.jpg", soft_noise(60, 90), 6, quality=95)
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
