"""Names of our parameters in other projects.

Each table maps our names to theirs with one regular expression per kind of layer. The first match is used. Their names
come from their published weights files.
"""

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial

from ssd_lightning.errors import WeightsError
from ssd_lightning.models.backbones import VGG16, EfficientNetB3, MobileNetV1, MobileNetV2, MobileNetV3Large, SqueezeNet

Rule = tuple[str, str | Callable[[re.Match[str]], str]]
"""A pattern for our name, and their name as a template or a function of the match.

Our names are without `extractor.backbone.`, and have `extras.` for `extractor.extras.levels.`.
"""

VGG_TO_CONV4_3 = "0|2|5|7|10|12|14|17|19|21"
"""Indices of the convolutions in torchvision's `features`, up to conv4_3."""

VGG_SPLIT = 23
"""Index of pool4 in torchvision's `features`, where `to_conv4_3` ends and `to_conv7` begins."""

EFFICIENTNET_B3_BLOCKS = (2, 3, 3, 5, 5, 6, 2)
"""Number of blocks of the stages 1 to 7. The original numbers the blocks continuously."""


def translate(name: str, rules: Sequence[Rule]) -> str:
    """Return another project's name of our parameter.

    Raises:
        KeyError: the project has no such parameter.
    """
    short = name.replace("extractor.extras.levels.", "extras.").removeprefix("extractor.backbone.")
    for pattern, theirs in rules:
        match = re.fullmatch(pattern, short)
        if match:
            return match.expand(theirs) if isinstance(theirs, str) else theirs(match)
    raise KeyError(name)


def rules_for(source: str, backbone: object, our_names: Collection[str]) -> list[Rule]:
    """Return the table of a project for one of our networks.

    Args:
        source: a key of `NETWORKS`.
        backbone: backbone of our network.
        our_names: names of all parameters and buffers of our network.

    Raises:
        WeightsError: the project has no network with this backbone.
    """
    for kind, rules in NETWORKS[source].items():
        if isinstance(backbone, kind):
            return [*rules, *_qfgaohao_extras_and_head(our_names)] if source == "qfgaohao" else rules
    known = ", ".join(kind.__name__ for kind in NETWORKS[source])
    raise WeightsError(f"{source} has no network with a {type(backbone).__name__}; it has {known}")


def _predictors(boxes: str, classes: str, rules: Mapping[str, str]) -> list[Rule]:
    """Apply rules for the names below `head.box` and `head.cls` to both; theirs are below `boxes` and `classes`."""
    names = {"box": boxes, "cls": classes}
    return [(rf"head\.{ours}\.{rule}", f"{names[ours]}.{theirs}") for ours in names for rule, theirs in rules.items()]


def _vgg(prefix: str) -> list[Rule]:
    # Indices of the convolutions of VGG16 without batch norm; with batch norm, other layers have these indices.
    return [
        (rf"to_conv4_3\.({VGG_TO_CONV4_3})\.(weight|bias)", rf"{prefix}.\1.\2"),
        (r"to_conv7\.([1358]|10)\.(weight|bias)", lambda m: f"{prefix}.{int(m[1]) + VGG_SPLIT}.{m[2]}"),
    ]


def _vgg_ssd(prefix: str, norm: str) -> list[Rule]:
    return [
        *_vgg(f"{prefix}vgg"),
        (r"norm\.weight", f"{prefix}{norm}.weight"),
        (r"extras\.(\d+)\.(\d)\.0\.(\w+)", lambda m: f"{prefix}extras.{2 * int(m[1]) + int(m[2])}.{m[3]}"),
    ]


PLAIN = {r"(\d+)\.(weight|bias)": r"\1.\2"}
"""Names in a head of one convolution per level."""

SSD_PYTORCH = [*_vgg_ssd("", "L2Norm"), *_predictors("loc", "conf", PLAIN)]

_lufficc_predictors = partial(_predictors, "box_head.predictor.reg_headers", "box_head.predictor.cls_headers")
LUFFICC_LITE = _lufficc_predictors(
    {
        r"5\.(weight|bias)": r"5.\1",
        r"([0-4])\.0\.([01])\.(\w+)": r"\1.conv.\2.\3",
        r"([0-4])\.1\.(\w+)": r"\1.conv.3.\2",
    }
)

LUFFICC_VGG = [*_vgg_ssd("backbone.", "l2_norm"), *_lufficc_predictors(PLAIN)]

LUFFICC_MOBILENET_V2: list[Rule] = [
    (r"(features\..+)", r"backbone.\1"),
    (r"extras\.(\d+)\.([01])\.(.+)", r"backbone.extras.\1.conv.\2.\3"),
    (r"extras\.(\d+)\.2\.([01])\.(\w+)", lambda m: f"backbone.extras.{m[1]}.conv.{2 + int(m[2])}.{m[3]}"),
    *LUFFICC_LITE,
]


def _excited(start: int, inner: str) -> str:
    """Return the flat index of a convolution (0), a normalisation (1) or a squeeze and excitation (2.fc1, 2.fc2)."""
    if inner.startswith("2.fc"):
        return f"{start + 2}.fc.{0 if inner.endswith('1') else 2}"
    return str(start + int(inner))


def _lufficc_v3_block(match: re.Match[str]) -> str:
    number, part, inner, kind = int(match[1]), int(match[2]), match[3], match[4]
    # Each block is one flat list: expansion 0 1 2, depthwise 3 4, excitation 5, activation 6, projection 7 8. The
    # first block has no expansion; its projection is 4 5.
    start = (0, 4)[part] if number == 1 else (0, 3, 7, 7)[part]
    return f"backbone.features.{number}.conv.{_excited(start, inner)}.{kind}"


def _lufficc_v3_extra(match: re.Match[str]) -> str:
    return f"backbone.extras.{match[1]}.conv.{_excited((0, 3, 7)[int(match[2])], match[3])}.{match[4]}"


LUFFICC_MOBILENET_V3: list[Rule] = [
    (r"(features\.(?:0|16)\..+)", r"backbone.\1"),
    (r"features\.(\d+)\.block\.(\d)\.(\d|2\.fc[12])\.(\w+)", _lufficc_v3_block),
    (r"extras\.(\d+)\.(\d)\.(\d|2\.fc[12])\.(\w+)", _lufficc_v3_extra),
    *LUFFICC_LITE,
]


def _lufficc_efficientnet_block(match: re.Match[str]) -> str:
    stage, index, part, inner, kind = int(match[1]), int(match[2]), int(match[3]), match[4], match[5]
    number = sum(EFFICIENTNET_B3_BLOCKS[: stage - 1]) + index
    part += stage == 1  # the first stage has no expansion
    names = ({"0": "_expand_conv", "1": "_bn0"}, {"0": "_depthwise_conv", "1": "_bn1"})
    last = ({"fc1": "_se_reduce", "fc2": "_se_expand"}, {"0": "_project_conv", "1": "_bn2"})
    return f"backbone._blocks.{number}.{(*names, *last)[part][inner]}.{kind}"


LUFFICC_EFFICIENTNET: list[Rule] = [
    (r"features\.0\.0\.weight", "backbone._conv_stem.weight"),
    (r"features\.0\.1\.(\w+)", r"backbone._bn0.\1"),
    (r"features\.(\d)\.(\d)\.block\.(\d)\.(0|1|fc1|fc2)\.(\w+)", _lufficc_efficientnet_block),
    (r"extras\.(\d+)\.(\d)\.0\.(\w+)", lambda m: f"backbone.extras.{m[1]}.{2 * int(m[2])}.{m[3]}"),
    *_lufficc_predictors(PLAIN),
]


def _qfgaohao_extras_and_head(our_names: Collection[str]) -> list[Rule]:
    separable = any(name.startswith("extractor.extras.levels.0.2.") for name in our_names)
    places = ("0", "2.0", "2.2") if separable else ("0", "2")
    pointwise = 3 if "head.cls.0.0.1.weight" in our_names else 2
    extras = (r"extras\.(\d+)\.(\d)\.0\.(\w+)", lambda m: f"extras.{m[1]}.{places[int(m[2])]}.{m[3]}")
    lite = {r"(\d+)\.0\.([01])\.(\w+)": r"\1.\2.\3", r"(\d+)\.1\.(\w+)": rf"\1.{pointwise}.\2"}
    return [extras, *_predictors("regression_headers", "classification_headers", {**PLAIN, **lite})]


QFGAOHAO_VGG: list[Rule] = [*_vgg("base_net"), (r"norm\.(\w+)", r"source_layer_add_ons.0.\1")]

QFGAOHAO_MOBILENET_V1: list[Rule] = [
    (r"features\.(0\.[01]\.\w+)", r"base_net.\1"),
    (r"features\.(\d+)\.([01])\.([01])\.(\w+)", lambda m: f"base_net.{m[1]}.{3 * int(m[2]) + int(m[3])}.{m[4]}"),
]


def _qfgaohao_v2_projection(match: re.Match[str]) -> str:
    blocks_before = 1 if match[1] == "1" else 2  # the first block has no expansion
    return f"base_net.{match[1]}.conv.{2 * blocks_before + int(match[2])}.{match[3]}"


QFGAOHAO_MOBILENET_V2: list[Rule] = [
    (r"features\.((?:0|18)\.[01]\.\w+)", r"base_net.\1"),
    (
        r"features\.(\d+)\.conv\.(\d)\.([01])\.(\w+)",
        lambda m: f"base_net.{m[1]}.conv.{3 * int(m[2]) + int(m[3])}.{m[4]}",
    ),
    (r"features\.(\d+)\.conv\.(\d)\.(\w+)", _qfgaohao_v2_projection),
    (r"extras\.(\d+)\.(\d)\.([01])\.(\w+)", lambda m: f"extras.{m[1]}.conv.{3 * int(m[2]) + int(m[3])}.{m[4]}"),
]

QFGAOHAO_SQUEEZENET: list[Rule] = [(r"features\.(.+)", r"base_net.\1")]


_torchvision_predictors = partial(
    _predictors, "head.regression_head.module_list", "head.classification_head.module_list"
)

TORCHVISION_VGG: list[Rule] = [
    (rf"to_conv4_3\.({VGG_TO_CONV4_3})\.(weight|bias)", r"backbone.features.\1.\2"),
    (r"to_conv7\.([135])\.(weight|bias)", r"backbone.extra.0.\1.\2"),
    (r"to_conv7\.8\.(weight|bias)", r"backbone.extra.0.7.1.\1"),
    (r"to_conv7\.10\.(weight|bias)", r"backbone.extra.0.7.3.\1"),
    (r"norm\.weight", "backbone.scale_weight"),
    (r"extras\.(\d+)\.(\d)\.0\.(\w+)", lambda m: f"backbone.extra.{int(m[1]) + 1}.{2 * int(m[2])}.{m[3]}"),
    *_torchvision_predictors({r"([0-5]\.(?:weight|bias))": r"\1"}),
]

TORCHVISION_SPLIT = MobileNetV3Large.first_blocks[-1]
"""Block whose expansion is torchvision's first map; the other layers of it begin the second part."""
TORCHVISION_MOBILENET_V3: list[Rule] = [
    (rf"features\.{TORCHVISION_SPLIT}\.block\.0\.(.+)", rf"backbone.features.0.{TORCHVISION_SPLIT}.\1"),
    (rf"features\.{TORCHVISION_SPLIT}\.block\.(.+)", r"backbone.features.1.0.\1"),
    (
        r"features\.(\d+)\.(.+)",
        lambda m: (
            f"backbone.features.0.{m[1]}.{m[2]}"
            if int(m[1]) < TORCHVISION_SPLIT
            else f"backbone.features.1.{int(m[1]) - TORCHVISION_SPLIT}.{m[2]}"
        ),
    ),
    (r"extras\.([0-3]\.[012]\.[01]\.\w+)", r"backbone.extra.\1"),
    *_torchvision_predictors({r"([0-5]\.(?:0\.0\.weight|0\.1\.\w+|1\.weight|1\.bias))": r"\1"}),
]

NETWORKS: dict[str, dict[type, list[Rule]]] = {
    "ssd.pytorch": {VGG16: SSD_PYTORCH},
    "lufficc": {
        VGG16: LUFFICC_VGG,
        MobileNetV2: LUFFICC_MOBILENET_V2,
        MobileNetV3Large: LUFFICC_MOBILENET_V3,
        EfficientNetB3: LUFFICC_EFFICIENTNET,
    },
    "qfgaohao": {
        VGG16: QFGAOHAO_VGG,
        MobileNetV1: QFGAOHAO_MOBILENET_V1,
        MobileNetV2: QFGAOHAO_MOBILENET_V2,
        SqueezeNet: QFGAOHAO_SQUEEZENET,
    },
    "torchvision": {VGG16: TORCHVISION_VGG, MobileNetV3Large: TORCHVISION_MOBILENET_V3},
}
"""Tables by project and backbone."""
