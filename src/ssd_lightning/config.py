"""Find and compose configurations. This module does not import torch, so that `--help` is fast."""

import os
from collections import defaultdict
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig, OmegaConf

from ssd_lightning.command_line import CONFIG_DIR_FLAGS, CONFIG_NAME_FLAGS, CONFIG_PATH_FLAGS, CommandLine, spell_out
from ssd_lightning.errors import ConfigurationError
from ssd_lightning.overrides import check_each
from ssd_lightning.run_dirs import run_dir

PACKAGE = Path(__file__).resolve().parent
EXPERIMENT_GROUP = "experiment"


def find_folder(name: str) -> Path:
    """Find `conf`, `experiments` or `demo_data`: in the package for a wheel, else in the checkout.

    Raises:
        ConfigurationError: the folder is in neither place.
    """
    for folder in (PACKAGE / name, PACKAGE.parents[1] / name):
        if folder.is_dir():
            return folder
    raise ConfigurationError(f"the installation is incomplete: no folder {name} in {PACKAGE} or {PACKAGE.parents[1]}")


def register_experiments(config_name: str, arguments: Sequence[str] | None = None) -> None:
    """Register every file of `experiments/` as a choice of the group `experiment`, for commands that have this group.

    Only the recipes that the command line names, and those that these extend, are read, since to read all takes as long
    as to compose; the others are registered without content. All are read without a command line, if a configuration
    may name one itself, and for names that are not written out, such as `glob(ssd300*)`.
    """
    OmegaConf.register_new_resolver("run_dir", run_dir, replace=True)
    OmegaConf.register_new_resolver("packaged_folder", lambda name: str(find_folder(name)), replace=True)
    packaged = find_folder("conf") / f"{config_name}.yaml"
    if packaged.is_file() and EXPERIMENT_GROUP not in packaged.read_text():
        return  # predict and others start faster without
    paths = sorted(find_folder("experiments").glob("*.yaml"))
    if arguments is None or any(text.lstrip("+").startswith("experiment=") and "(" in text for text in arguments):
        wanted = paths
    else:
        wanted = [path for path in paths if any(path.stem in text for text in arguments)]
        for path in wanted:  # grows by the recipes that these extend
            names = [entry for entry in _read_recipe(path).get("defaults") or [] if isinstance(entry, str)]
            extended = [path.with_name(f"{name}.yaml") for name in names if name != "_self_"]
            wanted += [other for other in extended if other not in wanted]
    store = ConfigStore.instance()
    registered = store.repo.get(EXPERIMENT_GROUP, {})
    for path in paths:
        if path not in wanted and f"{path.stem}.yaml" in registered:
            continue  # what was read stays: the second job of a sweep may need it
        node = _read_recipe(path) if path in wanted else {}
        store.store(group=EXPERIMENT_GROUP, name=path.stem, node=node, package="_global_", provider="experiments")


@cache
def _read_recipe(path: Path) -> Any:
    return OmegaConf.load(path)


def compose_config(
    config_name: str,
    overrides: list[str] | None = None,
    *,
    folder: Path | None = None,
    return_hydra_config: bool = False,
) -> DictConfig:
    """Compose a configuration as a command does, without running it.

    Args:
        config_name: name of the command, such as `train`.
        overrides: `key=value` and `group=choice`, as on the command line.
        folder: folder of the configurations; None for `conf`.
        return_hydra_config: include Hydra's own settings as `hydra`.
    """
    packaged, overrides = find_folder("conf"), spell_out(overrides or [])
    has_own_config = folder not in (None, packaged) or CommandLine(tuple(overrides)).has_own_config
    register_experiments(config_name, None if has_own_config else overrides)
    GlobalHydra.instance().clear()
    with initialize_config_dir(config_dir=os.path.abspath(folder or packaged), version_base="1.3"):
        return compose(config_name, overrides=overrides, return_hydra_config=return_hydra_config)


def check_overrides(config_name: str, overrides: list[str]) -> None:
    """Reject unknown keys and choices, and suggest the nearest known one.

    Raises:
        ConfigurationError: a key, group or choice does not exist, or an argument is not `key=value`.
    """
    line = CommandLine.current()
    path, more = line.value_of(CONFIG_PATH_FLAGS), line.value_of(CONFIG_DIR_FLAGS)
    searched = [text for text in overrides if text.startswith("hydra.searchpath=")]
    if any("://" in place for place in (path or "", *searched)):
        return  # a package, whose files only Hydra can find
    name = line.value_of(CONFIG_NAME_FLAGS) or config_name
    folder, *others = [Path(path) if path else find_folder("conf"), *([Path(more)] if more else [])]
    if others and not (folder / f"{name}.yaml").is_file():  # the first folder must contain the command's configuration
        folder, others = others[0], [folder]
    if others and not searched:
        searched = [f'hydra.searchpath=["{os.path.abspath(others[0])}"]']

    def compose_as_here(overrides: list[str]) -> DictConfig:
        return compose_config(name, [*searched, *overrides], folder=folder, return_hydra_config=True)

    check_each(overrides, known_groups(folder, *others), compose_as_here)


def known_groups(*roots: Path) -> dict[str, list[str]]:
    """List the choices of every group in folders of configurations, and the recipes."""
    groups: dict[str, set[str]] = defaultdict(set)
    for root in roots:
        for path in root.rglob("*/*.yaml"):
            groups[str(path.parent.relative_to(root))].add(path.stem)
    groups[EXPERIMENT_GROUP] |= {path.stem for path in find_folder("experiments").glob("*.yaml")}
    return {name: sorted(choices) for name, choices in groups.items()}
