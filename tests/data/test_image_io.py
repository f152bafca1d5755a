import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from helpers.pixels import noise
from ssd_lightning.data.image_io import as_rgb, as_sequence
from ssd_lightning.data.images import read_image
from ssd_lightning.errors import DataError

RGB = noise(6, 9)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr", "HSV", "I;16", "I"])
def test_pil_images_of_any_mode_are_read_as_files_are(tmp_path: Path, mode: str) -> None:
    image = Image.fromarray(RGB)
    image = image.convert("L").convert("I").convert(mode) if mode.startswith("I") else image.convert(mode)
    found = as_rgb(image)
    assert (found.shape, found.dtype) == ((6, 9, 3), np.uint8)
    suffix = {"CMYK": ".tif", "YCbCr": None, "I": ".tif", "HSV": None, "PA": None}.get(mode, ".png")
    if suffix:
        image.save(tmp_path / f"saved{suffix}")
        np.testing.assert_array_equal(found, read_image(tmp_path / f"saved{suffix}"))


def test_transparent_pixels_are_white_whatever_the_form(tmp_path: Path) -> None:
    rgba = np.dstack([RGB, np.zeros((6, 9), np.uint8)])
    Image.fromarray(rgba, "RGBA").save(tmp_path / "clear.png")
    forms = [tmp_path / "clear.png", Image.open(tmp_path / "clear.png"), rgba, torch.from_numpy(rgba).permute(2, 0, 1)]
    for form in forms:
        np.testing.assert_array_equal(as_rgb(form), np.full((6, 9, 3), 255))


def test_grey_is_repeated_and_an_array_that_is_right_already_is_not_copied() -> None:
    grey = RGB[..., 0]
    for form in (grey, grey[..., None], torch.from_numpy(grey)[None], Image.fromarray(grey)):
        np.testing.assert_array_equal(as_rgb(form), np.repeat(grey[..., None], 3, axis=2))
    assert np.shares_memory(as_rgb(RGB), RGB)
    turned = as_rgb(RGB[::-1])
    assert turned.flags.c_contiguous
    np.testing.assert_array_equal(turned, RGB[::-1])


@pytest.mark.parametrize(
    ("image", "answer"),
    [
        (RGB.astype(np.float32) / 255, r"an array is uint8, 0\.\.255, got float32: convert values of 0\.\.1"),
        (RGB.astype(np.uint16), "got uint16"),
        (torch.rand(3, 6, 9), r"a tensor is uint8, 0\.\.255, got float32"),
        (np.moveaxis(RGB, 2, 0), r"as an array is \[H, W, 3\], got \[3, 6, 9\]"),
        (torch.from_numpy(RGB), r"as a tensor is \[3, H, W\], got \[6, 9, 3\]"),
        (RGB[:0], r"got \[0, 9, 3\]"),
        (np.zeros((2, 2, 2), np.uint8), r"got \[2, 2, 2\]"),
        (np.uint8(3), "not a uint8"),
        (None, "not a NoneType"),
    ],
)
def test_what_is_no_image_is_refused_in_one_sentence(image: object, answer: str) -> None:
    with pytest.raises(DataError, match=answer):
        as_rgb(image)  # type: ignore[arg-type]


def test_a_damaged_pil_image_is_refused_in_one_sentence() -> None:
    stream = io.BytesIO()
    Image.fromarray(np.tile(RGB, (20, 20, 1))).save(stream, "JPEG")
    cut_off = Image.open(io.BytesIO(stream.getvalue()[:2000]))
    with pytest.raises(DataError, match=r"cannot read the image: .*truncated"):
        as_rgb(cut_off)


def test_one_image_and_many() -> None:
    assert as_sequence("a.jpg") == (["a.jpg"], True)
    assert as_sequence(Path("a.jpg")) == ([Path("a.jpg")], True)
    assert as_sequence(RGB)[1]
    assert as_sequence([]) == ([], False)
    assert as_sequence(["a.jpg"]) == (["a.jpg"], False)
    assert len(as_sequence(np.stack([RGB, RGB]))[0]) == 2
    for given in (None, 3, {"a.jpg"}):
        with pytest.raises(DataError, match="neither an image nor a list of images"):
            as_sequence(given)  # type: ignore[arg-type]
