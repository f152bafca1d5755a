from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from helpers.pixels import noise
from helpers.tiny_nets import tiny_net
from ssd_lightning.data.resize import Letterbox, Stretch
from ssd_lightning.errors import ConfigurationError, DataError, WeightsError
from ssd_lightning.inference.checkpoints import find_checkpoint
from ssd_lightning.inference.detector import Detector
from ssd_lightning.inference.results import ImageDetections
from ssd_lightning.models.postprocess import PostProcess
from ssd_lightning.ops.normalization import SUBTRACT_MEAN_BGR
from ssd_lightning.ops.priors import PriorLevel

CLASS_NAMES = ("circle", "square", "star")


@pytest.fixture
def detector() -> Detector:
    postprocess = PostProcess(score_threshold=0.2, max_detections=9)
    net = tiny_net(num_classes=3, normalization=SUBTRACT_MEAN_BGR)
    return Detector(net, class_names=CLASS_NAMES, postprocess=postprocess, data_settings={"fold": 1})


@pytest.fixture
def checkpoint(detector: Detector, tmp_path: Path) -> Path:
    detector.save(tmp_path / "tiny.ckpt")
    return tmp_path / "tiny.ckpt"


def arrays(found: list[ImageDetections]) -> list[tuple[np.ndarray, ...]]:
    """What was found, in the form that `assert_close` compares."""
    return [(detections.boxes_xyxy_px, detections.scores, detections.labels) for detections in found]


def test_saved_and_loaded_it_sees_the_same(detector: Detector, tmp_path: Path) -> None:
    detector.resize = Letterbox(fill=(1, 2, 3))
    path = tmp_path / "tiny.ckpt"
    detector.save(path)
    content = torch.load(path, weights_only=True)  # plain containers
    assert content["detector"]["class_names"] == list(CLASS_NAMES)
    assert all(name.startswith("net.") for name in content["state_dict"])
    loaded = Detector.load(path)
    images = [noise(32, 48, seed) for seed in (0, 1)]
    found = detector(images)
    assert all(0 < len(detections) <= 9 for detections in found)
    torch.testing.assert_close(arrays(loaded(images)), arrays(found), rtol=0, atol=0)
    for name in ("class_names", "postprocess", "resize", "data_settings"):
        assert getattr(loaded, name) == getattr(detector, name)
    assert not loaded.net.training
    del content["detector"]["resize"]  # as older checkpoints are
    content["state_dict"]["metrics.count"] = torch.zeros(1)  # weights beside those of the network are left out
    torch.save(content, path)
    assert Detector.load(path).resize == Stretch()


def test_a_saved_detector_of_numpys_numbers_can_be_read(tmp_path: Path) -> None:
    levels = [PriorLevel(None, None, side, side + 8, np.array([2.0])) for side in np.array([10.0, 20.0, 40.0])]
    net = tiny_net(num_classes=np.int64(2), levels=levels)
    postprocess = PostProcess(score_threshold=np.float64(0.2), top_k=np.int64(9))
    Detector(net, class_names=np.array(["a", "b"]), postprocess=postprocess).save(tmp_path / "tiny.ckpt")
    loaded = Detector.load(tmp_path / "tiny.ckpt")
    assert (loaded.class_names, loaded.postprocess) == (("a", "b"), postprocess)
    torch.testing.assert_close(loaded.network.priors_cxcywh, net.priors_cxcywh)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"class_names": ["a", "b"]}, ConfigurationError, "3 classes, but there are 2 class names: a, b"),
        ({"class_names": "abc"}, DataError, "class_names is 'abc'; it has to be a list"),
        ({"class_names": ["a", "b", "a"]}, DataError, "'a' more than once"),
        ({"resize": "squash"}, ConfigurationError, "resize is 'squash'; it can be stretch or letterbox"),
        ({"postprocess": None}, ConfigurationError, "postprocess is None; it must be a PostProcess"),
        ({"precision": "half"}, ConfigurationError, "precision is 'half'; it can be float32, bfloat16 or float16"),
    ],
)
def test_arguments_that_do_not_fit_are_refused_at_once(arguments: dict, error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        Detector(tiny_net(num_classes=3), **{"class_names": CLASS_NAMES, **arguments})


@pytest.mark.parametrize("mode", ["stretch", "letterbox"])
@pytest.mark.parametrize(("height", "width"), [(100, 300), (300, 100), (7, 2000)])
def test_boxes_are_those_of_the_original(detector: Detector, mode: str, height: int, width: int) -> None:
    """By hand: letterboxed, the image lies in the top left corner of 32 x 48 pixels, all of it at one scale."""
    image, scale = noise(height, width), min(32 / height, 48 / width)
    fitted = (48, 32) if mode == "stretch" else (round(width * scale), max(1, round(height * scale)))
    seen = np.full((32, 48, 3), (123, 117, 104), np.uint8)
    seen[: fitted[1], : fitted[0]] = cv2.resize(image, fitted, interpolation=cv2.INTER_LINEAR)
    (in_input,) = detector.detect(torch.from_numpy(seen).permute(2, 0, 1)[None])
    resizing = Detector(detector.network, class_names=CLASS_NAMES, postprocess=detector.postprocess, resize=mode)
    found = resizing(image)
    assert len(found) == len(in_input["scores"]) > 0
    factors = np.array([width * 48 / fitted[0], height * 32 / fitted[1]] * 2)
    by_hand = (in_input["boxes"].numpy() * factors).clip(0, [width, height, width, height])
    np.testing.assert_allclose(found.boxes_xyxy_px, by_hand, rtol=1e-5, atol=1e-3)
    assert found.scores.tolist() == in_input["scores"].tolist()
    assert found.labels.tolist() == in_input["labels"].tolist()
    assert (found.boxes_xyxy_px.dtype, found.scores.dtype, found.labels.dtype) == (np.float32, np.float32, np.int64)


def test_images_come_in_many_forms_alone_or_in_a_sequence(detector: Detector, tmp_path: Path) -> None:
    """`test_image_io` has all forms."""
    images, path = np.stack([noise(40, 50, seed) for seed in (0, 1)]), tmp_path / "image.png"
    Image.fromarray(images[0]).save(path)
    expected = arrays(detector(images))
    mixed = [path, Image.fromarray(images[1])]
    for sequence in (list(images), torch.from_numpy(images).permute(0, 3, 1, 2), mixed):
        torch.testing.assert_close(arrays(detector(sequence)), expected, rtol=0, atol=0)
    assert [found.source for found in detector(mixed)] == [str(path), None]
    torch.testing.assert_close(arrays([detector(str(path))]), expected[:1])
    assert detector(images[:0]) == detector([]) == []
    assert detector.detect(torch.zeros(0, 3, 32, 48, dtype=torch.uint8)) == []


def test_the_size_of_batches_and_the_order_of_memory_change_nothing_but_the_last_bits(detector: Detector) -> None:
    """Convolutions of another batch may add in another order: some units of float32's last place (6e-8) a layer."""
    sizes_px = ((10, 10), (32, 48), (200, 31), (1, 1), (24, 52))
    images = [noise(*size_px) for size_px in sizes_px]
    found = detector(images, batch_size=5)
    for batch_size in (1, 3, 64):
        torch.testing.assert_close(arrays(detector(images, batch_size=batch_size)), arrays(found), rtol=1e-5, atol=1e-4)
    for detections, (height, width) in zip(found, sizes_px, strict=True):
        assert (detections.boxes_xyxy_px >= 0).all()
        assert (detections.boxes_xyxy_px <= [width, height, width, height]).all()
        assert {1, 2, 3} >= set(detections.labels.tolist())
        assert detections.image.shape == (height, width, 3)
    batch = torch.from_numpy(np.stack([noise(32, 48), noise(32, 48, 1)])).permute(0, 3, 1, 2)
    assert batch.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(detector.detect(batch.contiguous()), detector.detect(batch))
    for batch_size in (0, -1, 1.5):
        with pytest.raises(ConfigurationError, match=f"batch_size is {batch_size}"):
            detector(images, batch_size=batch_size)


def test_settings_of_the_post_processing_can_be_changed_and_those_without_effect_are_said(
    detector: Detector, caplog: pytest.LogCaptureFixture
) -> None:
    detector.use_postprocess(max_detections=2, iou_threshold=0.3)
    assert len(detector(noise(32, 48))) == 2
    assert detector.postprocess == PostProcess(score_threshold=0.2, max_detections=2, iou_threshold=0.3)
    with pytest.raises(ConfigurationError, match=r"postprocess\.iou_threshold is 3"):
        detector.use_postprocess(iou_threshold=3)
    assert not caplog.messages
    detector.use_postprocess(soft_nms_sigma=0.3)
    detector.use_postprocess(soft_nms="gaussian", soft_nms_sigma=0.3, iou_threshold=0.4)
    assert caplog.messages == [
        "soft_nms_sigma=0.3 is not used by postprocess.soft_nms=null",
        "iou_threshold=0.4 is not used by postprocess.soft_nms=gaussian",
    ]


def test_run_directories(checkpoint: Path, tmp_path: Path, monkeypatch) -> None:
    run = tmp_path / "run"
    folder = run / "checkpoints"
    folder.mkdir(parents=True)
    with pytest.raises(WeightsError, match=r"no checkpoint in .*run: no checkpoints/best\.ckpt"):
        Detector.load(run)
    with pytest.raises(WeightsError, match=r"nothing\.ckpt: there is no such file"):
        Detector.load(tmp_path / "nothing.ckpt")
    (run / "model.safetensors").touch()
    assert find_checkpoint(run) == run / "model.safetensors"
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


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_reduced_precision_sees_nearly_the_same_and_gives_and_saves_float32(
    checkpoint: Path, tmp_path: Path, precision: str
) -> None:
    full, reduced = Detector.load(checkpoint), Detector.load(checkpoint, precision=precision)
    images = torch.from_numpy(noise(32, 48)).permute(2, 0, 1)[None]
    (expected,), (found,) = full.detect(images), reduced.detect(images)
    assert (found["boxes"].dtype, found["scores"].dtype, found["labels"].dtype) == (torch.float32,) * 2 + (torch.int64,)
    count = min(3, len(found["scores"]))
    torch.testing.assert_close(found["scores"][:count], expected["scores"][:count], rtol=0, atol=0.02)
    assert not torch.equal(found["scores"], expected["scores"])
    reduced.save(tmp_path / "again.ckpt")
    torch.testing.assert_close(Detector.load(tmp_path / "again.ckpt").detect(images), [expected], rtol=0, atol=0)
