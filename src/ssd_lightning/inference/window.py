"""A window that shows images, with Python's tkinter. OpenCV's headless build has no windows."""

import gc
import time

from PIL import Image

from ssd_lightning.errors import ConfigurationError

SHARE_OF_SCREEN = 0.9
INSTEAD = "leave show out: save=images has the annotated copies"


class Window:
    """Shows images one by one. Space, return or an arrow key shows the next; q, escape or closing the window ends.

    Raises:
        ConfigurationError: this Python has no tkinter, or there is no display.
    """

    def __init__(self) -> None:
        try:
            import tkinter

            from PIL import ImageTk
        except ImportError as error:
            raise ConfigurationError(
                f"show=true: this Python has no tkinter ({error}; Debian and Ubuntu: apt install python3-tk "
                f"python3-pil.imagetk); {INSTEAD}"
            ) from error
        try:
            self._root = tkinter.Tk()
        except tkinter.TclError as error:
            raise ConfigurationError(
                f"show=true: there is no display to open a window on ({error}); {INSTEAD}"
            ) from error
        self._to_photo = ImageTk.PhotoImage
        self._photo: object = None
        self._label = tkinter.Label(self._root, borderwidth=0, background="black")
        self._label.pack(expand=True, fill="both")
        self._goes_on = True
        self._last_shown_s = 0.0
        for key in ("<space>", "<Return>", "<Right>", "<Down>"):
            self._root.bind(key, lambda event: self._end(goes_on=True))
        for key in ("q", "Q", "<Escape>"):
            self._root.bind(key, lambda event: self._end(goes_on=False))
        self._root.protocol("WM_DELETE_WINDOW", lambda: self._end(goes_on=False))
        self._error: BaseException | None = None
        self._root.report_callback_exception = self._keep_error
        self._tick()

    def show(self, image: Image.Image, *, title: str, fps: float | None = None) -> bool:
        """Show an image until a key is pressed, or as a frame of a video, which stays until the next is due.

        An image that does not fit the screen is scaled down.

        Returns:
            False once the user has ended the display.
        """
        width, height = self._root.winfo_screenwidth(), self._root.winfo_screenheight()
        fitted = image.copy()
        fitted.thumbnail((int(width * SHARE_OF_SCREEN), int(height * SHARE_OF_SCREEN)))
        photo = self._to_photo(fitted, master=self._root)
        self._label.configure(image=photo)
        self._photo = photo  # the label keeps no reference, and tkinter drops unreferenced images
        self._root.title(title)
        due = None
        if fps is not None:
            late_s = time.monotonic() - self._last_shown_s
            wait_ms = max(1, round(1000 * (1 / fps - late_s)))
            due = self._root.after(wait_ms, lambda: self._end(goes_on=True))
        self._root.mainloop()
        if due is not None:
            self._root.after_cancel(due)
        self._last_shown_s = time.monotonic()
        if self._error is not None:
            raise self._error
        return self._goes_on

    def close(self) -> None:
        """Close the window."""
        self._root.after_cancel(self._next_tick)
        self._root.destroy()
        # Tcl aborts the process if another thread's garbage collection frees its last object.
        del self._root, self._label, self._photo
        gc.collect()

    def _end(self, *, goes_on: bool) -> None:
        self._goes_on = goes_on
        self._root.quit()

    def _keep_error(self, kind: type[BaseException], error: BaseException, trace: object) -> None:
        # Ctrl-C may arrive in a callback of the window. tkinter would print it and keep waiting.
        self._error = error
        self._root.quit()

    def _tick(self) -> None:
        # Python handles Ctrl-C only when an event arrives, so a timer creates events.
        self._next_tick = self._root.after(200, self._tick)
