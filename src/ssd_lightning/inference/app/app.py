"""The web application: a page, its examples, and the JSON endpoints."""

import asyncio
import math
import mimetypes
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import numpy as np
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from ssd_lightning.errors import UserError
from ssd_lightning.inference.app.examples import Example
from ssd_lightning.inference.app.finding import (
    LOWEST_SCORE,
    find_candidates,
    find_detections,
    timed,
    why_overlap_is_fixed,
)
from ssd_lightning.inference.app.guards import Guard
from ssd_lightning.inference.app.uploads import Limits, decode_upload, read_upload
from ssd_lightning.inference.detector import Detector
from ssd_lightning.inference.results import labels_of
from ssd_lightning.visualization.colours import Colour, class_colour, text_colour

PAGE = Path(__file__).parent / "page"
mimetypes.add_type("text/javascript", ".js")  # some systems say text/plain, which browsers do not run
LOOPBACK_NAMES = frozenset({"127.0.0.1", "localhost", "[::1]"})
MOST_WAITING = 8
"""Maximum number of images that are uploaded, waiting or processed. Further requests get a 503."""

IN_WORDS = {
    "Not Found": "there is nothing at this address",
    "Method Not Allowed": "this address does not take the method of the request",
}
"""Plain messages for the router's errors."""


class Application:
    """The web application.

    The network processes one image at a time in a separate thread, so that other requests are answered meanwhile.

    Args:
        detector: the detector.
        name: name of the model, for the page.
        examples: example images.
        score_threshold: default minimum score.
        limits: limits of an upload.
        hosts: allowed host names of requests, see `Guard`.
    """

    def __init__(
        self,
        detector: Detector,
        *,
        name: str,
        examples: Sequence[Example] = (),
        score_threshold: float = 0.4,
        limits: Limits | None = None,
        hosts: Collection[str] = LOOPBACK_NAMES,
    ) -> None:
        self.detector = detector
        self.name = name
        self.examples = tuple(examples)
        self.score_threshold = score_threshold
        self.limits = limits or Limits()
        self.hosts = hosts
        self._waiting = 0
        self._one_at_a_time = anyio.CapacityLimiter(1)

    def build(self) -> Starlette:
        """Return the ASGI application."""
        return Starlette(
            routes=[
                Route("/", self.page),
                Mount("/page", StaticFiles(directory=PAGE)),
                Route("/examples/{index:int}", self.example),
                Route("/examples/{index:int}/thumbnail", self.thumbnail),
                Route("/health", self.health),
                Route("/api/model", self.model),
                Route("/api/detect", self.detect, methods=["POST"]),
                Route("/api/candidates", self.candidates, methods=["POST"]),
            ],
            middleware=[Middleware(Guard, hosts=self.hosts)],
            exception_handlers={HTTPException: _tell, Exception: _tell_failure},
        )

    async def page(self, request: Request) -> Response:
        """Return the page."""
        return FileResponse(PAGE / "index.html")

    async def example(self, request: Request) -> Response:
        """Return an example image."""
        example = self._example(request)
        return Response(example.data, media_type=example.media_type)

    async def thumbnail(self, request: Request) -> Response:
        """Return the thumbnail of an example."""
        return Response(self._example(request).thumbnail, media_type="image/jpeg")

    async def health(self, request: Request) -> Response:
        """Return the status and the number of waiting images."""
        return JSONResponse({"status": "ok", "waiting": self._waiting})

    async def model(self, request: Request) -> Response:
        """Return classes, input size and settings of the model."""
        names, size = self.detector.class_names, self.detector.image_size
        note = why_overlap_is_fixed(self.detector)
        colours = [class_colour(label) for label in range(1, len(names) + 1)]
        return JSONResponse(
            {
                "name": self.name,
                "classes": [
                    {"name": name, "colour": _hex(colour), "text_colour": _hex(text_colour(colour))}
                    for name, colour in zip(names, colours, strict=True)
                ],
                "image_size": {"height": size[0], "width": size[1]},
                "device": str(self.detector.device),
                "postprocess": self.detector.postprocess.settings(),
                "score_threshold": self.score_threshold,
                "lowest_score": LOWEST_SCORE,
                "overlap_note": note,
                "max_bytes": self.limits.max_bytes,
                "examples": [example.name for example in self.examples],
            }
        )

    async def detect(self, request: Request) -> Response:
        """Detect in an uploaded image. Returns the record that `predict` writes, and the network's time."""
        score_threshold, classes = self._parameters(request)
        return await self._look(request, lambda image: find_detections(self.detector, image, score_threshold, classes))

    async def candidates(self, request: Request) -> Response:
        """Return all candidates in an uploaded image, for a page that applies threshold and NMS itself."""

        def find(image: np.ndarray) -> dict[str, Any]:
            height, width = image.shape[:2]
            return {"width": width, "height": height, **find_candidates(self.detector, image).as_record()}

        return await self._look(request, find)

    async def _look(self, request: Request, find: Callable[[np.ndarray], dict[str, Any]]) -> Response:
        if self._waiting >= MOST_WAITING:
            raise HTTPException(503, f"{MOST_WAITING} images are waiting already; try again", {"Retry-After": "1"})
        self._waiting += 1
        try:
            data = await read_upload(request, self.limits)

            def work() -> dict[str, Any]:
                record, milliseconds = timed(find, decode_upload(data, self.limits))
                return {**record, "network_ms": milliseconds}

            return JSONResponse(await anyio.to_thread.run_sync(work, limiter=self._one_at_a_time))
        except asyncio.CancelledError:  # Ctrl-C, after the grace period
            raise HTTPException(503, "the server is shutting down") from None
        finally:
            self._waiting -= 1

    def _example(self, request: Request) -> Example:
        index = request.path_params["index"]
        if index >= len(self.examples):
            raise HTTPException(404, f"there is no example {index}; there are {len(self.examples)}")
        return self.examples[index]

    def _parameters(self, request: Request) -> tuple[float, list[str] | None]:
        """Read the query parameters `score_threshold` and `classes`. `classes` may have commas or be repeated."""
        query = request.query_params
        for key in query:
            if key not in ("score_threshold", "classes"):
                raise HTTPException(422, f"there is no parameter {key!r:.60}; there are score_threshold and classes")
        text = query.get("score_threshold", str(self.score_threshold))
        try:
            score_threshold = float(text)
        except ValueError:
            score_threshold = math.nan
        if not 0 <= score_threshold <= 1:
            raise HTTPException(422, f"score_threshold is {text!r:.60}; it must be a number from 0 to 1")
        known = self.detector.class_names
        groups = [[given] if given in known else given.split(",") for given in query.getlist("classes")]
        classes = [name.strip() for group in groups for name in group]
        try:
            labels_of(classes, known)
        except UserError as error:
            raise HTTPException(422, f"{error}") from error
        return score_threshold, classes or None


async def _tell(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return JSONResponse({"error": IN_WORDS.get(error.detail, error.detail)}, error.status_code, headers=error.headers)


async def _tell_failure(request: Request, error: Exception) -> Response:
    return JSONResponse({"error": "the server failed to process the request; see its log"}, 500)


def _hex(colour: Colour) -> str:
    return "#{:02x}{:02x}{:02x}".format(*colour)
