"""Settings that choose images and classes: a checkpoint keeps them, and its evaluation uses them again."""

import logging
import os
from collections.abc import Mapping
from typing import Any

from omegaconf import DictConfig, OmegaConf

from ssd_lightning.command_line import CommandLine
from ssd_lightning.errors import WeightsError, one_line

log = logging.getLogger(__name__)

OF_CLASSES = ("exclude_classes", "merge_classes", "rename_classes")
OF_VALIDATION = ("val_fraction", "fold", "num_folds")
OF_SPLITS = (*OF_VALIDATION, "test_fraction", "train_split", "val_split", "test_split", "train", "val", "test")
OF_FORMAT = ("images", "unit", "class_descriptions", "xml_offset")
OF_IMAGES = (*OF_SPLITS, *OF_FORMAT, "on_error")


def data_settings(config: DictConfig) -> dict[str, Any]:
    """Return the settings to keep, as plain containers; `root`, `folder` and `format` tell which data they are for."""
    data: Any = OmegaConf.to_container(config.data, resolve=True)
    kept = {name: data[name] for name in ("root", *OF_CLASSES, *OF_IMAGES) if name in data}
    rules = {name: kept[name] for name in OF_CLASSES if isinstance(kept.get(name), dict)}
    kept |= {name: {str(key): value for key, value in rule.items()} for name, rule in rules.items()}  # as `ClassRules`
    format_name = OmegaConf.select(config, "data.module.dataset.format._target_")
    return {"format": format_name, "folder": _path(kept), **kept}


def use_data_settings(config: DictConfig, kept: Any, *, checkpoint: str) -> bool:
    """Use the settings that a checkpoint keeps where the command line gives none.

    Settings of the classes belong to the detector. The others are used for the same root and format. `kept` is what
    `data_settings` returned for the training, None if the checkpoint keeps nothing. `config.data` changes.

    Returns:
        Whether root and format are those of the training.

    Raises:
        WeightsError: the checkpoint keeps something else.
    """
    if kept is None:
        return False
    if not isinstance(kept, dict) or not _is_plain(kept):
        raise WeightsError(f"{checkpoint}: its settings of the data are not plain values: {kept!r:.200}")
    given = {name.removeprefix("data.") for name in CommandLine.current().names if name.startswith("data.")}
    if given & set(OF_VALIDATION):  # they replace each other
        given |= set(OF_VALIDATION)
    here = data_settings(config)
    others = {name: value for name, value in kept.items() if name in here and value != here[name] and name not in given}
    is_there = here["folder"] in (kept.get("folder"), _path(kept))  # the latter for a project that was moved
    is_same = kept.get("format") == here["format"] and is_there
    used = {name: others[name] for name in (*OF_CLASSES, *(OF_IMAGES if is_same else ())) if name in others}
    for name, value in used.items():
        OmegaConf.update(config, f"data.{name}", value, merge=False)
    if used:
        log.info("%s: settings of its training are used: %s", checkpoint, _described(used))
    unused = {name: others[name] for name in OF_IMAGES if name in others and not is_same}
    if unused:
        root = _described({"root": kept.get("root")}) + (" with another data=" if is_there else "")
        log.info("%s: trained on %s, whose settings are not used here: %s", checkpoint, root, _described(unused))
    return is_same


def _is_plain(value: Any) -> bool:
    """Tell whether a value neither refers to other settings nor names an object to build, as a hostile file may."""
    if isinstance(value, Mapping):
        return "_target_" not in value and all(isinstance(key, str) and _is_plain(item) for key, item in value.items())
    if isinstance(value, list):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, bool | int | float) or (isinstance(value, str) and "${" not in value)


def _path(settings: Mapping[str, Any]) -> str:
    return os.path.abspath(os.path.expanduser(str(settings.get("root"))))


def _described(settings: Mapping[str, Any]) -> str:
    return one_line(", ".join(f"data.{name}={value}" for name, value in settings.items()))
