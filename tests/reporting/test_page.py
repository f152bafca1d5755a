"""The pages: what they say, that they are whole without a network, and how they look in a real browser."""

import base64
import io
import json
import logging
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import yaml
from PIL import Image

from helpers.evaluation_records import EMPTY, PLANTED, ImageSpec, make_record, planted_record
from helpers.report_runs import make_run, record_with_images
from ssd_lightning.analysis.error_split import ERROR_TYPES
from ssd_lightning.analysis.evaluation_record import EvaluationRecord
from ssd_lightning.analysis.matching import image_scores
from ssd_lightning.analysis.pr_curves import mean_ap, pr_curves
from ssd_lightning.reporting import images
from ssd_lightning.reporting.comparison import write_comparison
from ssd_lightning.reporting.evaluation import best_and_worst, confusions, evaluation_part
from ssd_lightning.reporting.images import show_images
from ssd_lightning.reporting.page import evaluated_epoch, try_report, write_report
from ssd_lightning.reporting.run import Run, read_run
from ssd_lightning.reporting.summary import data_overrides, duration, gaps, reproduction

if TYPE_CHECKING:
    from playwright.sync_api import Page as BrowserPage

MOST_BYTES = 6_000_000
VOID = {"meta", "img", "br", "link", "hr", "input"}
DIFFERENCES = ('class="best"', 'class="sure"', "−0.150", "the difference to")
"""What a comparison has only where its scores can be compared."""


class Page(HTMLParser):
    """The elements of a page, its ids and its links; fails where elements are not closed in their order."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.ids: list[str] = []
        self.targets: list[str] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(html)
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in ("path", "use"):  # markers within a chart
            self.ids += [value or "" for name, value in attrs if name == "id"]
            self.targets += [value or "" for name, value in attrs if name in ("href", "src")]
        assert not [name for name, _ in attrs if name.startswith("on")]
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def read(path: Path) -> Page:
    return Page(path.read_text())


@pytest.fixture(scope="module")
def record(tmp_path_factory: pytest.TempPathFactory) -> EvaluationRecord:
    return record_with_images(tmp_path_factory.mktemp("images"))


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory, record: EvaluationRecord) -> dict[str, Path]:
    """The page of a run, that of one that lacks most, and a comparison."""
    folder = tmp_path_factory.mktemp("pages")
    runs = [
        make_run(folder / "<u>a0", record=record),
        make_run(folder / "a1", record=record, seed=1, shift=0.1),
        make_run(folder / "b", record=record, lr=0.2, shift=-0.1),
    ]
    replace(EMPTY["one class"], split="test").save(runs[0] / "evaluations" / "test.npz")
    return {
        "run": write_report(runs[0]),
        "poor": write_report(make_run(folder / "poor", without=("val", "checkpoint", "result.json"))),
        "comparison": write_comparison(runs, folder / "compared" / "all.html"),
    }


def test_the_page_of_a_run_has_all_its_parts(pages: dict[str, Path]) -> None:
    assert pages["run"].name == "report.html"
    assert pages["run"].stat().st_size < MOST_BYTES
    page = read(pages["run"])
    of_split = ("classes", "curves", "confusion", "errors", "sizes", "calibration", "images")
    wanted = {"summary", "curves", "val", "test", "priors", "configuration", "reproduction"}
    wanted |= {f"{split}-{part}" for split in ("val", "test") for part in of_split}
    assert sorted(page.ids) == sorted(wanted)
    links = {target for target in page.targets if target.startswith("#")}
    assert links == {f"#{name}" for name in wanted}  # each has a line in the table of contents
    said = (
        "0.600", "after epoch 2, step 20", "3 of 3", "1 h 2 min", "2 x <i>chip</i>", "0123456789ab", "batch_size: 8",
        r"They are drawn as numbers: class 4 (\U000e0fff).",
    )  # fmt: skip
    assert [text for text in said if text not in page.text] == []


def test_a_comparison_has_all_its_parts(pages: dict[str, Path]) -> None:
    html = pages["comparison"].read_text()
    page = Page(html)
    assert set(page.ids) == {"runs", "scores", "curves", "classes", "errors", "settings"}
    said = ("3 runs of 2 configurations", "0.650 ± 0.071", "0.500", "−0.150", "optimizer.lr: 0.1 -> 0.2", "0, 1")
    assert [text for text in said if text not in page.text] == []
    assert [target for target in page.targets if "report" in target] == ["../%3Cu%3Ea0/report.html"]
    assert all(mark in html for mark in DIFFERENCES)
    assert "cannot be compared" not in html


def test_names_are_escaped_and_nothing_is_asked_of_the_network(pages: dict[str, Path]) -> None:
    for html in (pages["run"].read_text(), pages["comparison"].read_text()):
        page = Page(html)
        assert "default-src 'none'" in html
        assert all(target.startswith(("#", "data:image/jpeg;base64,", "../")) for target in page.targets)
        assert not {"script", "link", "iframe", "object", "form", "u", "i"} & set(page.tags)
        assert not re.search(r"url\(|@import|https?://(?!www\.w3\.org)", html)
        assert "alert(1)" in page.text


def test_images_are_drawn_scaled_down_and_what_cannot_be_shown_is_noted(
    record: EvaluationRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second, *others = record.image_paths
    odd = replace(record, image_paths=(first, Path(second).name, second, *others[1:]))  # of another size
    scores = image_scores(odd)
    drawn, absent, other_size = show_images(odd, scores, [0, 1, 2], score_threshold=0.4)
    jpeg = base64.b64decode(drawn["uri"].removeprefix("data:image/jpeg;base64,"))
    assert max(Image.open(io.BytesIO(jpeg)).size) == 480
    assert drawn["hits"] + drawn["missed"] == int((record.objects.image_index == 0).sum())
    assert (drawn["problem"], absent["uri"], other_size["uri"]) == ("", "", "")
    assert "there is no" in absent["problem"] or "No such file" in absent["problem"]
    assert "but its annotation says" in other_size["problem"]
    monkeypatch.setattr(images, "MOST_BYTES", len(jpeg) + 100)
    shown = show_images(record, scores, [0, 1, 2], score_threshold=0.4)
    assert [bool(one["uri"]) for one in shown] == [True, False, False]
    assert "too large" in shown[1]["problem"]


def test_the_best_images_have_a_hit_and_the_worst_an_error(record: EvaluationRecord) -> None:
    order = image_scores(record).best_first.tolist()
    assert best_and_worst(image_scores(record)) == (order[:4], order[::-1][:8])
    assert best_and_worst(image_scores(make_record([ImageSpec()] * 3))) == ([], [])


def test_numbers_are_those_of_the_analyses() -> None:
    record = planted_record()
    part = evaluation_part(record)
    assert [curve.ap for curve in part["curves"]] == [curve.ap for curve in pr_curves(record)]
    assert [row[0] for row in part["error_rows"]] == list(ERROR_TYPES)
    assert part["counts"] == "11 images, 13 objects (2 of them difficult, which are not counted), 13 detections"
    names = [[list(PLANTED)[int(one["name"])] for one in part[which]] for which in ("best", "worst")]
    assert names[0] == ["right", "duplicate", "background"]
    assert names[1] == ["both", "localisation", "class", "missed alone", "background alone", "missed"]
    assert not part["numbered"]


def test_the_most_frequent_confusions_of_classes() -> None:
    matrix = np.array([[0, 7, 0, 0], [1, 5, 4, 0], [0, 9, 1, 0], [0, 0, 0, 3]])
    assert confusions(matrix, ["a", "b", "c"]) == [("b", "a", 9, 0.9), ("a", "b", 4, 0.4)]
    assert confusions(np.zeros((1, 1)), []) == []


LACKING = ("checkpoint", "result.json", "config.yaml")


@pytest.mark.parametrize(
    ("val", "test", "without"),
    [
        ("no objects", "no images", ()),
        pytest.param("no detections", "difficult objects alone", (), marks=pytest.mark.slow),
        ("no images, no classes", "no images, no classes", LACKING),
    ],
)
def test_parts_that_are_missing_are_said_and_the_others_shown(
    tmp_path: Path, val: str, test: str, without: tuple[str, ...]
) -> None:
    directory = make_run(tmp_path / "run", record=EMPTY[val], without=without)
    replace(EMPTY[test], split="test").save(directory / "evaluations" / "test.npz")
    page = read(write_report(directory))
    for text in ("The run is unfinished", "No configuration: there is no config.yaml", "No coverage by the priors"):
        assert (text in page.text) == bool(without)
    assert {"val-errors", "test-errors"} < set(page.ids)
    assert {"priors", "configuration"} & set(page.ids) == (set() if without else {"priors", "configuration"})
    assert "nan" not in page.text


def test_a_damaged_checkpoint_is_a_gap(tmp_path: Path) -> None:
    directory = make_run(tmp_path / "run", record=EMPTY["neither"])
    (directory / "checkpoints" / "best.ckpt").write_bytes(b"PK broken")
    assert "No coverage by the priors: " in read(write_report(directory)).text


def test_a_run_without_a_validation_says_why(tmp_path: Path, pages: dict[str, Path]) -> None:
    config = make_run(tmp_path / "run", without=("val",)) / "config.yaml"
    config.write_text(config.read_text().replace("max_epochs: 3", "max_epochs: 3\n  check_val_every_n_epoch: 4"))
    first, second = gaps(read_run(config.parent))
    assert first.endswith("since trainer.check_val_every_n_epoch=4 is more than its 3 epochs.")
    assert "python -m ssd_lightning.evaluate" in second
    assert f"record={config.parent}/evaluations/val.npz" in second
    page = read(pages["poor"])
    assert "No validation: metrics.csv has no val/map_11point." in page.text
    assert "curves" in page.ids
    assert "val" not in page.ids


@pytest.mark.parametrize("odd", [None, [1, "a"], {"a": {"images": "x"}}])
def test_entries_of_another_kind_than_expected_are_passed_over(tmp_path: Path, odd: object) -> None:
    directory = make_run(tmp_path / "run")
    for path in (directory / name for name in ("run.json", "result.json", "config.yaml")):
        keys = list(yaml.safe_load(path.read_text()))
        path.write_text(json.dumps(dict.fromkeys(keys, odd)))  # which is YAML too
    assert "curves" in read(write_report(directory)).ids
    assert "scores" in read(write_comparison([directory], directory / "comparison.html")).ids


def test_the_epoch_of_an_evaluation_is_found_by_its_score(tmp_path: Path) -> None:
    run = read_run(make_run(tmp_path / "run", record=planted_record()))
    assert evaluated_epoch(run, "val") == ""
    run.curves["val/map_area"].values[1] = mean_ap(pr_curves(planted_record()))
    assert evaluated_epoch(run, "val") == "The weights are those after epoch 2."
    assert evaluated_epoch(run, "test") == ""


def test_reproduction_names_commit_changes_and_configuration(tmp_path: Path) -> None:
    directory = make_run(tmp_path / "run")
    assert reproduction(read_run(directory)).splitlines() == [
        "git checkout 0123456789abcdef",
        f"python -m ssd_lightning.train --config-path {directory}/.hydra",
    ]
    (directory / ".hydra" / "config.yaml").unlink()
    assert reproduction(read_run(directory)).splitlines()[1] == "python -m ssd_lightning.train experiment=toy <b>"
    assert reproduction(Run(directory, {}, {}, None, {}, {}, None)) == ""


def test_the_overrides_that_chose_the_data_are_repeated(tmp_path: Path) -> None:
    (tmp_path / ".hydra").mkdir()
    assert data_overrides(tmp_path) == ["data=..."]
    (tmp_path / ".hydra" / "hydra.yaml").write_text(
        "hydra: {runtime: {choices: {data: toy}}, overrides: {task: [data.root=a b, seed=1, data=toy]}}"
    )
    assert data_overrides(tmp_path) == ["data=toy", "data.root=a b"]


def test_times_have_two_units() -> None:
    texts = {-1: "0 s", 59.4: "59 s", 60: "1 min 0 s", 3720: "1 h 2 min", 90_000: "1 d 1 h"}
    assert {seconds: duration(seconds) for seconds in texts} == texts


def test_after_a_training_a_failing_report_is_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert try_report(make_run(tmp_path / "run")) == tmp_path / "run" / "report.html"
    with caplog.at_level(logging.WARNING):
        assert try_report(tmp_path / "nowhere") is None
        monkeypatch.setattr("ssd_lightning.reporting.page.run_page", lambda run, refresh_s: 1 / 0)
        assert try_report(tmp_path / "run") is None
    assert [len(message.splitlines()) for message in caplog.messages] == [1, 1]
    assert "there is no run directory" in caplog.messages[0]
    assert "division by zero" in caplog.messages[1]


def test_runs_that_share_little_are_shown_without_comparing_their_scores(tmp_path: Path) -> None:
    runs = [
        make_run(tmp_path / "a0", record=EMPTY["one class"]),
        make_run(tmp_path / "a1", record=EMPTY["one class"], seed=1, shift=0.1),
        make_run(tmp_path / "b", lr=0.2, shift=-0.1, record=make_record([ImageSpec()], class_names=("<i>",))),
        make_run(tmp_path / "c", without=("config.yaml", "run.json", "result.json", "val")),
    ]
    html = write_comparison(runs, tmp_path / "x.html").read_text()
    assert not [mark for mark in DIFFERENCES if mark in html]
    said = "These runs were validated on different images or classes, so their scores cannot be compared: "
    assert 0 < html.index(f"{said}a0, a1, c against b.") < html.index('id="runs"')
    page = Page(html)
    for text in ("0.500", "B, C without an evaluation of the validation images", "There is no recorded difference."):
        assert text in page.text
    assert "nan" not in page.text


CONTRAST = """() => {
  const channels = colour => colour.match(/[\\d.]+/g).map(Number);
  const luminance = rgb => rgb.slice(0, 3).map(value => value / 255)
    .map(value => value <= .04045 ? value / 12.92 : ((value + .055) / 1.055) ** 2.4)
    .reduce((sum, value, index) => sum + value * [.2126, .7152, .0722][index], 0);
  const ground = element => {
    for (; element; element = element.parentElement) {
      const colour = channels(getComputedStyle(element).backgroundColor);
      if (colour.length === 3 || colour[3] === 1) return colour;
    }
  };
  const mixed = (top, share, below) => top.map((value, index) => value * share + below[index] * (1 - share));
  const found = [];
  for (const element of document.querySelectorAll('body *')) {
    const hasText = [...element.childNodes].some(node => node.nodeType === 3 && node.textContent.trim());
    if (!hasText || element.tagName === 'title' || !element.getClientRects().length) continue;
    const style = getComputedStyle(element);
    let behind = ground(element);
    const {left, right, top, bottom} = element.getBoundingClientRect();
    const [x, y] = [(left + right) / 2, (top + bottom) / 2];
    for (const shape of element.matches('text') ? element.ownerSVGElement.querySelectorAll('path') : []) {
      const [box, {fill, opacity}] = [shape.getBoundingClientRect(), getComputedStyle(shape)];
      if (fill !== 'none' && box.left < x && x < box.right && box.top < y && y < box.bottom)
        behind = mixed(channels(fill), Number(opacity), behind);
    }
    const [low, high] = [luminance(channels(element.matches('text') ? style.fill : style.color)), luminance(behind)]
      .sort((one, other) => one - other);
    found.push([(high + .05) / (low + .05), `${element.tagName} ${element.className.baseVal ?? element.className}: `
      + element.textContent.slice(0, 40)]);
  }
  return found;
}"""


def open_page(page: "BrowserPage", path: Path) -> None:
    messages: list[str] = []
    page.on("console", lambda message: messages.append(message.text))
    page.goto(path.as_uri())
    page.wait_for_load_state()
    assert messages == []  # such as what the page's own policy refuses


@pytest.mark.parametrize(("name", "sections", "charts"), [("run", 7, 28), ("poor", 3, 4), ("comparison", 6, 6)])
def test_a_page_opens_from_the_disk_fits_a_phone_and_has_contrast_in_light_and_dark(
    page: "BrowserPage", pages: dict[str, Path], name: str, sections: int, charts: int
) -> None:
    page.set_viewport_size({"width": 1280, "height": 850})
    open_page(page, pages[name])
    assert page.locator("main > section").count() >= sections
    for section in page.locator("main > section").all():
        assert section.bounding_box()["height"] > 40
    sizes = page.evaluate(
        "[...document.querySelectorAll('svg')].map(svg => svg.getBoundingClientRect()).map(b => [b.width, b.height])"
    )
    assert len(sizes) >= charts
    assert all(width > 100 and height > 20 for width, height in sizes)
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        ground = page.evaluate("getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)")
        assert (max(ground) < 40) if scheme == "dark" else (min(ground) > 235)
        found = page.evaluate(CONTRAST)
        assert len(found) > 50
        assert [what for ratio, what in found if ratio < 4.5] == []
    page.set_viewport_size({"width": 390, "height": 850})
    page.evaluate("document.querySelectorAll('details').forEach(element => { element.open = true })")
    assert page.evaluate("document.scrollingElement.scrollWidth") <= 390


def test_links_details_and_images_work_and_paper_has_no_contents_and_no_dark_ground(
    page: "BrowserPage", pages: dict[str, Path]
) -> None:
    page.emulate_media(color_scheme="dark")
    open_page(page, pages["run"])
    loaded = page.evaluate("[...document.images].map(image => image.complete && image.naturalWidth)")
    assert len(loaded) == 12
    assert all(loaded)
    page.locator("nav a", has_text="Priors").click()
    assert abs(page.locator("#priors").bounding_box()["y"]) < 60
    assert page.locator("#configuration pre").is_hidden()
    page.locator("#configuration summary").click()
    assert page.locator("#configuration pre").is_visible()
    page.emulate_media(media="print", color_scheme="dark")
    assert page.locator("nav").is_hidden()
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert page.evaluate("getComputedStyle(document.body).color") == "rgb(30, 34, 38)"


def test_text_in_charts_can_be_selected_and_wide_tables_scroll_inside(
    page: "BrowserPage", pages: dict[str, Path]
) -> None:
    page.set_viewport_size({"width": 390, "height": 850})
    open_page(page, pages["comparison"])
    assert page.evaluate("getComputedStyle(document.querySelector('svg text')).userSelect") != "none"
    table = page.locator("#scores .scroll").first
    assert table.evaluate("element => element.scrollWidth > element.clientWidth")
    table.evaluate("element => { element.scrollLeft = 9999 }")
    assert table.evaluate("element => element.scrollLeft") > 0


def test_a_live_page_is_loaded_again_from_the_disk(page: "BrowserPage", pages: dict[str, Path], tmp_path: Path) -> None:
    run_dir, live = pages["poor"].parent, tmp_path / "live.html"
    open_page(page, write_report(run_dir, live, refresh_s=1))
    assert page.get_by_text("Training run, live").is_visible()
    write_report(run_dir, live)
    page.get_by_text("Training run", exact=True).wait_for(timeout=20_000)
