import itertools
import json
import math
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from torch import Tensor

from helpers.choices import without_initialization
from helpers.exported_networks import NECKS
from helpers.tiny_nets import tiny_net
from ssd_lightning.assembly import make_net
from ssd_lightning.config import compose_config
from ssd_lightning.errors import UserError, WeightsError
from ssd_lightning.inference.detector import Detector
from ssd_lightning.models import SSD
from ssd_lightning.models.config import to_config
from ssd_lightning.models.head import last_convolution
from ssd_lightning.models.weights import export_weights, levels_for_weights, load_pretrained
from ssd_lightning.ops.normalization import (
    IDENTITY,
    IMAGENET,
    MEAN_127_STD_128,
    SUBTRACT_MEAN_RGB,
    TORCHVISION_SSD,
    TORCHVISION_SSDLITE,
    Normalization,
)
from ssd_lightning.ops.priors import make_priors

# (reference, overrides, normalisation, largest difference in units of a level's deviation)
PUBLISHED = [
    ("ssd_pytorch", "amdegroot_ssd300", SUBTRACT_MEAN_RGB, 1e-5),
    ("lufficc_vgg16", "lufficc_ssd300", SUBTRACT_MEAN_RGB, 1e-5),
    ("lufficc_vgg16_512", "lufficc_ssd512", SUBTRACT_MEAN_RGB, 1e-5),
    # ReLU6 on drawn weights: in float32 the two networks of MobileNetV2 are as far from themselves in float64.
    ("lufficc_mobilenet_v2", "lufficc_mobilenet_v2", SUBTRACT_MEAN_RGB, 2e-4),
    # Hard-swish on drawn weights amplifies rounding: in float64 this network is as far from the reference.
    ("lufficc_mobilenet_v3", "lufficc_mobilenet_v3", SUBTRACT_MEAN_RGB, 2e-3),
    ("lufficc_efficientnet_b3", "lufficc_efficientnet_b3", SUBTRACT_MEAN_RGB, 5e-5),
    ("qfgaohao_vgg16", "qfgaohao_vgg16", SUBTRACT_MEAN_RGB, 1e-5),
    ("qfgaohao_mobilenet_v1", "qfgaohao_mobilenet_v1", MEAN_127_STD_128, 1e-5),
    ("qfgaohao_mobilenet_v1_lite", "qfgaohao_mobilenet_v1_lite", MEAN_127_STD_128, 1e-5),
    ("qfgaohao_mobilenet_v2_lite", "qfgaohao_mobilenet_v2_lite", MEAN_127_STD_128, 2e-4),
    ("qfgaohao_squeezenet_lite", "qfgaohao_squeezenet_lite", MEAN_127_STD_128, 1e-5),
]
QUICK = {"lufficc_mobilenet_v3", "qfgaohao_mobilenet_v1_lite"}


def network(overrides: str, num_classes: int = 20) -> SSD:
    with without_initialization():
        return make_net(compose_config("train", overrides.split()), num_classes, pretrained=False).eval()


def drawn(name: str, shape: list[int], ssd_pytorch: bool) -> Tensor:
    """The rule of the reference: each weight's generator is seeded by its name."""
    rng = np.random.RandomState(zlib.crc32(name.encode()) % 2**32)
    if name.endswith("num_batches_tracked"):
        return torch.tensor(0)
    if name.endswith("running_var"):
        values = rng.uniform(0.5, 1.5, shape)
    elif name.endswith(("running_mean", "bias")):
        values = rng.uniform(-0.1, 0.1, shape)
    elif len(shape) == 1:
        values = rng.uniform(10, 20, shape) if ssd_pytorch else rng.uniform(0.8, 1.2, shape)
    else:
        values = rng.standard_normal(shape) * math.sqrt(2 / np.prod(shape[1:]))
    return torch.from_numpy(values.astype(np.float32))


@pytest.mark.parametrize(
    ("name", "overrides", "normalization", "tolerance"),
    [pytest.param(*row, id=row[0], marks=() if row[0] in QUICK else pytest.mark.slow) for row in PUBLISHED],
)
def test_published_network_gives_the_reference_and_exports_it(
    reference_dir: Path, tmp_path: Path, name: str, overrides: str, normalization: Normalization, tolerance: float
) -> None:
    reference = np.load(reference_dir / f"{name}_forward_0.npz")
    is_ssd_pytorch = name == "ssd_pytorch"
    shapes = zip(map(str, reference["names"]), map(str, reference["shapes"]), strict=True)
    weights = {name: drawn(name, json.loads(shape), is_ssd_pytorch) for name, shape in shapes}
    torch.save(weights, tmp_path / "theirs.pth")
    net = network(f"model={overrides}")

    loaded = load_pretrained(net, tmp_path / "theirs.pth")
    assert loaded.origin.overrides == f"model={overrides}"
    assert net.normalization == normalization
    assert not loaded.reinitialised
    assert len(loaded.kept) == len(weights)

    net.use_normalization(IDENTITY)
    size = 300 if is_ssd_pytorch else int(reference["input_size"])
    step = 4 if is_ssd_pytorch else int(reference["step"])
    low, high = (-120, 130) if is_ssd_pytorch else (-1, 1)
    images = torch.from_numpy(np.random.RandomState(0).uniform(low, high, (1, 3, size, size)).astype(np.float32))
    with torch.no_grad():  # in float64, so that what differs does not depend on the processor
        output = net.double()(images.double())
    net.float()
    counts = [math.prod(level.grid) * level.boxes_per_cell for level in net.levels]
    level_of = np.repeat(np.arange(len(counts)), counts)[::step]
    for ours, theirs in ((output.box_offsets, reference["loc"]), (output.class_logits, reference["conf"])):
        ours, expected = ours[0, ::step].numpy(), theirs.reshape(-1, ours.shape[-1])
        for level in range(len(counts)):
            here = level_of == level
            difference = np.abs(ours[here] - expected[here]).max()
            assert difference <= tolerance * max(1.0, expected[here].std()), f"level {level + 1}: {difference}"
    if "priors" in reference:
        torch.testing.assert_close(output.priors_cxcywh, torch.from_numpy(reference["priors"]), rtol=0, atol=1e-7)

    exported = export_weights(net, loaded.origin.source)
    assert exported.keys() == weights.keys()
    assert all(torch.equal(exported[key], weights[key]) for key in weights)


def torchvision_network(name: str, num_classes: int) -> torch.nn.Module:
    """One of torchvision's, with weights that make it say something: offsets and logits of deviation 1."""
    torch.manual_seed(0)
    make = getattr(torchvision.models.detection, name)
    theirs = make(weights=None, weights_backbone=None, num_classes=num_classes + 1, score_thresh=0.01).eval()
    for parameter, tensor in theirs.state_dict().items():
        if parameter.endswith("running_mean"):  # the fresh 0 and 1 would hide a mix-up
            tensor.uniform_(-0.3, 0.3)
        elif parameter.endswith("running_var"):
            tensor.uniform_(0.5, 1.5)
        elif tensor.dim() == 4:
            torch.nn.init.kaiming_normal_(tensor, nonlinearity="relu")
    with torch.no_grad():
        images = theirs.transform([torch.rand(3, 300, 300)])[0].tensors
        maps = list(theirs.backbone(images).values())
        for head in (theirs.head.regression_head, theirs.head.classification_head):
            for predictor, features in zip(head.module_list, maps, strict=True):
                last_convolution(predictor).weight.div_(predictor(features).std() + 1e-6)
    return theirs


@pytest.mark.parametrize(
    ("name", "overrides", "normalization"),
    [
        pytest.param("ssd300_vgg16", "torchvision_ssd300", TORCHVISION_SSD, marks=pytest.mark.slow),
        ("ssdlite320_mobilenet_v3_large", "torchvision_ssdlite320", TORCHVISION_SSDLITE),
    ],
)
def test_torchvisions_modules_and_ours_agree(
    tmp_path: Path, name: str, overrides: str, normalization: Normalization
) -> None:
    theirs = torchvision_network(name, num_classes=5)
    torch.save(theirs.state_dict(), tmp_path / "theirs.pth")
    net = network(f"model={overrides}", num_classes=5)
    load_pretrained(net, tmp_path / "theirs.pth")
    assert net.normalization == normalization
    images = torch.randint(0, 256, (1, 3, *net.image_size), dtype=torch.uint8)
    with torch.no_grad():
        inputs = theirs.transform(list(images / 255))[0].tensors
        raw = theirs.head(list(theirs.backbone(inputs).values()))
        torch.testing.assert_close(net.normalization(images), inputs, rtol=0, atol=1e-4)
        net.use_normalization(IDENTITY)  # the last digit of its rounding is not what is compared
        output = net(inputs)
    assert (output.box_offsets - raw["bbox_regression"]).abs().max() < 1e-4
    assert (output.class_logits - raw["cls_logits"]).abs().max() < 1e-4

    exported = export_weights(net, "torchvision")
    theirs.load_state_dict(exported)  # strict: no name is missing and none is new
    assert all(torch.equal(exported[key], tensor) for key, tensor in torch.load(tmp_path / "theirs.pth").items())


seeds = itertools.count()


def tiny(num_classes: int = 3, **settings: object) -> SSD:
    """Give a small network with weights of its own."""
    net = tiny_net(num_classes=num_classes, **settings).eval()
    torch.manual_seed(next(seeds))
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter)
    return net


def saved(folder: Path, net: SSD | None = None) -> Path:
    """Save a network of three classes as a run does; gives the file."""
    path = folder / "ours.ckpt"
    Detector(net or tiny(), class_names=("a", "b", "c")).save(path)
    return path


def light_state(make: Callable[[], torch.nn.Module]) -> dict[str, Tensor]:
    """Give a network's names and shapes, and one number for each tensor."""
    with torch.device("meta"), without_initialization():
        state = make().state_dict()
    return {
        name: torch.tensor(1 + place, dtype=tensor.dtype).expand(tensor.shape)
        for place, (name, tensor) in enumerate(state.items())
    }


@pytest.fixture(scope="module")
def lite_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    make = partial(torchvision.models.detection.ssdlite320_mobilenet_v3_large, weights=None, weights_backbone=None)
    path = tmp_path_factory.mktemp("torchvision") / "lite.pth"
    torch.save(light_state(partial(make, num_classes=4)), path)
    return path


def test_other_number_of_classes_starts_the_class_heads_anew(tmp_path: Path) -> None:
    source, net = tiny(3), tiny(7)
    source.use_normalization(SUBTRACT_MEAN_RGB)
    path = saved(tmp_path, source)
    fresh = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    loaded = load_pretrained(net, path)
    heads = {f"head.cls.{level}.{kind}" for level in range(3) for kind in ("weight", "bias")}
    assert loaded.reinitialised == dict.fromkeys(heads, "3 classes in the file, 7 in the network")
    assert net.normalization == SUBTRACT_MEAN_RGB
    for name, tensor in net.state_dict().items():
        assert torch.equal(tensor, fresh[name] if name in heads else source.state_dict()[name]), name
    kept = tiny(3)
    load_pretrained(kept, path, keep_normalization=True)
    assert kept.normalization == IMAGENET


def test_a_shared_head_starts_its_one_class_predictor_anew(tmp_path: Path) -> None:
    loaded = load_pretrained(tiny(7, **NECKS["fpnlite"]), saved(tmp_path, tiny(3, **NECKS["fpnlite"])))
    assert set(loaded.reinitialised) == {"head.cls.0.1.weight", "head.cls.0.1.bias"}
    assert loaded.other_priors is None


def test_same_number_of_other_classes_starts_anew_too(tmp_path: Path) -> None:
    path = saved(tmp_path)
    for names, reasons in ((("a", "b", "c"), set()), (("a", "b", "x"), {"different classes"})):
        assert set(load_pretrained(tiny(), path, class_names=names).reinitialised.values()) == reasons


def test_priors_of_an_older_file_that_lacks_a_field_are_the_same(tmp_path: Path) -> None:
    checkpoint = torch.load(saved(tmp_path), weights_only=True)
    levels = checkpoint["detector"]["network"]["levels"]
    for level in levels:
        assert level.pop("both_sizes") is False
    torch.save(checkpoint, tmp_path / "older.ckpt")
    assert load_pretrained(tiny(), tmp_path / "older.ckpt").other_priors is None
    levels[0]["min_size"] += 1
    torch.save(checkpoint, tmp_path / "other.ckpt")
    assert "levels differ" in str(load_pretrained(tiny(), tmp_path / "other.ckpt").other_priors)


def test_other_layouts_of_a_state_dict_are_read(tmp_path: Path) -> None:
    """Files of torch 0.4.0 and earlier have no `num_batches_tracked`; torch itself reads them."""
    from safetensors.torch import save_file

    state = tiny().state_dict()
    old = {name: tensor for name, tensor in state.items() if not name.endswith("num_batches_tracked")}
    assert len(old) < len(state)
    save_file(state, tmp_path / "ours.safetensors")
    torch.save({"state_dict": {f"module.{name}": tensor for name, tensor in state.items()}}, tmp_path / "parallel.pth")
    torch.save(old, tmp_path / "old.pth")
    for file in ("ours.safetensors", "parallel.pth", "old.pth"):
        net = tiny()
        load_pretrained(net, tmp_path / file)
        torch.testing.assert_close(net.state_dict(), state, rtol=0, atol=0)


def test_classifier_fills_the_backbone(tmp_path: Path) -> None:
    classifier = light_state(torchvision.models.vgg16)
    torch.save(classifier, tmp_path / "vgg16.pth")
    net = network("model=ssd300")
    net.use_normalization(IDENTITY)
    with without_initialization():
        loaded = load_pretrained(net, tmp_path / "vgg16.pth")
    assert torch.equal(net.extractor.backbone.to_conv4_3[0].weight, classifier["features.0.weight"])
    assert net.normalization == IMAGENET
    assert all(name.startswith("extractor.backbone.") for name in loaded.kept)
    assert any(name.startswith("head.") for name in loaded.reinitialised)
    assert levels_for_weights(tmp_path / "vgg16.pth", [{"min_size": 1.0}]) is None


def test_priors_come_with_the_box_heads_of_a_file(tmp_path: Path, lite_file: Path) -> None:
    net, default = tiny(), [{"min_size": 1.0}]
    assert levels_for_weights(saved(tmp_path, net), default) == to_config(net)["levels"]
    assert levels_for_weights(lite_file, default) == default


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("none.pth", None, "no such file"),
        ("half.safetensors", b"\xff" * 9, "damaged"),
        ("empty.pth", {"epoch": 3}, "holds no weights; it holds epoch"),
        (
            "nan.pth",
            {"extractor.backbone.a": torch.tensor([0, math.nan])},
            r"extractor\.backbone\.a has values that are not finite",
        ),
        (
            "other.pth",
            {"stem.conv.weight": torch.zeros(8, 3, 3, 3), "b": torch.zeros(2)},
            r"stem\.conv\.weight \(8, 3, 3, 3\).*Known formats are.*ssd\.pytorch.*lufficc.*qfgaohao.*torchvision",
        ),
    ],
)
def test_files_that_cannot_be_loaded_are_named(tmp_path: Path, name: str, content: object, reason: str) -> None:
    if isinstance(content, dict):
        torch.save(content, tmp_path / name)
    elif isinstance(content, bytes):
        (tmp_path / name).write_bytes(content)
    with pytest.raises(WeightsError, match=rf"{name}.*{reason}"):
        load_pretrained(tiny(), tmp_path / name)


def test_weights_of_another_network_name_the_overrides_for_theirs(lite_file: Path) -> None:
    start = r"lite\.pth: these weights are made for model=torchvision_ssdlite320; torchvision has no network with"
    with pytest.raises(WeightsError, match=f"{start} the parameter head"):
        load_pretrained(network("backbone=mobilenet_v3_large head=plain", 3), lite_file)
    with pytest.raises(WeightsError, match=f"{start} a TinyBackbone"):
        load_pretrained(tiny(), lite_file)


@pytest.mark.parametrize(
    ("overrides", "source", "answer"),
    [
        ("model=tiny_ssd", "caffe", r"'caffe'.*ssd\.pytorch, lufficc, qfgaohao, torchvision"),
        ("model=torchvision_ssd300 neck=fpn", "torchvision", r"has no network with the parameter extractor\.neck"),
        ("backbone=vgg16_bn", "lufficc", "lufficc"),
        ("model=ssd300", "qfgaohao", "qfgaohao"),  # which has batch norm after conv4_3
        ("model=ssd300 head=lite", "torchvision", "torchvision"),
        ("model=ssd300 ablation=one_level_less", "ssd.pytorch", "the closest, model=amdegroot_ssd300, has 71 tensors"),
    ],
)
def test_no_export_that_its_project_could_not_load(overrides: str, source: str, answer: str) -> None:
    with torch.device("meta"):
        net = network(overrides)
    with pytest.raises(UserError, match=answer):
        export_weights(net, source)


def test_other_priors_are_reported(tmp_path: Path, lite_file: Path) -> None:
    net = network("model=torchvision_ssdlite320", 3)
    assert load_pretrained(net, lite_file).other_priors is None
    net.priors_cxcywh = make_priors(net.levels, net.image_size)  # not clipped
    assert "model=torchvision_ssdlite320" in str(load_pretrained(net, lite_file).other_priors)

    ours = saved(tmp_path, tiny(clip_priors=False))
    assert load_pretrained(tiny(), ours).other_priors is None  # false is the default
    assert "clip_priors" in str(load_pretrained(tiny(clip_priors=True), ours).other_priors)
