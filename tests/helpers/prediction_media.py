"""What the tests of predict send and film."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import cv2
import numpy as np

Answer = Callable[[BaseHTTPRequestHandler], None]
Web = tuple[str, dict[str, Any]]


def sends(body: bytes, content_type: str | None = None, *, length: int | None = None, to: str | None = None) -> Answer:
    """Answer with some bytes, or with the way to another address."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(302 if to else 200)
        headers = {"Content-Type": content_type, "Location": to, "Content-Length": str(length or len(body))}
        for name, value in headers.items():
            if value:
                handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(body)

    return answer


@contextmanager
def serving(handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    """Give the address of a server of this process."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, args=[0.02], daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def write_video(path: Path, frames: list[np.ndarray], *, fps: float = 5.0, codec: str = "mp4v") -> Path:
    """Write frames, uint8 `[H, W, 3]` RGB with even sides."""
    height, width = frames[0].shape[:2]
    writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, cv2.VideoWriter.fourcc(*codec), fps, (width, height))
    assert writer.isOpened()
    for frame in frames:
        writer.write(frame[..., ::-1])
    writer.release()
    return path
