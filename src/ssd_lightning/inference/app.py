"""The demo page: a gradio app around a detector. Needs the extra `demo`: only the command and Spaces import it."""

import base64
import binascii
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
import torch

from ssd_lightning.checks import require_number
from ssd_lightning.data.images import image_size_px, read_image
from ssd_lightning.data.resize import undo_detections
from ssd_lightning.errors import DataError, UserError
from ssd_lightning.inference.detector import Detector
from ssd_lightning.inference.results import ImageDetections
from ssd_lightning.types import Detections, Placement, SSDOutput
from ssd_lightning.visualization.tables import counted

MOST_PIXELS = 64_000_000
"""Limit of an image. A file of a few kB can claim to have any number of pixels."""
MOST_WAITING = 8
"""Requests that may wait. Further ones get an error."""
MOST_SESSIONS = 64
"""Visitors whose last image is kept for the sliders."""
NETWORK = threading.Lock()

COLUMNS = ["class", "score", "x1", "y1", "x2", "y2"]


@dataclass(frozen=True)
class Look:
    """What the network found in one image: enough to apply any thresholds without running it again."""

    image: np.ndarray
    """uint8 `[H, W, 3]`, RGB."""
    output: SSDOutput | Detections
    """Of the network, for the priors that can become detections; the detections if an exported file applies NMS."""
    placement: Placement
    network_ms: float


def fixed_overlap(detector: Detector) -> str | None:
    """Return why the IoU threshold of NMS has no effect. None if it has one."""
    if detector.has_nms_inside:
        return "fixed: the exported file has its NMS inside"
    return "not used by gaussian Soft-NMS" if detector.postprocess.soft_nms == "gaussian" else None


@torch.inference_mode()
def look_at(detector: Detector, image: np.ndarray) -> Look:
    """Run the network on an image, uint8 `[H, W, 3]` RGB. One call at a time runs, others wait."""
    batch, [placement] = detector.prepare([image])
    output: SSDOutput | Detections
    with NETWORK:
        start = time.perf_counter()
        if detector.has_nms_inside:
            [output] = detector.detect(batch)
        else:
            box_offsets, class_logits, priors_cxcywh = detector.run(batch)
            scores = class_logits[0].float().softmax(dim=-1)[:, 1:]
            likely = (scores > detector.postprocess.score_threshold).any(dim=1)
            output = SSDOutput(box_offsets[:, likely].cpu(), class_logits[:, likely].cpu(), priors_cxcywh[likely].cpu())
        return Look(image, output, placement, round(1000 * (time.perf_counter() - start), 2))


def detections_of(
    look: Look, detector: Detector, score_threshold: float, iou_threshold: float, classes: Sequence[str]
) -> ImageDetections:
    """Apply post-processing with these thresholds to what the network found; no classes keep all.

    Raises:
        ConfigurationError: a threshold is not a number from 0 to 1, or a class is unknown.
    """
    require_number("score_threshold", score_threshold, 0, 1)
    require_number("iou_threshold", iou_threshold, 0, 1)
    found = look.output
    if isinstance(found, SSDOutput):
        [found] = replace(detector.postprocess, iou_threshold=iou_threshold)(found)
    [detections] = detector.in_pixels([look.image], undo_detections([found], [look.placement]))
    return detections.select(score_threshold, classes or None)


def read_upload(payload: dict[str, Any]) -> np.ndarray:
    """Read an uploaded file or a frame of a webcam: uint8 `[H, W, 3]` RGB, upright.

    Raises:
        DataError: it is not an image, is broken, or has too many pixels.
    """
    url = payload.get("url") or ""
    if not url.startswith("data:"):
        return _read(Path(payload["path"]))  # gradio has checked that it is an upload
    with tempfile.NamedTemporaryFile(prefix="frame-") as file:
        try:
            file.write(base64.b64decode(url.partition(",")[2], validate=True))
        except binascii.Error as error:
            raise DataError(f"the frame is not base64: {error}") from error
        file.flush()
        return _read(Path(file.name))


def _read(path: Path) -> np.ndarray:
    try:
        height, width = image_size_px(path)  # from the header
        if height * width <= MOST_PIXELS:
            return read_image(path)
    except DataError as error:  # without the path of this machine
        raise DataError(str(error).replace(f"{path}: ", "")) from error
    raise DataError(f"the image has {width} x {height} pixels; at most {MOST_PIXELS / 1e6:g} million are allowed")


@contextmanager
def _told() -> Iterator[None]:
    """Show the message of a user's error. Of other errors, visitors learn only that there was one."""
    try:
        yield
    except UserError as error:
        raise gr.Error(str(error), print_exception=False) from error


def build_page(
    detector: Detector, *, name: str, examples: Sequence[Path] = (), score_threshold: float = 0.4
) -> gr.Blocks:
    """Build the page and its endpoint `detect`.

    `name` is that of the model, `examples` are images, and `score_threshold` is the initial value of the slider.
    """

    def show(look: Look | None, *settings: Any) -> tuple[Any, ...]:
        if look is None:
            return None, "", [], None
        with _told():
            found = detections_of(look, detector, *settings)
        record = found.as_record()
        rows = [[one["class"], one["score"], *one["box_xyxy_px"]] for one in record["detections"]]
        number = counted(len(rows), "detection")
        size = f"{record['width']} × {record['height']} px"
        status = f"**{number}** · {size} · network {look.network_ms:.0f} ms"
        return found.draw(0), status, rows, record

    def look_and_show(image: dict[str, Any] | None, *settings: Any) -> tuple[Any, ...]:
        with _told():
            look = None if image is None else look_at(detector, read_upload(image))
        return look, *show(look, *settings)

    def detect(
        image: dict[str, Any] | None, score_threshold: float, iou_threshold: float, classes: list[str]
    ) -> dict[str, Any]:
        with _told():
            if image is None:
                raise DataError("image is missing")
            look = look_at(detector, read_upload(image))
            found = detections_of(look, detector, score_threshold, iou_threshold, classes)
        return {**found.as_record(), "network_ms": look.network_ms}

    (height, width), number = detector.image_size, len(detector.class_names)
    facts = [name, f"{number} class{'es' if number > 1 else ''}", f"input {width} × {height}", str(detector.device)]
    note = fixed_overlap(detector)
    # Uploads and drawn images are deleted after ten minutes.
    with gr.Blocks(title=f"{name} · detector demo", analytics_enabled=False, delete_cache=(60, 600)) as page:
        gr.Markdown(f"# Detector demo\n{' · '.join(facts)}")
        look = gr.State()
        with gr.Row():
            with gr.Column():
                with gr.Tab("Image"):
                    image = gr.Image(
                        label="Image", sources=["upload", "clipboard", "webcam"], type="filepath", buttons=[]
                    )
                    if examples:
                        gr.Examples([[str(path)] for path in examples], image, label="Examples")
                with gr.Tab("Webcam"):
                    video = {"width": {"ideal": 640}, "facingMode": "environment"}
                    options = gr.WebcamOptions(mirror=False, constraints={"video": video})
                    webcam = gr.Image(
                        sources=["webcam"], streaming=True, webcam_options=options, show_label=False, buttons=[]
                    )
            with gr.Column():
                drawn = gr.Image(format="jpeg", interactive=False, show_label=False, buttons=["download", "fullscreen"])
                status = gr.Markdown()
                score = gr.Slider(0, 1, score_threshold, step=0.01, label="Score at least")
                overlap = gr.Slider(
                    *(0, 1, detector.postprocess.iou_threshold),
                    step=0.01,
                    label="Overlap (IoU) at most",
                    info=note,
                    interactive=note is None,
                )
                names = list(detector.class_names)
                classes = gr.Dropdown(names, value=[], multiselect=True, label="Classes", info="none chosen: all")
                with gr.Tab("Table"):
                    kinds: Any = ["str", *["number"] * 5]
                    table = gr.Dataframe(headers=COLUMNS, datatype=kinds, interactive=False, show_label=False)
                with gr.Tab("JSON"):
                    record = gr.JSON(show_label=False)
        answer, endpoint = gr.JSON(visible=False), gr.Button(visible=False)

        settings, shown = [score, overlap, classes], [drawn, status, table, record]
        # Without gradio's preprocessing, which would open the image and tell visitors the path of a broken one.
        plain: dict[str, Any] = {"api_visibility": "private", "preprocess": False, "show_progress": "hidden"}
        image.change(look_and_show, [image, *settings], [look, *shown], trigger_mode="always_last", **plain)
        frame: dict[str, Any] = {"stream_every": 0.1, "concurrency_limit": MOST_WAITING}
        webcam.stream(look_and_show, [webcam, *settings], [look, *shown], **frame, **plain)
        moved = [score.change, overlap.change, classes.change]
        gr.on(moved, show, [look, *settings], shown, trigger_mode="always_last", **plain)
        endpoint.click(detect, [image, *settings], answer, api_name="detect", preprocess=False)
    page.queue(max_size=MOST_WAITING)
    page.state_session_capacity = MOST_SESSIONS
    return page
