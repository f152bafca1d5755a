"""The window on a display of its own, where there is a server for one; what it says where there is none."""

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from PIL import Image, ImageGrab

from ssd_lightning.errors import ConfigurationError
from ssd_lightning.inference.window import Window

pytestmark = pytest.mark.timeout(30)
GREEN = Image.new("RGB", (320, 200), (0, 200, 0))


@pytest.fixture(scope="module")
def display() -> Iterator[str]:
    server = shutil.which("Xvfb")
    pytest.importorskip("tkinter")
    if server is None:
        pytest.skip("Xvfb is not installed")
    read_end, write_end = os.pipe()
    overrides = [server, "-displayfd", str(write_end), "-screen", "0", "800x600x24", "-nolisten", "tcp"]
    process = subprocess.Popen(overrides, pass_fds=[write_end], stderr=subprocess.DEVNULL)
    os.close(write_end)
    with os.fdopen(read_end) as stream:
        number = stream.readline().strip()
    yield f":{number}"
    process.terminate()
    process.wait()


@pytest.fixture
def window(display: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Window]:
    monkeypatch.setenv("DISPLAY", display)
    window = Window()
    yield window
    window.close()


def press(window: Window, key: str) -> Callable[[], None]:
    """Press a key until it is stopped: before the window has the focus, which a busy display gives late, it is lost."""
    due = [""]

    def act() -> None:
        window._root.focus_force()
        window._root.event_generate(key)
        due[0] = window._root.after(50, act)

    due[0] = window._root.after(50, act)
    return lambda: window._root.after_cancel(due[0])


def close_window(window: Window) -> Callable[[], None]:
    return lambda: window._root.tk.call(*window._root.tk.splitlist(window._root.protocol("WM_DELETE_WINDOW")))


def test_keys_and_closing_the_window(window: Window) -> None:
    for key, goes_on in (("<space>", True), ("<Right>", True), ("<Return>", True), ("<q>", False), ("<Escape>", False)):
        stop = press(window, key)
        assert window.show(GREEN, title="one") is goes_on
        stop()
    window._root.after(100, close_window(window))
    assert window.show(GREEN, title="one") is False


def test_the_image_is_seen(window: Window, display: str) -> None:
    seen: list[np.ndarray] = []

    def look() -> None:
        seen.append(np.asarray(ImageGrab.grab(xdisplay=display).convert("RGB")))
        window._end(goes_on=True)

    for image in (GREEN, Image.new("RGB", (4000, 1000), (200, 0, 0))):
        window._root.after(400, look)
        assert window.show(image, title="an image")
    green = (seen[0] == (0, 200, 0)).all(axis=2)
    assert green.sum() == 320 * 200
    red = (seen[1] == (200, 0, 0)).all(axis=2)
    assert red.any(axis=0).sum() == 720  # nine tenths of the screen
    assert red.any(axis=1).sum() == 180


def test_a_video_plays_at_its_pace_by_itself(window: Window) -> None:
    window.show(GREEN, title="first", fps=20)
    start = time.monotonic()
    assert all(window.show(GREEN, title=f"frame {index}", fps=20) for index in range(10))
    assert time.monotonic() - start >= 0.45
    press(window, "<q>")
    assert not all(window.show(GREEN, title=f"frame {index}", fps=20) for index in range(200))


@pytest.mark.parametrize("fps", [None, 0.1])
def test_ctrl_c_ends_it(window: Window, fps: float | None) -> None:
    window.show(GREEN, title="a frame before", fps=100)
    timer = threading.Timer(0.2, lambda: os.kill(os.getpid(), signal.SIGINT))
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        window.show(GREEN, title="one", fps=fps)
    timer.join()


def test_a_closed_window_leaves_nothing_that_a_thread_could_collect(
    display: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DISPLAY", display)
    window = Window()
    window.show(GREEN, title="one", fps=1000)
    application = weakref.ref(window._root)
    window.close()
    assert application() is None


def test_without_a_display_or_tkinter_one_sentence_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("tkinter")
    monkeypatch.setenv("DISPLAY", ":987")
    with pytest.raises(ConfigurationError, match=r"show=true: there is no display .*leave show out") as caught:
        Window()
    assert "\n" not in str(caught.value)
    monkeypatch.setitem(sys.modules, "tkinter", None)
    with pytest.raises(ConfigurationError, match=r"show=true: this Python has no tkinter .*python3-tk"):
        Window()
