"""A clock that only the test moves."""


class Clock:
    """Seconds that pass when a test says so. It may stand for the module `time`."""

    def __init__(self, now: float = 0.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now

    perf_counter = __call__

    def go(self, seconds: float) -> None:
        self.now += seconds
