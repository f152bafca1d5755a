"""Turns a command line into a sweep, before Hydra reads it."""

import hashlib
import sys
from collections.abc import Sequence

from hydra.core.override_parser.overrides_parser import OverridesParser

from ssd_lightning.checks import require_package
from ssd_lightning.command_line import EXPLANATION_FLAGS, MULTIRUN_FLAGS, OWN_CONFIG_FLAGS, CommandLine
from ssd_lightning.config import check_overrides, compose_config
from ssd_lightning.errors import ConfigurationError

HOW_NOT_WHAT = ("sweep.name", "sweep.n_trials", "sweep.batch_size")
"""Settings that may change between two calls of the same sweep."""
NEEDED = {
    "sweep=tpe": "optuna",
    "sweep=random": "optuna",
    "hydra/launcher=joblib": "hydra_plugins.hydra_joblib_launcher",
    "hydra/launcher=submitit_local": "hydra_plugins.hydra_submitit_launcher",
    "hydra/launcher=submitit_slurm": "hydra_plugins.hydra_submitit_launcher",
}


def plan_sweep(line: CommandLine) -> CommandLine:
    """Expand a command line into a sweep. A command line that is not a sweep is returned unchanged.

    `seeds=5` becomes five seeds, `sweep=tpe` a multirun, and every sweep gets a name.

    Raises:
        ConfigurationError: `seeds=` is not a valid number or conflicts with other settings, a setting is for one run
            only, or a package is missing.
    """
    if line.has(EXPLANATION_FLAGS):
        return line
    overrides, own_config = line.overrides, line.has(OWN_CONFIG_FLAGS)
    for setting, module in NEEDED.items():
        if setting in overrides:
            require_package(module, setting, "'ssd-lightning[sweep]'")
    values = dict(override.split("=", 1) for override in overrides if "=" in override)
    flags, chosen = [item for item in line.arguments if item not in overrides], list(overrides)
    seeds = values.get("seeds", "null")
    if seeds != "null":
        sweep = seed_sweep(seeds, values, own_config=own_config)
        print(f"seeds={seeds}: a sweep over {sweep}", file=sys.stderr)
        chosen = [item for item in chosen if item.partition("=")[0] not in ("seed", "seeds")] + [sweep]
    is_search = values.get("sweep", "grid") != "grid"
    if seeds == "null" and not is_search and not line.is_multirun:
        return line
    if (resume := values.get("resume", "null")) not in ("null", "auto"):
        raise ConfigurationError(
            f"resume={resume} continues one run, and this is a sweep: init_from={resume} starts each of its runs from "
            "the weights; the same command line continues a sweep"
        )
    if "hydra.run.dir" in values:
        raise ConfigurationError("hydra.run.dir= is the directory of one run; that of a sweep is hydra.sweep.dir=")
    if "sweep.name" not in values and not own_config:
        named = [item for item in chosen if not item.lstrip("+~").startswith("hydra")]
        # Their order matters, because it numbers the jobs.
        digest = hashlib.blake2b("\0".join(what_it_is(named)).encode(), digest_size=4).hexdigest()
        chosen.append(f"sweep.name=sweep_{digest}")
    # Hydra requires its flags before or after all overrides.
    return CommandLine((*flags, *([] if line.has(MULTIRUN_FLAGS) else ["--multirun"]), *chosen))


def seed_sweep(seeds: str, values: dict[str, str], *, own_config: bool) -> str:
    """Expand `seeds=N` to a sweep over `seed`, starting at the seed of the command line or the recipe."""
    if not seeds.isdecimal() or int(seeds) == 0:
        raise ConfigurationError(f"seeds={seeds}: the number of seeds to run, 1 or more")
    if values.get("sweep", "grid") != "grid":
        raise ConfigurationError(
            f"seeds={seeds} with sweep={values['sweep']}: search first, then run the best settings with several seeds"
        )
    if "seed" in values and not values["seed"].isdecimal():
        raise ConfigurationError(f"seeds={seeds} with seed={values['seed']}: seed= must be the first seed, one number")
    if "seed" in values:
        first = int(values["seed"])
    elif own_config:
        raise ConfigurationError(f"seeds={seeds} with --config-path: set the first seed too, seed=0")
    else:
        recipe = [f"experiment={values['experiment']}"] if "," not in values.get("experiment", ",") else []
        check_overrides("train", recipe)
        first = int(compose_config("train", recipe).seed)
    return "seed=" + ",".join(str(first + index) for index in range(int(seeds)))


def what_is_swept(overrides: Sequence[str]) -> list[str]:
    """List the keys and groups that have several values, in order."""
    parsed = OverridesParser.create().parse_overrides(list(overrides))
    return [override.key_or_group for override in parsed if override.is_sweep_override()]


def what_it_is(overrides: Sequence[str]) -> list[str]:
    """Return the overrides that define a sweep, without those in `HOW_NOT_WHAT`."""
    return [override for override in overrides if override.split("=")[0].lstrip("+") not in HOW_NOT_WHAT]
