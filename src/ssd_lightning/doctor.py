"""`python -m ssd_lightning.doctor`: check a data set and the first training steps before a run."""

import os

from ssd_lightning.run_command import run_command


def main() -> None:
    """Run the command."""
    # The memory profiler has its own log, which reports GPUs that a machine lacks.
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")
    run_command("doctor")


if __name__ == "__main__":
    main()
