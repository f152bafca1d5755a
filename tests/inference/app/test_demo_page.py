"""The page in a real browser, served as the command serves it."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from torchvision.ops import batched_nms, nms

from ssd_lightning.inference.app.app import Application
from ssd_lightning.inference.app.examples import Example
from ssd_lightning.inference.detector import Detector
from ssd_lightning.models.postprocess import PostProcess

if TYPE_CHECKING:
    from playwright.sync_api import Page

READY_MS = 10_000
NMS_SCRIPT = """async ([cases, thresholds, class_agnostic]) => {
    const { nms } = await import("/page/nms.js");
    return cases.map((candidates, index) => nms(candidates, thresholds[index], class_agnostic));
}"""


@pytest.fixture
def posts() -> list[str]:
    """Addresses that the page sends images to, one for each image."""
    return []


@pytest.fixture
def demo(page: "Page", application: Application, serve: Callable[[Application], str], posts: list[str]) -> "Page":
    page.on("request", lambda request: posts.append(request.url) if request.method == "POST" else None)
    page.set_viewport_size({"width": 1280, "height": 860})
    page.goto(serve(application))
    page.locator("#model", has_text="input").wait_for(timeout=READY_MS)
    return page


@pytest.fixture
def png_path(png: bytes, tmp_path: Path) -> Path:
    path = tmp_path / "grid.png"
    path.write_bytes(png)
    return path


def look_at(page: "Page", path: Path) -> None:
    page.set_input_files("#file", path)
    page.locator("#figures", has_text="network").wait_for(timeout=READY_MS)


def move(page: "Page", slider: str, value: float) -> None:
    page.locator(slider).evaluate(
        "(slider, value) => { slider.value = value; slider.dispatchEvent(new Event('input')); }", value
    )


def rows(page: "Page") -> list[list[str]]:
    """Class, score and box of each row, as they are written."""
    return page.locator("#rows").evaluate("body => [...body.rows].map(row => [...row.cells].map(c => c.textContent))")


def as_rows(detector: Detector, image: np.ndarray, *, score: float, overlap: float) -> list[list[str]]:
    postprocess = replace(detector.postprocess, iou_threshold=overlap)
    changed = Detector(detector.net, class_names=detector.class_names, postprocess=postprocess)
    found = changed(image).select(score)
    return [[name, f"{score:.3f}"] for name, score in zip(found.names, found.scores, strict=True)]


def random_candidates(generator: np.random.Generator, *, whole: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    count = int(generator.integers(0, 60))
    corners = generator.uniform(-5, 40, (count, 2))
    sides = generator.uniform(0, 25, (count, 2))
    boxes = np.concatenate([corners, corners + sides], axis=1)
    scores = np.sort(generator.uniform(0, 1, count))[::-1].copy()
    return (boxes.round() if whole else boxes), scores, generator.integers(1, 4, count)


@pytest.mark.parametrize("class_agnostic", [False, True])
@pytest.mark.parametrize("whole", [False, True], ids=["anywhere", "on whole pixels"])
def test_the_page_applies_nms_as_torchvision_does(demo: "Page", whole: bool, class_agnostic: bool) -> None:
    """Whole pixels bring boxes without area, equal ones, and overlaps of exactly a half."""
    generator = np.random.default_rng(0)
    cases, thresholds, wanted = [], [], []
    for seed in range(300):
        boxes, scores, labels = random_candidates(generator, whole=whole)
        threshold = (0.0, 0.25, 0.45, 0.5, 1.0)[seed % 5]
        cases.append({"boxes": boxes.tolist(), "scores": scores.tolist(), "labels": labels.tolist()})
        thresholds.append(threshold)
        tensors = torch.from_numpy(boxes), torch.from_numpy(scores)  # 64 bits, as JavaScript's numbers
        kept = (
            nms(*tensors, threshold) if class_agnostic else batched_nms(*tensors, torch.from_numpy(labels), threshold)
        )
        wanted.append(kept.tolist())
    assert demo.evaluate(NMS_SCRIPT, [cases, thresholds, class_agnostic]) == wanted
    assert sum(map(len, wanted)) < sum(len(case["scores"]) for case in cases)


def test_an_uploaded_image_shows_what_the_detector_finds(
    demo: "Page", detector: Detector, image: np.ndarray, png_path: Path
) -> None:
    assert demo.locator("#nothing").is_visible()
    look_at(demo, png_path)
    wanted = as_rows(detector, image, score=0.3, overlap=0.45)
    found = rows(demo)
    assert [row[:2] for row in found] == wanted
    assert demo.locator("#count").text_content() == str(len(wanted))
    boxes = [[float(edge) for edge in row[2:]] for row in found]
    np.testing.assert_allclose(boxes, detector(image).select(0.3).boxes_xyxy_px, atol=0.51)
    assert "160 × 120 px" in demo.locator("#figures").text_content()
    label = demo.locator("#canvas").get_attribute("aria-label")
    assert label.startswith(f"grid.png: {len(wanted)} detections")
    assert has_colours(demo)


def has_colours(page: "Page") -> bool:
    """Whether the canvas has pixels of a class's colour: boxes are drawn, not only listed."""
    colour = page.locator(".swatch").first.evaluate(
        "node => getComputedStyle(node).backgroundColor.match(/\\d+/g).map(Number)"
    )
    return page.locator("#canvas").evaluate(
        """(canvas, colour) => {
            const pixels = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
            for (let i = 0; i < pixels.length; i += 4) if (colour.every((c, k) => pixels[i + k] === c)) return true;
            return false;
        }""",
        colour,
    )


def test_sliders_choose_without_asking_the_network_again(
    demo: "Page", detector: Detector, image: np.ndarray, png_path: Path, posts: list[str]
) -> None:
    look_at(demo, png_path)
    numbers = set()
    for score, overlap in [(0.3, 0.1), (0.5, 0.9), (0.6, 0.7), (0.6, 0.2), (0.05, 0.3)]:
        move(demo, "#score", score)
        move(demo, "#overlap", overlap)
        wanted = as_rows(detector, image, score=score, overlap=overlap)
        assert [row[:2] for row in rows(demo)] == wanted
        numbers.add(len(wanted))
    assert len(numbers) == 5
    assert len(posts) == 1


def test_the_slider_goes_by_keyboard(demo: "Page", png_path: Path) -> None:
    look_at(demo, png_path)
    before = len(rows(demo))
    demo.locator("#score").focus()
    for _ in range(20):
        demo.keyboard.press("ArrowRight")
    assert demo.locator("#score-value").text_content() == "0.50"
    assert 0 < len(rows(demo)) < before


def test_classes_are_counted_and_can_be_left_out(
    demo: "Page", detector: Detector, image: np.ndarray, png_path: Path
) -> None:
    look_at(demo, png_path)
    names = detector(image).select(0.3).names
    counts = demo.locator(".of-class").all_text_contents()
    assert counts == [str(names.count(name)) for name in detector.class_names]
    demo.locator("#classes label", has_text="star").click()
    assert {row[0] for row in rows(demo)} == set(names) - {"star"}
    assert demo.locator(".of-class").all_text_contents() == counts
    demo.locator("#no-classes").click()
    assert rows(demo) == []
    assert demo.locator("#nothing").is_visible()
    demo.locator("#all-classes").click()
    assert len(rows(demo)) == len(names)


MANY_CLASSES = """async (number) => {
    const { ClassList } = await import("/page/lists.js");
    const container = document.createElement("div");
    const classes = Array.from({ length: number }, (_, index) => ({ name: `class ${index + 1}`, colour: "red" }));
    new ClassList(container, classes, () => {}).count([2, 5, 5]);
    return [...container.children].map(label => [label.style.order, label.querySelector(".of-class").textContent]);
}"""


@pytest.mark.parametrize(("number", "last"), [(8, "0"), (9, "1")])
def test_of_many_classes_those_that_are_found_come_first(demo: "Page", number: int, last: str) -> None:
    found = demo.evaluate(MANY_CLASSES, number)
    assert [count for _, count in found] == ["0", "1", "0", "0", "2", *"0" * (number - 5)]
    assert [order for order, _ in found] == [last, "0", last, last, "0", *last * (number - 5)]


def test_the_copy_is_what_the_endpoint_says(
    demo: "Page", detector: Detector, image: np.ndarray, png_path: Path
) -> None:
    look_at(demo, png_path)
    demo.context.grant_permissions(["clipboard-read", "clipboard-write"])
    demo.locator("#copy").click()
    demo.locator("#copy", has_text="Copied").wait_for()
    copied = json.loads(demo.evaluate("navigator.clipboard.readText()"))
    wanted = {"file": "grid.png", **detector(image).select(0.3).as_record()}
    boxes, wanted_boxes = ([found.pop("box_xyxy_px") for found in record["detections"]] for record in (copied, wanted))
    np.testing.assert_allclose(boxes, wanted_boxes, atol=0.011)
    assert copied == wanted


def test_a_row_points_at_its_box(demo: "Page", png_path: Path) -> None:
    look_at(demo, png_path)
    before = demo.locator("#canvas").screenshot()
    demo.locator("#rows tr").nth(1).focus()
    assert demo.locator("#rows tr.chosen").count() == 1
    assert demo.locator("#canvas").screenshot() != before


def test_an_example_is_a_click_away(demo: "Page", examples: list[Example], posts: list[str]) -> None:
    thumbnails = demo.locator("#examples img")
    assert thumbnails.count() == len(examples)
    assert thumbnails.evaluate_all(
        "all => Promise.all(all.map(async i => { await i.decode(); return i.naturalWidth; }))"
    )
    demo.locator("#examples button").nth(1).click()
    demo.locator("#figures", has_text="384 × 384").wait_for(timeout=READY_MS)
    move(demo, "#score", 0.02)
    assert len(rows(demo)) > 0
    assert len(posts) == 1


GIVE = """async ([bytes, name, type, how]) => {
    const transfer = new DataTransfer();
    transfer.items.add(new File([new Uint8Array(bytes)], name, { type }));
    const event = how === "paste"
        ? new ClipboardEvent("paste", { clipboardData: transfer, bubbles: true })
        : new DragEvent("drop", { dataTransfer: transfer, bubbles: true, cancelable: true });
    document.querySelector("#stage").dispatchEvent(event);
    return event.defaultPrevented;
}"""


@pytest.mark.parametrize("how", ["drop", "paste"])
def test_a_image_is_dropped_or_pasted(demo: "Page", png: bytes, how: str) -> None:
    prevented = demo.evaluate(GIVE, [list(png), "mine.png", "image/png", how])
    assert prevented == (how == "drop")  # else the browser would leave the page and open the file
    demo.locator("#figures", has_text="160 × 120").wait_for(timeout=READY_MS)
    assert demo.locator("#canvas").get_attribute("aria-label").startswith("mine.png: ")


def test_what_is_no_image_is_reported_and_the_page_goes_on(demo: "Page", png_path: Path) -> None:
    demo.evaluate(GIVE, [list(b"<svg><script>alert(1)</script></svg>"), "<b>a.svg", "image/svg+xml", "drop"])
    message = demo.locator("#message", has_text="known format")
    message.wait_for(timeout=READY_MS)
    assert message.text_content().startswith("<b>a.svg: The upload is not an image")
    assert message.locator("b").count() == 0
    look_at(demo, png_path)
    assert message.is_hidden()
    assert len(rows(demo)) > 0


def test_what_is_too_large_is_not_even_sent(demo: "Page", tmp_path: Path, posts: list[str]) -> None:
    path = tmp_path / "huge.png"
    with path.open("wb") as file:
        file.truncate(20_000_001)
    demo.set_input_files("#file", path)
    demo.locator("#message", has_text="huge.png is larger than 20 MB").wait_for(timeout=READY_MS)
    assert posts == []


def test_a_format_that_browsers_do_not_show_has_its_boxes(demo: "Page", image: np.ndarray, tmp_path: Path) -> None:
    path = tmp_path / "grid.ppm"
    path.write_bytes(b"P6 160 120 255\n" + image.tobytes())
    look_at(demo, path)
    assert "cannot show the image" in demo.locator("#message").text_content()
    assert len(rows(demo)) > 0
    assert has_colours(demo)


def test_the_webcam_sends_one_frame_after_the_other(demo: "Page", posts: list[str]) -> None:
    in_flight, most = [0], []

    def count(change: int) -> None:
        in_flight[0] += change
        most.append(in_flight[0])

    demo.on("request", lambda request: count(1) if request.method == "POST" else None)
    demo.on("requestfinished", lambda request: count(-1) if request.method == "POST" else None)
    demo.locator("#webcam").click()
    demo.locator("#figures", has_text="FPS").wait_for(timeout=READY_MS)
    while len(posts) < 6:
        demo.wait_for_timeout(20)
    assert demo.locator("#webcam").text_content() == "Stop webcam"
    demo.locator("#webcam").click()
    demo.wait_for_timeout(300)
    sent = len(posts)
    demo.wait_for_timeout(300)
    assert len(posts) == sent
    assert max(most) == 1
    assert demo.locator("#webcam").text_content() == "Start webcam"


def test_a_image_ends_the_webcam(demo: "Page", png_path: Path, posts: list[str]) -> None:
    demo.locator("#webcam").click()
    demo.locator("#figures", has_text="FPS").wait_for(timeout=READY_MS)
    demo.set_input_files("#file", png_path)
    demo.locator("#figures", has_text="160 × 120").wait_for(timeout=READY_MS)
    sent = len(posts)
    demo.wait_for_timeout(300)
    assert len(posts) == sent
    assert "FPS" not in demo.locator("#figures").text_content()
    assert demo.locator("#webcam").get_attribute("aria-pressed") == "false"


def test_no_camera_is_reported(demo: "Page") -> None:
    demo.evaluate(
        "() => { navigator.mediaDevices.getUserMedia = async () => { throw new DOMException('', 'NotFoundError'); }; }"
    )
    demo.locator("#webcam").click()
    demo.locator("#message", has_text="There is no camera.").wait_for(timeout=READY_MS)
    assert demo.locator("#webcam").text_content() == "Start webcam"


@pytest.mark.parametrize("width", [390, 320, 768])
def test_a_narrow_screen_scrolls_downwards_only(demo: "Page", png_path: Path, width: int) -> None:
    demo.set_viewport_size({"width": width, "height": 844})
    look_at(demo, png_path)
    assert demo.evaluate("document.documentElement.scrollWidth") <= width
    assert demo.locator("#canvas").bounding_box()["width"] > 0.85 * width


def luminance(page: "Page", selector: str, name: str) -> float:
    colour = page.locator(selector).evaluate(
        "(node, name) => getComputedStyle(node)[name].match(/\\d+/g).map(Number)", name
    )
    channels = np.array(colour[:3]) / 255
    return float(
        np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4) @ [0.2126, 0.7152, 0.0722]
    )


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_is_readable_in_either_light(demo: "Page", scheme: str) -> None:
    """Contrast of at least 4.5, as WCAG 2 asks for text; the ground is the card's or the page's."""
    demo.emulate_media(color_scheme=scheme)
    ground = luminance(demo, "body", "backgroundColor")
    assert (ground < 0.1) == (scheme == "dark")
    card = luminance(demo, ".card >> nth=0", "backgroundColor")
    button = luminance(demo, "#choose", "backgroundColor")
    pairs = [
        (luminance(demo, selector, "color"), on)
        for selector, on in [
            ("h1", ground),
            ("#model", ground),
            ("#nothing", card),
            ("legend", card),
            ("#choose", button),
        ]
    ]
    for text, on in pairs:
        assert (max(text, on) + 0.05) / (min(text, on) + 0.05) >= 4.5


def test_a_fixed_overlap_has_no_slider(
    page: "Page", detector: Detector, image: np.ndarray, png_path: Path, serve: Callable[[Application], str]
) -> None:
    soft = Detector(detector.net, class_names=detector.class_names, postprocess=PostProcess(soft_nms="linear"))
    page.goto(serve(Application(soft, name="soft", score_threshold=0.3)))
    page.locator("#overlap-note", has_text="its overlap is fixed").wait_for(timeout=READY_MS)
    assert page.locator("#overlap").is_disabled()
    assert page.locator("#examples").is_hidden()
    look_at(page, png_path)
    found = soft(image).select(0.3)
    assert [row[:2] for row in rows(page)] == [
        [name, f"{score:.3f}"] for name, score in zip(found.names, found.scores, strict=True)
    ]


def test_a_server_that_is_gone_is_reported(
    page: "Page", application: Application, serve: Callable[[Application], str]
) -> None:
    page.goto(serve(application))
    page.locator("#model", has_text="input").wait_for(timeout=READY_MS)
    page.route("**/api/candidates", lambda route: route.abort())
    page.locator("#examples button").first.click()
    page.locator("#message", has_text="The server does not answer").wait_for(timeout=READY_MS)
