"""Start and end of a sweep."""

import logging
import os
import signal
import sys
from pathlib import Path
from typing import Any

from hydra.core.plugins import Plugins
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from ssd_lightning.checks import require_score
from ssd_lightning.errors import ConfigurationError
from ssd_lightning.run_command import exit_at_user_errors
from ssd_lightning.run_files import read_json, write_json
from ssd_lightning.sweeps.plan import what_is_swept, what_it_is
from ssd_lightning.sweeps.records import FAILED, FINISHED, REPEATS, SWEEP, read_jobs

log = logging.getLogger(__name__)


class SweepCallback(Callback):
    """Keeps a sweep in one directory, and reports its results at the end."""

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Set the sweep's directory, reject it if it contains another sweep, and register our sweeper with Hydra."""
        with exit_at_user_errors():  # Hydra would go on
            require_score("objective", str(config.objective))
        directory = Path(config.hydra.sweep.dir).resolve()
        # For all jobs, even if one overrides the name that is part of it.
        quoted = str(directory).replace("\\", "\\\\").replace("'", "\\'")
        with read_write(config), open_dict(config):
            config.hydra.sweep.dir = str(directory)
            others = [text for text in config.hydra.overrides.hydra if not text.startswith("hydra.sweep.dir=")]
            config.hydra.overrides.hydra = OmegaConf.create([*others, f"hydra.sweep.dir='{quoted}'"])
        overrides = list(config.hydra.overrides.task)
        more = [f"{key}={value}" for key, value in (config.hydra.sweeper.get("params") or {}).items()]
        sweep = {"overrides": what_it_is(overrides), "swept": what_is_swept([*more, *overrides])}
        earlier = read_json(directory / SWEEP)
        if earlier is not None and earlier != sweep:
            found = " ".join(earlier["overrides"])
            with exit_at_user_errors():
                raise ConfigurationError(
                    f"{directory} contains another sweep ({found}); choose a different name: sweep.name=NAME"
                )
        write_json(directory / SWEEP, sweep)
        stop_at_signals()
        target = str(config.hydra.sweeper._target_)
        if target.startswith("hydra_plugins.ssd_lightning."):
            from ssd_lightning.sweeps.search import SearchSweeper  # needs optuna

            # Hydra accepts only sweepers from the package `hydra_plugins`, which it checks by their configured name.
            Plugins.instance().class_name_to_class[target] = SearchSweeper

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Write `sweep_results.csv` and the plot, print table and best command line. Exit with 1 if jobs failed."""
        failed = conclude_sweep(Path(config.hydra.sweep.dir), str(config.objective))
        if failed:
            print(f"error: {len(failed)} of the sweep's jobs failed:", *failed, sep="\n  ", file=sys.stderr)
            sys.exit(1)


def stop_at_signals() -> None:
    """Exit with 128 + the signal's number at a signal between two jobs."""

    def stop(signum: int, frame: Any) -> None:
        log.warning("the sweep was stopped; run the same command again to continue it")
        sys.exit(128 + signum)

    for signum in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signum, stop)


def conclude_sweep(directory: Path, objective: str) -> list[str]:
    """Write and print the results of a sweep, and return a line for each job that failed."""
    from ssd_lightning.sweeps import summary
    from ssd_lightning.visualization.sweep_plots import save_sweep_plot
    from ssd_lightning.visualization.tables import print_table

    jobs = read_jobs(directory)
    swept = (read_json(directory / SWEEP) or {}).get("swept", [])
    summary.write_csv(directory / "sweep_results.csv", jobs, swept, objective)
    finished = [job for _, job in jobs if job.status == FINISHED]
    only_repeats = bool(swept) and set(swept) <= set(REPEATS) and bool(finished)
    if not only_repeats or len(finished) < len(jobs):
        print_table(summary.result_table(jobs, swept, objective))
    if only_repeats:
        print_table(summary.seed_table(finished, objective))
    written = [directory / "sweep_results.csv"]
    if finished and swept:
        repeated = "; bars are mean +- sd" if set(swept) & set(REPEATS) and not only_repeats else ""
        title = f"{directory.name}: {len(finished)} of {len(jobs)} runs finished{repeated}"
        written.append(directory / "sweep_results.png")
        values, scores = summary.plotted_values(finished, swept), summary.objectives(finished)
        save_sweep_plot(written[-1], values, scores, objective=objective, title=title)
    print(*map(os.path.relpath, written), sep="\n")
    if best := summary.best_commands(jobs, swept):
        among = f" ({len(best)} settings are tied; the first is shown)" if len(best) > 1 else ""
        print(f"recipe: {best[0]}" if only_repeats else f"best{among}: {best[0]}")
    return [f"job {job.number} ({os.path.relpath(path)}): {job.reason}" for path, job in jobs if job.status == FAILED]
