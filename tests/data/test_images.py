"""Images of every kind come out as the RGB that was put in; broken files give one sentence."""

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from helpers.datasets import annotation
from helpers.pixels import noise, save_turned
from ssd_lightning.analysis.dataset_check.splits import inspect_images
from ssd_lightning.data import images
from ssd_lightning.data.image_io import as_rgb
from ssd_lightning.data.image_suffixes import FORMAT_OF_SUFFIX
from ssd_lightning.data.images import image_format, image_size_px, read_image
from ssd_lightning.data.writing import write_as_png
from ssd_lightning.errors import DataError
from ssd_lightning.inference.sources import find_images


def gradient(height: int = 24, width: int = 40) -> np.ndarray:
    """Different in every corner and channel, so that turns, flips and swaps of channels show."""
    rows, columns = np.mgrid[0:height, 0:width]
    return np.stack([rows * 10, columns * 6, 255 - rows * 5 - columns * 3], axis=-1).astype(np.uint8)


def by_pillow(content: str, mode: str = "RGB", **settings: object) -> Callable[[Path], None]:
    """With `save_all=True`, a second, blue frame follows."""

    def write(path: Path) -> None:
        others = {"append_images": [Image.new("RGB", (40, 24), "blue")]} if "save_all" in settings else {}
        Image.fromarray(gradient()).convert(mode).save(path, content, **settings, **others)

    return write


def by_opencv(scale: float, dtype: type = np.uint8) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        assert cv2.imwrite(str(path), gradient()[..., ::-1].astype(dtype) * dtype(scale))

    return write


def photoshop(path: Path) -> None:
    header = b"8BPS" + struct.pack(">H6xHIIHH", 1, 3, 24, 40, 8, 3)
    path.write_bytes(header + bytes(12) + bytes(2) + gradient().transpose(2, 0, 1).tobytes())


ZOO = {  # file -> how it is written, and the largest difference that its compression makes
    "png_named.jpg": (by_pillow("PNG"), 0),
    "jpeg_named.png": (by_pillow("JPEG", quality=95), 12),
    "without": (by_pillow("PNG"), 0),
    "UPPER.JPG": (by_pillow("JPEG", quality=95), 12),
    "print.jpg": (by_pillow("JPEG", "CMYK", quality=95), 2),
    "print.tif": (by_pillow("TIFF", "CMYK"), 0),
    "stereo.mpo": (by_pillow("MPO", quality=95, save_all=True), 12),
    "frames.gif": (by_pillow("GIF", save_all=True), 14),
    "frames.apng": (by_pillow("PNG", save_all=True), 0),
    "frames.webp": (by_pillow("WEBP", lossless=True, save_all=True), 0),
    "frames.avifs": (by_pillow("AVIF", quality=90, save_all=True), 20),
    "pages.tiff": (by_pillow("TIFF", save_all=True), 0),
    "lzw.tif": (by_pillow("TIFF", compression="tiff_lzw"), 0),
    "deep.png": (by_opencv(257, np.uint16), 0),
    "deep.tif": (by_opencv(257, np.uint16), 0),
    "deep.ppm": (by_opencv(257, np.uint16), 0),
    "light.hdr": (by_opencv(1 / 255, np.float32), 1),
    "sun.ras": (by_opencv(1), 0),
    "layers.psd": (photoshop, 0),
    "rle.tga": (by_pillow("TGA", compression="tga_rle"), 0),
    "icon.ico": (by_pillow("ICO", sizes=[(40, 24)]), 0),
    **{f"a.{name}": (by_pillow(name), 0) for name in ("BMP", "DIB", "PPM", "PCX", "DDS", "QOI", "SGI", "TGA")},
    "wavelet.jp2": (by_pillow("JPEG2000"), 0),
    "phone.heic": (by_pillow("HEIF", quality=95), 20),
}


@pytest.mark.parametrize("name", ZOO)
def test_every_way_to_read_a_file_gives_the_pixels_that_its_content_has(tmp_path: Path, name: str) -> None:
    write, tolerance = ZOO[name]
    path = tmp_path / name
    if name.endswith(".heic"):
        pytest.importorskip("pillow_heif")
    write(path)

    pixels = read_image(path)

    assert np.abs(pixels.astype(int) - gradient()).max() <= tolerance
    assert pixels.dtype == np.uint8
    assert pixels.flags.c_contiguous
    assert pixels.flags.writeable
    size_px = image_size_px(path)
    assert size_px == (24, 40)
    np.testing.assert_array_equal(read_image(path, size_px), pixels)  # training, evaluation
    np.testing.assert_array_equal(as_rgb(str(path)), pixels)  # detector
    with Image.open(path) as image:
        np.testing.assert_array_equal(as_rgb(image), pixels)
    misnamed = {"png_named.jpg": "PNG", "jpeg_named.png": "JPEG", "without": "PNG"}
    assert image_format(path) == (misnamed.get(name) or FORMAT_OF_SUFFIX[path.suffix.lower()])
    write_as_png(path, tmp_path / "written.png", size_px)  # conversion
    files = [path, tmp_path / "written.png"]
    facts = inspect_images([annotation(file, size_px=size_px) for file in files]).values()  # doctor
    assert len({each.digest for each in facts}) == 1
    assert [each.problem for each in facts] == [None, None]
    if path.suffix:
        assert find_images(str(tmp_path)) == sorted(files)


def test_the_zoo_has_every_format_of_the_table() -> None:
    suffixes = {Path(name).suffix.lower() for name in ZOO}
    assert {FORMAT_OF_SUFFIX[suffix] for suffix in suffixes if suffix} == {*FORMAT_OF_SUFFIX.values()}


def of_palette(*colours: tuple[int, int, int]) -> Image.Image:
    image = Image.fromarray(np.arange(len(colours), dtype=np.uint8)[None], mode="P")
    image.putpalette([level for colour in colours for level in colour])
    return image


def glass(mode: str, alphas: tuple[int, ...] = (255, 0)) -> Image.Image:
    return Image.fromarray(np.array([[(40, 40, 40, alpha) for alpha in alphas]], np.uint8)).convert(mode)


@pytest.mark.parametrize(
    ("image", "settings", "expected"),
    [
        (Image.fromarray(np.array([[True, False]])), {}, [[255] * 3, [0] * 3]),
        (  # 16-bit grey is scaled, not clipped
            Image.fromarray(np.array([[0, 128, 129, 257, 32768, 65278, 65535]], dtype=np.uint16)),
            {},
            [[grey] * 3 for grey in (0, 0, 1, 1, 128, 254, 255)],
        ),
        (of_palette((255, 0, 0), (0, 128, 0), (0, 0, 64)), {}, [[255, 0, 0], [0, 128, 0], [0, 0, 64]]),
        (of_palette((40, 40, 40), (40, 40, 40)), {"transparency": b"\xff\x00"}, [[40] * 3, [255] * 3]),
        (glass("RGBA"), {}, [[40] * 3, [255] * 3]),
        (glass("LA"), {}, [[40] * 3, [255] * 3]),
        (glass("RGBA", (51,)), {}, [[212] * 3]),  # 1/5
    ],
    ids=["1 bit", "16 bits", "palette", "transparent entry", "RGBA", "LA", "half transparent"],
)
def test_pixels_of_every_mode_are_what_a_viewer_shows_on_white(
    tmp_path: Path, image: Image.Image, settings: dict[str, bytes], expected: list[list[int]]
) -> None:
    path = tmp_path / "image.png"
    image.save(path, **settings)

    np.testing.assert_array_equal(read_image(path, (1, len(expected)))[0], expected)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif", ".webp", ".avif", ".heic"])
@pytest.mark.parametrize("shape", [(24, 40), (32, 32)])
def test_images_are_upright_with_and_without_the_size_of_their_header(
    tmp_path: Path, suffix: str, shape: tuple[int, int]
) -> None:
    if suffix == ".heic":
        pytest.importorskip("pillow_heif")
    stored = gradient(*shape)
    across = stored.swapaxes(0, 1)
    turned = [stored, stored[:, ::-1], stored[::-1, ::-1], stored[::-1]]
    turned += [across, across[:, ::-1], across[::-1, ::-1], across[::-1]]
    for orientation, upright in enumerate(turned, start=1):
        path = save_turned(tmp_path / f"phone{orientation}{suffix}", stored, orientation)
        pixels = read_image(path)
        assert pixels.shape == upright.shape
        assert np.abs(pixels.astype(int) - upright).mean() < (1e-9 if suffix in (".png", ".tif") else 10), orientation
        # A turn of half a circle or a square image keeps the size; what is predicted on is what is trained on.
        assert image_size_px(path) == upright.shape[:2]
        np.testing.assert_array_equal(read_image(path, image_size_px(path)), pixels)
        with Image.open(path) as image:
            np.testing.assert_array_equal(as_rgb(image), pixels)


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
@pytest.mark.parametrize("orientation", [1, 6])
def test_annotated_pixels_are_as_stored_where_the_size_says_so(tmp_path: Path, orientation: int, suffix: str) -> None:
    path = save_turned(tmp_path / f"phone{suffix}", gradient(), orientation)
    assert np.abs(read_image(path, (24, 40)).astype(int) - gradient()).mean() < (10 if suffix == ".jpg" else 1e-9)
    assert image_size_px(path, upright=False) == (24, 40)
    other = (20, 30) if orientation == 6 else (40, 24)
    with pytest.raises(DataError, match=rf"phone{suffix}: .* 40 x 24 px.* annotation says {other[1]} x {other[0]} px"):
        read_image(path, other)


FLOAT_TIFF = cv2.imencode(".tiff", np.zeros((4, 4, 3), np.float32))[1].tobytes()
RADIANCE = b"#?RADIANCE\nFORMAT=32-bit_rle_rgbe\n\n-Y %d +X %d\n"


def truncated(content: str) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        Image.fromarray(noise(100, 100)).save(path, content)
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])

    return write


def damaged_png(path: Path) -> None:
    Image.fromarray(gradient()).save(path, "PNG")
    data = path.read_bytes()
    path.write_bytes(data[:60] + bytes(byte ^ 0xFF for byte in data[60:200]) + data[200:])


@pytest.mark.parametrize(
    ("content", "cause"),
    [
        (truncated("jpeg"), "truncated"),
        (truncated("png"), "cannot read the image"),
        (damaged_png, "cannot read the image"),
        (b"", r"empty \(0 bytes\)"),
        (b"\n<!DOCTYPE html><html>404</html>", "HTML"),
        (bytes(range(256)), "not an image in a known format"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not an image in a known"),
        (Path.mkdir, "directory"),
        (lambda path: None, "No such file"),
        (lambda path: Image.new("F", (4, 4)).save(path, "tiff"), "its pixels are floating-point .*save them as .png"),
        (FLOAT_TIFF, "a damaged TIFF, or one whose pixels are floating-point"),
        (b"PF\n4 4\n-1.0\n" + bytes(192), "a PFM image whose pixels are floating-point"),
        (b"v/1\x01\x02\0\0\0channels\0", "an EXR image whose pixels are floating-point"),
        (lambda path: Image.fromarray(np.full((2, 2), 70_000, np.int32)).save(path, "tiff"), "beyond 16 bits"),
        (lambda path: Image.new("RGB", (4, 4)).save(path, "tiff", tiffinfo={254: 1}), "preview, as in camera raw"),
        (RADIANCE % (24, 40) + b"\x02\x02\x00", "truncated or damaged"),
        (RADIANCE % (20_000, 20_000), "decompression bomb.*tiles"),
        (b"version https://git-lfs.github.com/spec/v1\noid 0000\n", "git lfs pull"),
    ],
)
def test_a_broken_file_is_named_with_its_cause_in_one_line(tmp_path: Path, content: Any, cause: str) -> None:
    path = tmp_path / "broken.jpg"
    content(path) if callable(content) else path.write_bytes(content)
    with pytest.raises(DataError, match=cause) as caught:
        read_image(path)

    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert message.count(str(path)) == 1
    assert "\n" not in message


def test_a_heic_image_names_the_extra_that_reads_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "_MISSING", {"HEIF"})
    monkeypatch.setattr(images, "FORMATS", tuple(name for name in images.FORMATS if name != "HEIF"))
    path = tmp_path / "phone.jpg"
    path.write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(99))
    for read in (read_image, image_size_px):
        with pytest.raises(DataError, match=r"phone\.jpg: .*HEIC.*pip install 'ssd-lightning\[heic\]'"):
            read(path)
