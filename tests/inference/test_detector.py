import random
from collections.abc import Callable
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from helpers.tiny_nets import tiny_net
from ssd_lightning.data.images import read_image
from ssd_lightning.data.resize import Letterbox, Stretch
from ssd_lightning.errors import ConfigurationError, WeightsError
from ssd_lightning.inference.checkpoints import find_checkpoint, fitting_weights
from ssd_lightning.inference.detector import Detector
from ssd_lightning.inference.results import ImageDetections
from ssd_lightning.models.files import read_checkpoint
from ssd_lightning.models.postprocess import PostProcess
from ssd_lightning.ops.normalization import SUBTRACT_MEAN_BGR

CLASS_NAMES = ("circle", "square", "star")
three_classes = partial(tiny_net, num_classes=3)


@pytest.fixture
def detector() -> Detector:
    postprocess = PostProcess(score_threshold=0.2, max_detections=9)
    made = Detector(three_classes(normalization=SUBTRACT_MEAN_BGR), class_names=CLASS_NAMES, postprocess=postprocess)
    made.data_settings = {"fold": 1}
    return made


@pytest.fixture
def checkpoint(detector: Detector, tmp_path: Path) -> Path:
    detector.save(tmp_path / "tiny.ckpt")
    return tmp_path / "tiny.ckpt"


def noise_images(*sizes: tuple[int, int]) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (*size, 3), dtype=np.uint8) for size in sizes]


def arrays(found: list[ImageDetections]) -> list[tuple[np.ndarray, ...]]:
    """What was found, in the form that `assert_close` compares."""
    return [(detections.boxes_xyxy_px, detections.scores, detections.labels) for detections in found]


def test_saved_and_loaded_it_sees_the_same(detector: Detector, checkpoint: Path) -> None:
    loaded = Detector.load(checkpoint)
    images = noise_images((32, 48), (32, 48))
    found = detector(images)
    assert all(0 < len(detections) <= 9 for detections in found)
    torch.testing.assert_close(arrays(loaded(images)), arrays(found), rtol=0, atol=0)
    assert loaded.class_names == CLASS_NAMES
    assert loaded.postprocess == detector.postprocess
    assert loaded.data_settings == detector.data_settings == {"fold": 1}
    assert not loaded.net.training


def test_a_checkpoint_is_plain(checkpoint: Path) -> None:
    content = torch.load(checkpoint, weights_only=True)
    assert content["detector"]["class_names"] == list(CLASS_NAMES)
    assert all(name.startswith("net.") for name in content["state_dict"])


def test_images_of_any_size(detector: Detector) -> None:
    sizes_px = ((10, 10), (32, 48), (200, 31), (1, 1))
    found = detector(noise_images(*sizes_px))
    assert len(found) == 4
    for detections, (height, width) in zip(found, sizes_px, strict=True):
        assert (detections.boxes_xyxy_px >= 0).all()
        assert (detections.boxes_xyxy_px <= [width, height, width, height]).all()
        assert {1, 2, 3} >= set(detections.labels.tolist())
        assert detections.image.shape == (height, width, 3)
    alone = detector(noise_images((10, 10)))
    torch.testing.assert_close(arrays(alone), arrays(found[:1]))


@pytest.mark.parametrize(("height", "width"), [(100, 300), (300, 100), (7, 2000)])
def test_boxes_are_those_of_the_resized_image_stretched_back(detector: Detector, height: int, width: int) -> None:
    """By hand: the network sees 32 x 48 pixels, of which one is width / 48 by height / 32 of the image's."""
    (image,) = noise_images((height, width))
    seen = cv2.resize(image, (48, 32), interpolation=cv2.INTER_LINEAR)
    (normalised,) = detector.detect(torch.from_numpy(seen).permute(2, 0, 1)[None])
    found = detector(image)
    assert len(found) > 0
    for box_px, (x1, y1, x2, y2) in zip(found.boxes_xyxy_px.tolist(), normalised["boxes"].tolist(), strict=True):
        in_network_px = [x1 * 48, y1 * 32, x2 * 48, y2 * 32]
        factors = [width / 48, height / 32, width / 48, height / 32]
        by_hand = [edge * factor for edge, factor in zip(in_network_px, factors, strict=True)]
        assert box_px == pytest.approx(by_hand, rel=1e-5, abs=1e-4)
    assert found.scores.tolist() == normalised["scores"].tolist()
    assert found.labels.tolist() == normalised["labels"].tolist()
    assert (found.boxes_xyxy_px.dtype, found.scores.dtype, found.labels.dtype) == (np.float32, np.float32, np.int64)


@pytest.mark.parametrize(("height", "width"), [(100, 300), (300, 100), (64, 96)])
def test_letterboxed_boxes_are_those_of_the_original(detector: Detector, height: int, width: int) -> None:
    """By hand: the image lies in the top left corner of 32 x 48 pixels, all of it at one scale."""
    (image,) = noise_images((height, width))
    scale = min(32 / height, 48 / width)
    seen = np.full((32, 48, 3), (123, 117, 104), np.uint8)
    fitted = (round(width * scale), round(height * scale))
    seen[: fitted[1], : fitted[0]] = cv2.resize(image, fitted, interpolation=cv2.INTER_LINEAR)
    (in_input,) = detector.detect(torch.from_numpy(seen).permute(2, 0, 1)[None])
    letterboxing = Detector(
        detector.net,
        class_names=CLASS_NAMES,
        postprocess=detector.postprocess,
        resize=Letterbox(),
    )
    found = letterboxing(image)
    assert len(found) == len(in_input["scores"]) > 0
    factors = np.array([width * 48 / fitted[0], height * 32 / fitted[1]] * 2)
    by_hand = (in_input["boxes"].numpy() * factors).clip(0, [width, height, width, height])
    np.testing.assert_allclose(found.boxes_xyxy_px, by_hand, atol=1e-3)
    assert found.scores.tolist() == in_input["scores"].tolist()


def test_the_resize_mode_is_saved_with_the_detector(detector: Detector, tmp_path: Path) -> None:
    path = tmp_path / "letterbox.ckpt"
    detector.resize = Letterbox(fill=(1, 2, 3))
    detector.save(path)
    assert Detector.load(path).resize == Letterbox(fill=(1, 2, 3))
    content = torch.load(path, weights_only=True)
    del content["detector"]["resize"]  # as older checkpoints are
    torch.save(content, path)
    assert Detector.load(path).resize == Stretch()
    content["detector"]["resize"] = {"kind": "crop"}
    torch.save(content, path)
    with pytest.raises(WeightsError, match=r"letterbox\.ckpt: resize is {'kind': 'crop'}; it can be"):
        Detector.load(path)


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_a_image_in_any_form_gives_the_same(detector: Detector, tmp_path: Path, suffix: str) -> None:
    (image,) = noise_images((90, 130))
    path = tmp_path / f"image{suffix}"
    Image.fromarray(image).save(path)
    pixels = read_image(path)
    tensor = torch.from_numpy(pixels).permute(2, 0, 1)
    forms = [path, str(path), Image.open(path), Image.fromarray(pixels), pixels, pixels[:, ::-1][:, ::-1], tensor]
    mixed = detector(forms)
    torch.testing.assert_close(arrays(mixed), arrays(mixed[:1] * len(forms)), rtol=0, atol=0)
    for form in forms:  # one alone is no list
        torch.testing.assert_close(arrays([detector(form)]), arrays(mixed[:1]))
    assert [found.source for found in mixed] == [str(path), str(path), *[None] * 5]


def test_a_stack_of_images_is_a_sequence(detector: Detector) -> None:
    images = np.stack(noise_images((40, 50), (40, 50)))
    expected = arrays(detector(list(images)))
    torch.testing.assert_close(arrays(detector(images)), expected, rtol=0, atol=0)
    tensors = torch.from_numpy(images).permute(0, 3, 1, 2)
    torch.testing.assert_close(arrays(detector(tensors)), expected, rtol=0, atol=0)
    assert detector(images[:0]) == []


def test_the_size_of_batches_changes_nothing_but_the_last_bits(detector: Detector) -> None:
    """Convolutions of another batch may add in another order: some units of float32's last place (6e-8) a layer."""
    images = noise_images(*[(20 + index, 64 - 3 * index) for index in range(7)])
    expected = arrays(detector(images, batch_size=7))
    for batch_size in (1, 2, 3, 64):
        torch.testing.assert_close(arrays(detector(images, batch_size=batch_size)), expected, rtol=1e-5, atol=1e-4)


def test_settings_of_the_post_processing_can_be_changed(detector: Detector) -> None:
    detector.use_postprocess(max_detections=2)
    assert len(detector(noise_images((32, 48))[0])) == 2
    assert detector.postprocess == PostProcess(score_threshold=0.2, max_detections=2)
    with pytest.raises(ConfigurationError, match=r"postprocess\.iou_threshold is 3"):
        detector.use_postprocess(iou_threshold=3)


def test_no_images(detector: Detector) -> None:
    assert detector([]) == []
    assert detector.detect(torch.zeros(0, 3, 32, 48, dtype=torch.uint8)) == []


def test_run_directories(checkpoint: Path, tmp_path: Path, monkeypatch) -> None:
    run = tmp_path / "run"
    folder = run / "checkpoints"
    folder.mkdir(parents=True)
    with pytest.raises(WeightsError, match=r"no checkpoint in .*run: no checkpoints/best\.ckpt"):
        Detector.load(run)
    with pytest.raises(WeightsError, match=r"nothing\.ckpt: there is no such file"):
        Detector.load(tmp_path / "nothing.ckpt")
    for name in ("b.ckpt", "a.ckpt"):
        (run / name).touch()
    with monkeypatch.context() as patched:  # a file system lists in any order
        patched.setattr(Path, "glob", lambda self, pattern: iter([run / "b.ckpt", run / "a.ckpt"]))
        assert find_checkpoint(run) == run / "a.ckpt"
    (folder / "last.ckpt").touch()
    assert find_checkpoint(run) == folder / "last.ckpt"
    checkpoint.rename(folder / "best.ckpt")
    assert find_checkpoint(run) == folder / "best.ckpt"
    assert Detector.load(str(run)).class_names == CLASS_NAMES


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\0" * 1000,
        b"<!DOCTYPE html><html><body>404</body></html>",
        b"\xff\xd8\xff\xe0\x00\x10JFIF",
        b"\x80\x02.",
        b"\x80\x02h\x07.",  # a pickle that asks for what it never stored
        b"\x80\x02\x8a\x0a123.",
        b"PK\x03\x04 and no more",
    ],
)
def test_a_file_that_is_no_checkpoint(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "bad.ckpt"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=r"bad\.ckpt") as caught:
        Detector.load(path)
    assert "\n" not in str(caught.value)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("zipped", [True, False])
def test_damage_anywhere_is_one_clear_error_or_none(zipped: bool, tmp_path: Path) -> None:
    path, rng = tmp_path / "damaged.ckpt", random.Random(0)
    torch.save({"a": torch.zeros(3), "b": {"c": [1, 2.5]}}, path, _use_new_zipfile_serialization=zipped)
    good = path.read_bytes()
    outcomes = []
    for _ in range(100):
        damaged = bytearray(good[: rng.randrange(1, len(good) + 1)] if rng.random() < 0.3 else good)
        for _ in range(rng.randrange(1, 5)):
            damaged[rng.randrange(len(damaged))] = rng.randrange(256)
        path.write_bytes(damaged)
        try:
            outcomes.append(isinstance(read_checkpoint(path), dict))
        except WeightsError as error:
            outcomes.append("damaged.ckpt" in str(error) and "\n" not in str(error))
    assert all(outcomes)


LINEAR = {"_target_": "torch.nn.Linear", "in_features": 1, "out_features": 1}


def with_detector(content: dict, **entries: object) -> dict:
    return {**content, "detector": {**content["detector"], **entries}}


@pytest.mark.parametrize(
    ("change", "answer"),
    [
        (lambda content: [1, 2], "holds a list, not a checkpoint"),
        (lambda content: None, "holds a NoneType, not a checkpoint"),
        (lambda content: {}, "does not describe a detector"),
        (lambda content: {3: 4, "detector": 1}, "does not describe a detector"),
        (lambda content: {"detector": {"network": {}}}, "does not describe a detector"),
        *(
            (lambda content, network=network: with_detector(content, network=network), "")
            for network in ({}, 3, LINEAR)
        ),
        (
            lambda content: with_detector(content, class_names=list("abcd")),
            "names 4 classes for a network of 3 classes",
        ),
        (lambda content: with_detector(content, class_names="abc"), "needs a list of class names, found 'abc'"),
        (lambda content: {**content, "state_dict": None}, "does not fit its network"),
        (lambda content: {**content, "state_dict": {"net.head.box.0.bias": 3}}, "does not fit its network"),
    ],
)
def test_a_checkpoint_of_something_else(change: Callable[[dict], object], answer: str, checkpoint: Path) -> None:
    torch.save(change(torch.load(checkpoint)), checkpoint)
    with pytest.raises(WeightsError) as caught:
        Detector.load(checkpoint)
    assert "tiny.ckpt" in str(caught.value)
    assert answer in str(caught.value)


def test_weights_of_another_shape(checkpoint: Path) -> None:
    content = torch.load(checkpoint)
    given = {f"net.{name}": tensor for name, tensor in tiny_net(num_classes=4).state_dict().items()}
    torch.save({**content, "state_dict": given}, checkpoint)
    with pytest.raises(WeightsError) as caught:
        Detector.load(checkpoint)
    assert "does not fit its network in 6 of " in str(caught.value)
    assert "head.cls.0.bias has shape (20,), the network needs (16,)" in str(caught.value)


def test_names_that_are_missing_or_unknown() -> None:
    net = three_classes()
    weights = {f"net.{name}": tensor for name, tensor in net.state_dict().items()}
    fitting_weights(net, {**weights, "metrics.count": torch.zeros(1)}, Path("a.ckpt"))  # not the network's
    missing = {name: tensor for name, tensor in weights.items() if name != "net.head.box.1.bias"}
    with pytest.raises(WeightsError, match=r"a\.ckpt does not fit.* 1 of .*head\.box\.1\.bias is missing"):
        fitting_weights(net, missing, Path("a.ckpt"))
    with pytest.raises(WeightsError, match=r"head\.extra is unknown"):
        fitting_weights(net, {**weights, "net.head.extra": torch.zeros(1)}, Path("a.ckpt"))


def test_a_refused_checkpoint_leaves_the_network_as_it_was() -> None:
    net = three_classes()
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    other = {f"net.{name}": tensor + 1 for name, tensor in tiny_net(num_classes=4).state_dict().items()}
    with pytest.raises(WeightsError):
        fitting_weights(net, other, Path("a.ckpt"))
    torch.testing.assert_close(net.state_dict(), before, rtol=0, atol=0)


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_reduced_precision_sees_nearly_the_same_and_gives_and_saves_float32(
    checkpoint: Path, tmp_path: Path, precision: str
) -> None:
    full, reduced = Detector.load(checkpoint), Detector.load(checkpoint, precision=precision)
    images = torch.from_numpy(noise_images((32, 48))[0]).permute(2, 0, 1)[None]
    (expected,), (found,) = full.detect(images), reduced.detect(images)
    assert {expected[name].dtype for name in ("boxes", "scores")} == {torch.float32}
    assert {name: tensor.dtype for name, tensor in found.items()} == {
        name: tensor.dtype for name, tensor in expected.items()
    }
    count = min(3, len(found["scores"]))
    torch.testing.assert_close(found["scores"][:count], expected["scores"][:count], rtol=0, atol=0.02)
    assert not torch.equal(found["scores"], expected["scores"])
    reduced.save(tmp_path / "again.ckpt")
    torch.testing.assert_close(Detector.load(tmp_path / "again.ckpt").detect(images), [expected], rtol=0, atol=0)


def test_an_unknown_precision_is_named(checkpoint: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"precision is 'half'; it can be float32, bfloat16 or float16"):
        Detector.load(checkpoint, precision="half")


def test_the_order_of_a_images_memory_changes_nothing(detector: Detector) -> None:
    images = torch.from_numpy(np.stack(noise_images((32, 48), (32, 48)))).permute(0, 3, 1, 2)
    assert images.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(detector.detect(images.contiguous()), detector.detect(images))
