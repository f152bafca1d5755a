"""`trainer.profiler=NAME`: profiles of a run, written to its directory."""

import logging
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from pytorch_lightning.profilers import AdvancedProfiler, Profiler, SimpleProfiler

from ssd_lightning.checks import require_choice

log = logging.getLogger(__name__)


def make_profiler(name: Any, run_dir: Path) -> Any:
    """Create a profiler: `simple` (seconds per part), `advanced` (seconds per function) or `trace`.

    It writes to `run_dir`. None, profiler objects and Hydra configurations (`_target_`) are returned unchanged.

    Raises:
        ConfigurationError: the name is unknown.
    """
    if name is None or isinstance(name, Profiler) or (isinstance(name, Mapping) and "_target_" in name):
        return name
    require_choice("trainer.profiler", name, ("simple", "advanced", "trace"))
    if name == "trace":
        return TraceProfiler(run_dir)
    profiler = {"simple": SimpleProfiler, "advanced": AdvancedProfiler}[name](dirpath=run_dir, filename="profile")
    log.info("profile: %s is written at the end of the run", run_dir / "fit-profile.txt")
    return profiler


class TraceProfiler(Profiler):
    """Writes a trace of all operations in a few training steps, labelled with Lightning's actions.

    Args:
        folder: folder of `trace.json.gz`. Other ranks write `trace_rank1.json.gz` and so on.
        skipped: steps before the profiler starts, in which libraries choose their kernels.
        warmup: warm-up steps of the profiler.
        active: steps that are recorded.
    """

    def __init__(self, folder: Path, *, skipped: int = 5, warmup: int = 2, active: int = 4) -> None:
        super().__init__()
        self._folder = folder
        self._needed = skipped + warmup + active
        self._schedule = torch.profiler.schedule(wait=skipped, warmup=warmup, active=active, repeat=1)
        self._profile: torch.profiler.profile | None = None
        self._steps = 0
        self._open: dict[str, AbstractContextManager] = {}

    def start(self, action_name: str) -> None:
        """Label the start of an action. The first training step starts the profiler."""
        if action_name == "run_training_batch" and self._profile is None and self._steps == 0:
            self._profile = torch.profiler.profile(
                schedule=self._schedule, on_trace_ready=self._write, record_shapes=True
            )
            self._profile.start()
        if self._profile is not None:
            self._open[action_name] = torch.profiler.record_function(action_name)
            self._open[action_name].__enter__()

    def stop(self, action_name: str) -> None:
        """Label the end of an action. The end of a training step advances the profiler."""
        if action_name in self._open:
            self._open.pop(action_name).__exit__(None, None, None)
        if action_name == "run_training_batch" and self._profile is not None:
            self._steps += 1
            self._profile.step()
            if self._steps == self._needed:
                self._end()

    def teardown(self, stage: str | None) -> None:
        """Stop the profiler. A run that ended before the first active step has no trace."""
        if self._profile is not None:
            log.warning("trace: the run ended after %d of the %d steps of a full trace", self._steps, self._needed)
            self._end()
        super().teardown(stage)

    def _end(self) -> None:
        assert self._profile is not None
        profile, self._profile = self._profile, None
        while self._open:
            self._open.popitem()[1].__exit__(None, None, None)
        profile.stop()

    def _write(self, profile: torch.profiler.profile) -> None:
        # Lightning's `local_rank` repeats on every node, and nodes may share the folder.
        rank = dist.get_rank() if dist.is_available() and dist.is_initialized() else self.local_rank
        path = self._folder / ("trace.json.gz" if rank == 0 else f"trace_rank{rank}.json.gz")
        path.parent.mkdir(parents=True, exist_ok=True)
        profile.export_chrome_trace(str(path))
        log.info("trace: %s (open it at https://ui.perfetto.dev or in chrome://tracing)", path)
