"""Images of every kind come out as the RGB that was put in; broken files give one sentence."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from ssd_lightning.data.images import image_size_px, read_image
from ssd_lightning.errors import DataError

ORIENTATION_TAG = 0x0112


def gradient(height: int = 24, width: int = 40) -> np.ndarray:
    """Different in every corner and channel, so that turns, flips and swaps of channels show."""
    rows, columns = np.mgrid[0:height, 0:width]
    return np.stack([rows * 10, columns * 6, 255 - rows * 5 - columns * 3], axis=-1).astype(np.uint8)


def save_with_orientation(path: Path, pixels: np.ndarray, orientation: int) -> Path:
    image = Image.fromarray(pixels)
    exif = Image.Exif()
    exif[ORIENTATION_TAG] = orientation
    image.save(path, exif=exif)
    return path


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif", ".ppm", ".webp"])
def test_lossless_rgb_comes_back_exactly(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"image{suffix}"
    Image.fromarray(gradient()).save(path, lossless=True)

    pixels = read_image(path, (24, 40))

    np.testing.assert_array_equal(pixels, gradient())
    assert pixels.dtype == np.uint8
    assert pixels.flags.c_contiguous
    assert pixels.flags.writeable
    assert image_size_px(path) == (24, 40)


def test_the_first_image_of_a_camera_with_several_in_one_jpeg(tmp_path: Path) -> None:
    path = tmp_path / "stereo.jpg"
    first, second = Image.new("RGB", (32, 16), "red"), Image.new("RGB", (32, 16), "blue")
    first.save(path, "MPO", save_all=True, append_images=[second])

    assert read_image(path)[8, 8].tolist() == pytest.approx([255, 0, 0], abs=3)


def test_grey_is_repeated(tmp_path: Path) -> None:
    path = tmp_path / "grey.png"
    grey = gradient()[..., 1]
    Image.fromarray(grey).save(path)

    np.testing.assert_array_equal(read_image(path), np.stack([grey] * 3, axis=-1))


def test_one_bit_is_black_and_white(tmp_path: Path) -> None:
    path = tmp_path / "bits.png"
    bits = gradient()[..., 0] > 100
    Image.fromarray(bits).save(path)

    np.testing.assert_array_equal(read_image(path)[..., 2], np.where(bits, 255, 0))


def test_sixteen_bit_grey_is_scaled_not_clipped(tmp_path: Path) -> None:
    path = tmp_path / "deep.png"
    grey = np.array([[0, 128, 129, 257, 32768, 65278, 65535]], dtype=np.uint16)
    Image.fromarray(grey).save(path)

    pixels = read_image(path, (1, 7))

    np.testing.assert_array_equal(pixels[0, :, 0], [0, 0, 1, 1, 128, 254, 255])
    assert (pixels == pixels[..., :1]).all()


def test_palette_gives_its_colours(tmp_path: Path) -> None:
    path = tmp_path / "palette.png"
    image = Image.fromarray(np.array([[0, 1, 2]], dtype=np.uint8), mode="P")
    image.putpalette([255, 0, 0, 0, 128, 0, 0, 0, 64])
    image.save(path)

    np.testing.assert_array_equal(read_image(path)[0], [[255, 0, 0], [0, 128, 0], [0, 0, 64]])


def test_cmyk_jpeg_is_not_inverted(tmp_path: Path) -> None:
    path = tmp_path / "print.jpg"
    Image.new("CMYK", (16, 16), (0, 255, 255, 0)).save(path, quality=95)  # no cyan: red

    red, green, blue = read_image(path)[8, 8].astype(int)

    assert red > 230
    assert max(green, blue) < 40


@pytest.mark.parametrize("mode", ["RGBA", "LA", "PA"])
def test_transparent_pixels_are_white_and_opaque_ones_unchanged(tmp_path: Path, mode: str) -> None:
    path = tmp_path / "glass.png"
    if mode == "PA":  # a palette with a transparent entry
        image = Image.fromarray(np.array([[0, 1]], dtype=np.uint8), mode="P")
        image.putpalette([40, 40, 40, 40, 40, 40])
        image.save(path, transparency=b"\xff\x00")
    else:
        image = Image.new("RGBA", (2, 1), (40, 40, 40, 255))
        image.putpixel((1, 0), (40, 40, 40, 0))
        image.convert(mode).save(path)

    np.testing.assert_array_equal(read_image(path)[0], [[40, 40, 40], [255, 255, 255]])


def test_half_transparent_is_half_white(tmp_path: Path) -> None:
    path = tmp_path / "glass.png"
    Image.new("RGBA", (1, 1), (0, 100, 200, 51)).save(path)  # alpha 1/5

    np.testing.assert_array_equal(read_image(path)[0, 0], [204, 224, 244])


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_turns_what_is_predicted_on(tmp_path: Path, orientation: int) -> None:
    path = save_with_orientation(tmp_path / "phone.png", gradient(), orientation)
    with Image.open(path) as image:
        upright = np.asarray(ImageOps.exif_transpose(image))

    np.testing.assert_array_equal(read_image(path), upright)
    assert (upright.shape[:2] == (40, 24)) == (orientation >= 5)
    assert image_size_px(path) == upright.shape[:2]
    assert image_size_px(path, upright=False) == (24, 40)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif"])
@pytest.mark.parametrize("shape", [(24, 40), (32, 32)])
@pytest.mark.parametrize("orientation", [3, 5, 6])
def test_the_size_of_the_header_reads_the_upright_pixels(
    tmp_path: Path, suffix: str, shape: tuple[int, int], orientation: int
) -> None:
    path = save_with_orientation(tmp_path / f"phone{suffix}", gradient(*shape), orientation)

    upright = read_image(path)
    # A turn of half a circle, a mirror or a square image keeps the size; what is predicted on is what is trained on.
    np.testing.assert_array_equal(read_image(path, image_size_px(path)), upright)
    turned = np.abs(upright.astype(int)[:8, :8].mean(axis=(0, 1)) - gradient(*shape)[:8, :8].mean(axis=(0, 1))).max()
    assert (turned > 20) == (orientation not in (1, 5))


@pytest.mark.parametrize("orientation", [1, 6])
def test_annotated_pixels_are_as_stored_where_the_size_says_so(tmp_path: Path, orientation: int) -> None:
    path = save_with_orientation(tmp_path / "phone.png", gradient(), orientation)

    np.testing.assert_array_equal(read_image(path, (24, 40)), gradient())


def test_annotated_pixels_are_turned_where_the_size_says_so(tmp_path: Path) -> None:
    path = save_with_orientation(tmp_path / "phone.png", gradient(), 6)  # 6: turn a quarter clockwise

    np.testing.assert_array_equal(read_image(path, (40, 24)), np.rot90(gradient(), -1))


@pytest.mark.parametrize("orientation", [1, 6])
def test_another_size_than_the_annotation_says(tmp_path: Path, orientation: int) -> None:
    path = save_with_orientation(tmp_path / "phone.png", gradient(), orientation)

    with pytest.raises(DataError, match=r"phone\.png: .* 40 x 24 px .* annotation says 30 x 20 px"):
        read_image(path, (20, 30))


def test_turned_size_without_an_exif_tag_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "plain.png"
    Image.fromarray(gradient()).save(path)

    with pytest.raises(DataError, match="annotation says 24 x 40 px"):
        read_image(path, (40, 24))


def truncated_jpeg(path: Path) -> None:
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (100, 100, 3), dtype=np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def damaged_png(path: Path) -> None:
    Image.fromarray(gradient()).save(path, "PNG")
    data = path.read_bytes()
    path.write_bytes(data[:60] + bytes(byte ^ 0xFF for byte in data[60:200]) + data[200:])


def truncated_png(path: Path) -> None:
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (100, 100, 3), dtype=np.uint8)).save(path, "png")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize(
    ("write", "cause"),
    [
        (truncated_jpeg, "truncated"),
        (truncated_png, "cannot read the image"),
        (damaged_png, "cannot read the image"),
        (lambda path: path.write_bytes(b""), r"empty \(0 bytes\)"),
        (lambda path: path.write_text("\n<!DOCTYPE html><html>404</html>"), "HTML"),
        (lambda path: path.write_bytes(bytes(range(256))), "no image in a known format"),
        (
            lambda path: path.write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"),
            "no image in a known",
        ),
        (lambda path: path.mkdir(), "directory"),
        (lambda path: None, "No such file"),
        (lambda path: Image.new("F", (4, 4)).save(path, "tiff"), "floating-point"),
        (
            lambda path: Image.fromarray(np.full((2, 2), 70_000, np.int32)).save(path, "tiff"),
            "beyond 16 bits",
        ),
    ],
)
def test_a_broken_file_is_named_with_its_cause_in_one_line(tmp_path: Path, write: object, cause: str) -> None:
    path = tmp_path / "broken.jpg"
    write(path)  # type: ignore[operator]

    with pytest.raises(DataError, match=cause) as caught:
        read_image(path)

    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert message.count(str(path)) == 1
    assert "\n" not in message


def test_a_path_may_be_text(tmp_path: Path) -> None:
    for name in ("image.jpg", "image.png"):
        Image.new("RGB", (8, 6), "red").save(tmp_path / name)
        assert np.array_equal(read_image(str(tmp_path / name)), read_image(tmp_path / name))
