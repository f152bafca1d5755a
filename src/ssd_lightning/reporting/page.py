"""The page of one run, as one HTML file without external files."""

import hashlib
import logging
import os
import re
import time
from collections.abc import Iterable
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import yaml

import ssd_lightning
from ssd_lightning.analysis.pr_curves import mean_ap, pr_curves
from ssd_lightning.errors import ConfigurationError, DataError, UserError
from ssd_lightning.reporting.charts import curve_charts
from ssd_lightning.reporting.coverage import coverage_part
from ssd_lightning.reporting.evaluation import SCORE_THRESHOLD, evaluation_part, number
from ssd_lightning.reporting.run import METRICS, SPLITS, NothingToShowError, Run, read_run
from ssd_lightning.reporting.summary import facts, gaps, reproduction, score_rows
from ssd_lightning.run_files import RESULT, written_whole
from ssd_lightning.visualization.svg import THEME

log = logging.getLogger(__name__)

REPORT = "report.html"
QUIET_S = 600
"""Time without a new value after which a live report says that its run may have been stopped."""
MOST_OPEN = 20
"""Number of classes with visible curves; those of more classes are collapsed."""
EVALUATION_PARTS = {
    "classes": "Classes",
    "curves": "Precision and recall",
    "confusion": "Confusion",
    "errors": "Errors",
    "sizes": "Sizes",
    "calibration": "Calibration",
    "images": "Images",
}

HEAD_BYTES = 65_536
"""Size that fits the marks of more runs than a page can compare."""
MARK = re.compile(rb'<meta name="generator" content="ssd_lightning report" data-runs="([0-9a-f ]+)">')
"""The mark that `page.html.j2` writes into the head of every page."""


def write_report(run_dir: Path, output: Path | None = None, *, refresh_s: int | None = None) -> Path:
    """Write the page of a run, finished or not, and return its path, by default `report.html` in the run directory.

    With `refresh_s`, a browser loads the page again after this time.
    """
    return write_page(run_page(read_run(run_dir), refresh_s=refresh_s), output or run_dir / REPORT)


def write_live_report(run_dir: Path, output: Path, *, interval_s: int) -> Path:
    """Write the page of a run every `interval_s` until the run has ended. A browser that shows the page follows it.

    The last page, that of the finished run or after Ctrl-C, does not refresh itself. A run that has nothing to show yet
    is waited for.
    """
    logged = ""
    try:
        while not (run_dir / RESULT).is_file():
            try:
                write_report(run_dir, output, refresh_s=interval_s)
                written = (path for path in (run_dir / METRICS, *run_dir.glob("checkpoints/*")) if path.exists())
                if time.time() - max((path.stat().st_mtime for path in written), default=time.time()) > QUIET_S:
                    state = f"{run_dir}: nothing has changed for {QUIET_S // 60} min; if it was stopped, press Ctrl-C"
                else:
                    state = f"{output} is written every {interval_s} s until the run ends; Ctrl-C stops this"
            except NothingToShowError as error:
                state = f"{error}; waiting for it"
            if state != logged:
                log.info(state)
                logged = state
            time.sleep(interval_s)
    except KeyboardInterrupt:
        with suppress(NothingToShowError):
            write_report(run_dir, output)
        raise
    return write_report(run_dir, output)


def try_report(run_dir: Path) -> Path | None:
    """Write the page of a run that has just finished. Errors are only logged, since the run itself succeeded."""
    try:
        return write_report(run_dir)
    except Exception as error:
        log.warning("no %s was written: %s", run_dir / REPORT, " ".join(str(error).split()) or type(error).__name__)
        return None


def run_page(run: Run, *, refresh_s: int | None = None) -> str:
    """Return the page of a run as HTML, see `write_report`."""
    missing, charts, again = gaps(run), curve_charts(run), reproduction(run)
    config = yaml.safe_dump(dict(run.config), sort_keys=False, allow_unicode=True, width=100) if run.config else ""
    coverage = _coverage(run, missing)
    contents = {"summary": "Summary", **({"curves": "Curves"} if charts else {})}
    contents |= {split: SPLITS[split].capitalize() for split in run.evaluations}
    there = {"priors": coverage, "configuration": config, "reproduction": again}
    contents |= {name: name.capitalize() for name, content in there.items() if content}
    return render(
        "run.html.j2",
        runs_mark=runs_mark([run.directory]),
        kicker="Training run" if refresh_s is None else "Training run, live",
        refresh_s=refresh_s,
        title=run.name,
        subtitle=str(run.directory),
        contents=contents,
        evaluation_parts=EVALUATION_PARTS,
        score_rows=score_rows(run),
        gaps=missing,
        facts=facts(run),
        curve_charts=charts,
        evaluations=list(map(evaluation_part, run.evaluations.values())),
        evaluated={split: evaluated_epoch(run, split) for split in run.evaluations},
        score_threshold=SCORE_THRESHOLD,
        most_open=MOST_OPEN,
        coverage=coverage,
        config=config,
        reproduction=again,
        command=run.record.get("command"),
    )


def evaluated_epoch(run: Run, split: str) -> str:
    """Describe the validation that the evaluation belongs to, found by its mAP; empty if none matches."""
    curve = run.curves.get(f"{split}/map_area")
    if split != "val" or curve is None:
        return ""
    same = np.flatnonzero(np.isclose(curve.values, mean_ap(pr_curves(run.evaluations[split])), atol=1e-5))
    return f"The weights are those after epoch {curve.epochs[same[-1]] + 1}." if len(same) else ""


def render(template: str, *, refresh_s: int | None = None, **content: Any) -> str:
    """Render a template; everything except markup is escaped."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    written = datetime.now().astimezone().strftime("%Y-%m-%d %H:%M")
    return environment.get_template(template).render(
        **content,
        refresh_s=refresh_s,
        theme=THEME,
        split_names=SPLITS,
        number=number,
        version=ssd_lightning.__version__,
        written=written,
    )


def write_page(html: str, path: Path) -> Path:
    """Write a page atomically."""
    try:
        with written_whole(path) as partial:
            # File names may contain bytes that are not UTF-8, which a page cannot show.
            partial.write_bytes(html.encode("utf-8", "replace"))
    except OSError as error:
        raise DataError(f"the page cannot be written to {path}: {error.strerror or error}") from error
    return path


def runs_mark(directories: Iterable[Path]) -> str:
    """Return the mark that identifies a page of these runs: a hash for each directory, without its name."""
    names = {os.fsencode(path.resolve()) for path in directories}
    return " ".join(sorted(hashlib.blake2b(name, digest_size=8).hexdigest() for name in names))


def require_own_page(output: Path, directories: Iterable[Path]) -> None:
    """Check that writing a page does not destroy another file.

    A page of one run may be replaced by a newer one of that run. A page of several runs may also be replaced by one of
    these and more runs, since sweeps grow.

    Raises:
        ConfigurationError: the suffix is not that of a page, or another file or a page of other runs exists there.
    """
    if output.suffix.lower() != ".html":
        raise ConfigurationError(f"output={output} does not end in .html, and what is written is an HTML page")
    if not os.path.isfile(output):
        return
    try:
        with output.open("rb") as file:
            mark = MARK.search(file.read(HEAD_BYTES))
    except OSError:
        mark = None
    if mark is None:
        raise ConfigurationError(f"output={output} already exists and is not a page of this command; give another name")
    before, now = set(mark[1].decode().split()), set(runs_mark(directories).split())
    has_grown = len(before) > 1 and before < now
    if before != now and not has_grown:
        raise ConfigurationError(
            f"output={output} is a page of other runs; give another name, or delete it if it is not needed"
        )


def _coverage(run: Run, missing: list[str]) -> dict[str, Any] | None:
    record = next(iter(run.evaluations.values()), None)
    if record is None:
        return None
    if run.checkpoint is None:
        missing.append("No coverage by the priors: the checkpoint, which stores them, is missing.")
        return None
    try:
        return coverage_part(record, run.checkpoint)
    except UserError as error:
        missing.append(f"No coverage by the priors: {error}.")
        return None
