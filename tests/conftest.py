"""Fixtures that several packages share."""

import gc
import os
import pickle
import shutil
import signal
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_repository import ConfigRepository
from hydra.types import RunMode

from ssd_lightning.command_line import REPEATED

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

gc.set_threshold(50_000, 20, 50)  # with Python's own, the search for cycles takes an eighth of the tests' time
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
os.environ.setdefault("WANDB_MODE", "offline")
if "PYTEST_XDIST_WORKER_COUNT" in os.environ:  # processes with threads for all cores each would wait for one another
    cores = (os.cpu_count() or 1) // int(os.environ["PYTEST_XDIST_WORKER_COUNT"])
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, cores)))

REPOSITORY = Path(__file__).parents[1]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Start the files with the slowest tests first. Otherwise one process is left alone with the last of them."""
    seconds: Counter[Path] = Counter()
    for item in items:
        if item.get_closest_marker("slow"):
            timeout = item.get_closest_marker("timeout")
            seconds[item.path] = max(seconds[item.path], timeout.args[0] if timeout else 600)
    items.sort(key=lambda item: -seconds[item.path])


HANDLERS = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}


@pytest.fixture(autouse=True)
def _signal_handlers() -> Iterator[None]:
    """Give signals back: a command, also one of a module's fixture, sets handlers for the rest of its process."""
    for number, handler in HANDLERS.items():
        signal.signal(number, handler)
    yield
    for number, handler in HANDLERS.items():
        signal.signal(number, handler)


@pytest.fixture(autouse=True, scope="session")
def _absl_closes_no_stream() -> None:
    """Give absl's log handler, which TensorBoard brings, a stream that it does not close.

    Hydra configures logging in each command, which closes all handlers. This one closes the stream that it was made
    with, unless that is `sys.stderr` at that moment: in a test that captures its output, it closes pytest's own file.
    """
    try:
        from absl import logging as absl_logging
    except ImportError:
        return
    absl_logging.get_absl_handler().python_handler.stream = sys.__stderr__


@pytest.fixture(autouse=True, scope="session")
def compositions() -> Iterator[dict[tuple, bytes]]:
    """Compose the packaged configuration from parts that are kept: hundreds of tests need it.

    Kept are the content of each file, and the result of each set of overrides.
    """
    compose, read = ConfigLoaderImpl.load_configuration, ConfigRepository.load_config
    kept: dict[tuple, bytes] = {}

    def remember(key: tuple, make: Callable[[], Any]) -> Any:
        """Give a copy of what was made for the key; pickles are read six times faster than nodes are copied."""
        if key not in kept:
            kept[key] = pickle.dumps(make())
            if len(kept) > 2000:
                del kept[next(iter(kept))]
        return pickle.loads(kept[key])

    def read_once(self: Any, config_path: str) -> Any:
        if config_path.startswith("experiment/"):  # of the store, which may have their names alone
            return read(self, config_path)
        return remember(("file", config_path), lambda: read(self, config_path))

    def load(self: Any, config_name: Any, overrides: list[str], run_mode: RunMode, *more: Any, **flags: Any) -> Any:
        paths = {place.path.removeprefix("file://") for place in self.config_search_path.get_path() if place.path}
        is_packaged = paths == {"pkg://hydra.conf", str(REPOSITORY / "conf"), "structured://"}
        if not is_packaged or config_name == REPEATED or any("hydra.searchpath" in text for text in overrides):
            return compose(self, config_name, overrides, run_mode, *more, **flags)
        key = (config_name, *overrides, run_mode)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(ConfigRepository, "load_config", read_once)
            config = remember(key, lambda: compose(self, config_name, overrides, run_mode, *more, **flags))
        config.hydra.runtime.cwd = os.getcwd()
        return config

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ConfigLoaderImpl, "load_configuration", load)
        yield kept


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """Reference vectors and real images that are kept beside the checkout, not inside it."""
    folder = Path(os.environ.get("SSD_LIGHTNING_SHARED", REPOSITORY.parent / "shared"))
    if not folder.is_dir():
        pytest.skip(f"no reference data at {folder} (set SSD_LIGHTNING_SHARED)")
    return folder


@pytest.fixture(scope="session")
def reference_dir(shared_dir: Path) -> Path:
    return shared_dir / "reference"


BROWSERS = ("chromium", "chromium-browser", "google-chrome-stable", "google-chrome")


@pytest.fixture(scope="session")
def chromium() -> "Iterator[Browser]":
    """A real browser without a window; it comes from the system, for Python packages hold none."""
    executable = next(filter(None, map(shutil.which, BROWSERS)), None)
    if executable is None:
        assert not os.environ.get("CI"), f"the pages have to be looked at, and none of {BROWSERS} is installed"
        pytest.skip(f"none of {', '.join(BROWSERS)} is installed")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        # The sandbox needs rights that containers lack; only pages made here are opened. The camera is a moving test
        # image, and asks nobody.
        overrides = ["--no-sandbox", "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
        browser = playwright.chromium.launch(executable_path=executable, args=overrides)
        yield browser
        browser.close()


@pytest.fixture
def page(chromium: "Browser") -> "Iterator[Page]":
    """An empty page that fails the test where a script of it fails or it asks for anything beyond this machine."""
    page = chromium.new_page()
    wrongs: list[str] = []
    page.on("pageerror", lambda error: wrongs.append(f"script error: {error}"))
    page.on("request", lambda request: wrongs.append(request.url) if not _is_local(request.url) else None)
    yield page
    page.close()
    assert not wrongs


def _is_local(url: str) -> bool:
    return url.startswith(("file:", "data:", "blob:", "about:", "http://127.0.0.1:", "http://localhost:"))
