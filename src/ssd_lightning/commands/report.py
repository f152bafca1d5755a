"""Write an HTML page for one run, or a comparison of several."""

from pathlib import Path

from omegaconf import DictConfig, ListConfig

from ssd_lightning.checks import require_number
from ssd_lightning.errors import ConfigurationError, DataError
from ssd_lightning.reporting.comparison import COMPARISON, write_comparison
from ssd_lightning.reporting.page import REPORT, require_own_page, write_live_report, write_report
from ssd_lightning.reporting.run import read_run, runs_below
from ssd_lightning.reporting.summary import evaluation_command


def report(config: DictConfig) -> Path:
    """Write the page for one run or several, and return its path.

    Raises `DataError` for a run that was never evaluated, after its page has been written.
    """
    named = [Path(str(name)) for name in (config.run if isinstance(config.run, ListConfig) else [config.run])]
    if not named:
        raise ConfigurationError("run=[] is empty; give a run directory, or several: run=[A,B]")
    runs = [run for path in named for run in runs_below(path)]
    # The page of all runs of a sweep is written next to them.
    folder = named[0] if len(named) == 1 else Path()
    default = runs[0] / REPORT if len(runs) == 1 else folder / COMPARISON
    output = Path(str(config.output)) if config.output else default
    if output.resolve() != default.resolve():
        require_own_page(output, runs)
    if config.live and len(runs) > 1:
        raise ConfigurationError(f"live=true follows one run, and run={config.run} is {len(runs)}")
    if len(runs) == 1:
        if config.live:
            require_number("interval_s", config.interval_s, 1, whole=True)
            path = write_live_report(runs[0], output, interval_s=config.interval_s)
        else:
            path = write_report(runs[0], output)
        run = read_run(runs[0])
        if not run.evaluations and run.best_validation() is None:
            how = f"; {evaluation_command(run, 'val')} adds the rest" if run.checkpoint else ""
            raise DataError(f"{runs[0]}: this run was never evaluated, so {path} shows no more than its training{how}")
    else:
        path = write_comparison(runs, output)
    print(f"report: {path}")
    return path
