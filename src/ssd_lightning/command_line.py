"""The command line: its flags and overrides, before Hydra reads it. This module does not import torch."""

import logging
import os
import re
import sys
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from ssd_lightning.errors import ConfigurationError

log = logging.getLogger(__name__)

CONFIG_PATH_FLAGS = {"-cp", "--config-path"}
CONFIG_NAME_FLAGS = {"-cn", "--config-name"}
CONFIG_DIR_FLAGS = {"-cd", "--config-dir"}
OWN_CONFIG_FLAGS = CONFIG_PATH_FLAGS | CONFIG_NAME_FLAGS | CONFIG_DIR_FLAGS
FLAGS_WITH_VALUES = OWN_CONFIG_FLAGS | {"--package", "-p", "--cfg", "-c", "--experimental-rerun"}
HELP_FLAGS = {"-h", "--help"}
INFO_FLAGS = {"--info", "-i"}
"""Flags that print information; a value is optional."""
EXPLANATION_FLAGS = {*HELP_FLAGS, *INFO_FLAGS, "--hydra-help", "-c", "--cfg", "--version", "-sc", "--shell-completion"}
MULTIRUN_FLAGS = {"-m", "--multirun"}

ABBREVIATIONS = {"priors=auto": "priors.fit=true"}
"""Shortcuts. Fitting works with every choice of priors, whereas a group choice would replace it."""
REPEATED = "repeated_run"
"""Name of the configuration that `--config-path RUN/.hydra` stands for."""


def spell_out(arguments: Collection[str]) -> list[str]:
    """Replace abbreviations in arguments, and the `~` of the home folder, which shells keep after a `=`."""
    home, words = os.path.expanduser("~/"), (ABBREVIATIONS.get(argument, argument) for argument in arguments)
    return [re.sub(r"^([^=]+=[\"']?)~/", lambda found: found[1] + home, word) for word in words]


def warn_without(needed: str, *names: str) -> None:
    """Warn of settings on the command line that have no effect without another one."""
    for name in names:
        if name in CommandLine.current().names:
            log.warning("%s= has no effect without %s=", name, needed)


@dataclass(frozen=True)
class CommandLine:
    """Arguments of a command: flags, values of flags and overrides, without the name of the command."""

    arguments: tuple[str, ...]

    @classmethod
    def current(cls) -> "CommandLine":
        """Return the command line of this process."""
        return cls(tuple(sys.argv[1:]))

    def use(self) -> None:
        """Make this the command line of the process: Hydra reads it, and Lightning starts the other ranks with it."""
        sys.argv[1:] = self.arguments

    def has(self, flags: Collection[str]) -> bool:
        """Whether one of the flags is given, as `--flag` or `--flag=value`."""
        return any(argument.partition("=")[0] in flags for argument in self.arguments)

    def value_of(self, flags: Collection[str]) -> str | None:
        """Return the value of a flag, `--flag value` or `--flag=value`; None if the flag is missing."""
        for argument, following in zip(self.arguments, [*self.arguments[1:], None], strict=False):
            name, sign, value = argument.partition("=")
            if name in flags:
                return value if sign else following
        return None

    @property
    def overrides(self) -> list[str]:
        """The arguments that are neither flags nor values of flags."""
        overrides, previous, arguments = [], "", iter(self.arguments)
        for argument in arguments:
            if argument in FLAGS_WITH_VALUES:
                next(arguments, None)
            elif not argument.startswith("-") and ("=" in argument or previous not in INFO_FLAGS):
                overrides.append(argument)
            previous = argument
        return overrides

    @property
    def names(self) -> list[str]:
        """The settings and groups that the overrides change."""
        return [override.lstrip("+~").partition("=")[0] for override in self.overrides]

    @property
    def is_plain(self) -> bool:
        """Whether there are only overrides, and none that Hydra reads before it composes."""
        return not any(text.startswith(("-", "hydra.mode=", "hydra.searchpath=")) for text in self.arguments)

    @property
    def has_own_config(self) -> bool:
        """Whether there may be configurations of the user's own."""
        return self.has(OWN_CONFIG_FLAGS) or any(text.startswith("hydra.searchpath=") for text in self.arguments)

    @property
    def is_multirun(self) -> bool:
        """Whether several runs are asked for."""
        return self.has(MULTIRUN_FLAGS) or "hydra.mode=MULTIRUN" in self.arguments

    @property
    def repeated_run(self) -> Path | None:
        """The run directory that `--config-path RUN/.hydra` repeats; None if no run is repeated."""
        folder = Path(self.value_of(CONFIG_PATH_FLAGS) or "")
        is_left_by_hydra = (folder / "config.yaml").is_file() and (folder / "hydra.yaml").is_file()
        return folder.parent if is_left_by_hydra and self.value_of(CONFIG_NAME_FLAGS) in (None, REPEATED) else None

    def with_absolute_config_path(self, config_name: str) -> "CommandLine":
        """Make the folder of `--config-path` absolute, since Hydra would search it next to the package.

        Raises:
            ConfigurationError: the folder of `--config-path` or `--config-dir` does not exist, or it is a run
                directory and not its configuration folder.
        """
        more, given = self.value_of(CONFIG_DIR_FLAGS), self.value_of(CONFIG_PATH_FLAGS)
        if more is not None and not Path(more).is_dir():
            raise ConfigurationError(f"--config-dir={more}: there is no such folder")
        if given is None or "://" in given:  # as in pkg://
            return self
        if not Path(given).is_dir():
            raise ConfigurationError(f"--config-path={given}: there is no such folder")
        kept = Path(given) / ".hydra"
        has_own = (Path(given) / f"{config_name}.yaml").is_file() or self.has(CONFIG_NAME_FLAGS)
        if (kept / "config.yaml").is_file() and not has_own:
            raise ConfigurationError(f"--config-path={given}: a run is repeated by --config-path={kept}")
        others, arguments = [], iter(self.arguments)
        for argument in arguments:
            name, sign, _ = argument.partition("=")
            if name not in CONFIG_PATH_FLAGS:
                others.append(argument)
            elif not sign:
                next(arguments, None)
        return CommandLine((f"--config-path={os.path.abspath(given)}", *others))
