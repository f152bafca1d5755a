import base64
import io
import json
import logging
import re
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from helpers.evaluation_records import EMPTY, LEFT, ImageSpec, make_record, planted_record
from ssd_lightning.analysis.error_split import ERROR_TYPES
from ssd_lightning.analysis.evaluation_record import EvaluationRecord
from ssd_lightning.analysis.image_scores import image_scores
from ssd_lightning.analysis.pr_curves import mean_ap, pr_curves
from ssd_lightning.errors import DataError
from ssd_lightning.reporting import images
from ssd_lightning.reporting.comparison import write_comparison
from ssd_lightning.reporting.evaluation import confusions, evaluation_part
from ssd_lightning.reporting.images import show_images
from ssd_lightning.reporting.page import evaluated_epoch, try_report, write_page, write_report
from ssd_lightning.reporting.run import Run, read_run
from ssd_lightning.reporting.summary import data_overrides, duration, gaps, reproduction

MakeRun = Callable[..., Path]
MOST_BYTES = 6_000_000
QUICK_EMPTY = {"no objects", "no images, no classes", "neither"}
VOID = {"meta", "img", "br", "link", "hr", "input"}


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


def test_a_class_that_images_show_by_number_is_explained(make_run: MakeRun, record: EvaluationRecord) -> None:
    directory = make_run(splits=())
    assert not evaluation_part(record)["numbered"]
    names = (*record.class_names[:3], "\U000e0fff")  # a letter that no font has, since there is none
    replace(record, class_names=names).save(directory / "evaluations" / "val.npz")
    assert r"They are drawn as numbers: class 4 (\U000e0fff)." in read(write_report(directory)).text


def test_the_page_of_a_run_has_all_its_parts(make_run: MakeRun) -> None:
    directory = make_run(splits=("val", "test"))
    path = write_report(directory)
    assert path == directory / "report.html"
    assert path.stat().st_size < MOST_BYTES
    page = read(path)
    of_split = ("classes", "curves", "confusion", "errors", "sizes", "calibration", "images")
    wanted = {"summary", "curves", "val", "test", "priors", "configuration", "reproduction"}
    wanted |= {f"{split}-{part}" for split in ("val", "test") for part in of_split}
    assert set(page.ids) == wanted
    assert len(page.ids) == len(wanted)
    links = {target for target in page.targets if target.startswith("#")}
    assert links == {f"#{name}" for name in wanted}  # each has a line in the table of contents
    said = (
        "0.600",
        "after epoch 2, step 20",
        "3 of 3",
        "1 h 2 min",
        "2 x <i>chip</i>",
        "0123456789ab",
        "batch_size: 8",
    )
    assert [text for text in said if text not in page.text] == []


def test_names_are_escaped_and_nothing_is_asked_of_the_network(make_run: MakeRun) -> None:
    html = write_report(make_run("<u>run"), None).read_text()
    page = Page(html)
    assert "default-src 'none'" in html
    assert all(target.startswith(("#", "data:image/jpeg;base64,")) for target in page.targets)
    assert not {"script", "link", "iframe", "object", "form"} & set(page.tags)
    assert not re.search(r"url\(|@import|https?://(?!www\.w3\.org)", html)
    assert not {"u", "i", "b"} & set(re.findall(r"<(u|i)\b", html))
    assert "alert(1)" in page.text
    comparison = Page(write_comparison([make_run("a"), make_run("<u>b", lr=0.2)], make_run("c") / "x.html").read_text())
    assert "script" not in comparison.tags
    assert "u" not in comparison.tags


def test_images_are_drawn_scaled_down_and_missing_ones_noted(record: EvaluationRecord) -> None:
    Path(record.image_paths[0]).rename(f"{record.image_paths[0]}.away")
    try:
        shown = show_images(record, image_scores(record), [0, 1], score_threshold=0.4)
    finally:
        Path(f"{record.image_paths[0]}.away").rename(record.image_paths[0])
    assert (shown[0]["uri"], shown[1]["problem"]) == ("", "")
    assert "there is no" in shown[0]["problem"] or "No such file" in shown[0]["problem"]
    jpeg = base64.b64decode(shown[1]["uri"].removeprefix("data:image/jpeg;base64,"))
    assert max(Image.open(io.BytesIO(jpeg)).size) == 480
    assert shown[1]["hits"] + shown[1]["missed"] == int((record.objects.image_index == 1).sum())
    moved = replace(record, image_paths=(record.image_paths[1], *record.image_paths[1:]))  # of another size
    (other,) = show_images(moved, image_scores(moved), [0], score_threshold=0.4)
    assert "but its annotation says" in other["problem"]


def test_images_beyond_the_limit_are_left_out(record: EvaluationRecord, monkeypatch: pytest.MonkeyPatch) -> None:
    scores = image_scores(record)
    first = show_images(record, scores, [0], score_threshold=0.4)[0]
    monkeypatch.setattr(images, "MOST_BYTES", len(first["uri"]) * 3 // 4 + 100)
    shown = show_images(record, scores, [0, 1, 2], score_threshold=0.4)
    assert [bool(one["uri"]) for one in shown] == [True, False, False]
    assert "too large" in shown[1]["problem"]


def test_relative_paths_are_those_of_where_the_run_was_started(record: EvaluationRecord) -> None:
    folder = Path(record.image_paths[0]).parent
    moved = replace(record, image_paths=tuple(Path(path).name for path in record.image_paths))
    scores = image_scores(moved)
    assert show_images(moved, scores, [0], score_threshold=0.4)[0]["uri"] == ""
    assert show_images(moved, scores, [0], score_threshold=0.4, ran_in=folder)[0]["uri"]


def test_the_best_and_the_worst_images_are_those_of_the_analysis(record: EvaluationRecord) -> None:
    part, images = evaluation_part(record), image_scores(record)
    names = [record.image_ids[index] for index in images.best_first]
    assert [one["name"] for one in part["best"]] == names[:4]
    assert [one["name"] for one in part["worst"]] == names[::-1][:8]
    right = make_record(
        [ImageSpec([(LEFT, 1, False)], [(LEFT, 0.9, 1)])] * 4 + [ImageSpec([(LEFT, 1, False)])] + [ImageSpec()]
    )
    assert len(evaluation_part(right)["best"]) == 2
    assert [one["score"] for one in evaluation_part(right)["worst"]] == [0.0]  # what is all right is none of the worst


def test_numbers_are_those_of_the_analyses() -> None:
    record = planted_record()
    part = evaluation_part(record)
    assert [curve.ap for curve in part["curves"]] == [curve.ap for curve in pr_curves(record)]
    assert [row[0] for row in part["error_rows"]] == list(ERROR_TYPES)
    assert part["counts"] == "11 images, 13 objects (2 of them difficult, which are not counted), 13 detections"


def test_the_most_frequent_confusions_of_classes() -> None:
    matrix = np.array([[0, 7, 0, 0], [1, 5, 4, 0], [0, 9, 1, 0], [0, 0, 0, 3]])
    assert confusions(matrix, ["a", "b", "c"]) == [("b", "a", 9, 0.9), ("a", "b", 4, 0.4)]
    assert confusions(np.zeros((1, 1)), []) == []


@pytest.mark.parametrize(
    "name", [name if name in QUICK_EMPTY else pytest.param(name, marks=pytest.mark.slow) for name in EMPTY]
)
def test_a_record_that_lacks_something_has_a_page(make_run: MakeRun, name: str) -> None:
    directory = make_run(splits=())
    EMPTY[name].save(directory / "evaluations" / "val.npz")
    page = read(write_report(directory))
    assert "val-errors" in page.ids
    assert "nan" not in page.text.replace("banana", "")


def test_parts_that_are_missing_are_said_and_the_others_shown(make_run: MakeRun) -> None:
    directory = make_run("a", without=("checkpoint", "result.json", "config.yaml"), splits=())
    EMPTY["one class"].save(directory / "evaluations" / "val.npz")
    page = read(write_report(directory))
    for text in ("The run is unfinished", "No configuration: there is no config.yaml", "No coverage by the priors"):
        assert text in page.text
    assert "val-errors" in page.ids
    assert not {"priors", "configuration"} & set(page.ids)


def test_a_run_without_a_validation_says_why(make_run: MakeRun) -> None:
    directory = make_run(without=("val",), splits=())
    config = directory / "config.yaml"
    config.write_text(config.read_text().replace("max_epochs: 3", "max_epochs: 3\n  check_val_every_n_epoch: 4"))
    run = read_run(directory)
    first, second = gaps(run)
    assert first.endswith("since trainer.check_val_every_n_epoch=4 is more than its 3 epochs.")
    assert "python -m ssd_lightning.evaluate" in second
    assert f"record={directory}/evaluations/val.npz" in second
    page = read(write_report(directory))
    assert "curves" in page.ids
    assert "val" not in page.ids


@pytest.mark.parametrize(
    "odd", [None, *(pytest.param(odd, marks=pytest.mark.slow) for odd in ([1, "a"], {"a": {"images": "x"}}))]
)
def test_entries_of_another_kind_than_expected_are_passed_over(make_run: MakeRun, odd: object) -> None:
    directory = make_run(splits=())
    EMPTY["one class"].save(directory / "evaluations" / "val.npz")
    for path in (directory / name for name in ("run.json", "result.json", "config.yaml")):
        keys = list(yaml.safe_load(path.read_text()))
        path.write_text(json.dumps(dict.fromkeys(keys, odd)))  # which is YAML too
    assert "val" in read(write_report(directory)).ids
    assert "scores" in read(write_comparison([directory], directory / "comparison.html")).ids


def test_a_damaged_checkpoint_costs_the_coverage_alone(make_run: MakeRun) -> None:
    directory = make_run(splits=())
    EMPTY["one class"].save(directory / "evaluations" / "val.npz")
    (directory / "checkpoints" / "best.ckpt").write_bytes(b"PK broken")
    page = read(write_report(directory))
    assert "No coverage by the priors" in page.text
    assert "val" in page.ids


def test_the_epoch_of_an_evaluation_is_found_by_its_score(make_run: MakeRun, record: EvaluationRecord) -> None:
    run = read_run(make_run())
    assert evaluated_epoch(run, "val") == ""
    curve = run.curves["val/map_area"]
    curve.values[1] = mean_ap(pr_curves(record))
    assert evaluated_epoch(run, "val") == "The weights are those after epoch 2."
    assert evaluated_epoch(run, "test") == ""


def test_reproduction_names_commit_changes_and_configuration(make_run: MakeRun) -> None:
    directory = make_run()
    assert reproduction(read_run(directory)).splitlines() == [
        "git checkout 0123456789abcdef",
        f"python -m ssd_lightning.train --config-path {directory}/.hydra",
    ]
    (directory / ".hydra" / "config.yaml").unlink()
    assert reproduction(read_run(directory)).splitlines()[1] == "python -m ssd_lightning.train experiment=toy <b>"
    run = read_run(directory)
    nothing = Run(directory, {}, {}, None, run.curves, {}, None)
    assert reproduction(nothing) == ""


def test_the_overrides_that_chose_the_data_are_repeated(tmp_path: Path) -> None:
    (tmp_path / ".hydra").mkdir()
    assert data_overrides(tmp_path) == ["data=..."]
    (tmp_path / ".hydra" / "hydra.yaml").write_text(
        "hydra: {runtime: {choices: {data: toy}}, overrides: {task: [data.root=a b, seed=1, data=toy]}}"
    )
    assert data_overrides(tmp_path) == ["data=toy", "data.root=a b"]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-1, "0 s"), (59.4, "59 s"), (60, "1 min 0 s"), (3720, "1 h 2 min"), (90_000, "1 d 1 h")],
)
def test_times_have_two_units(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_a_page_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"cannot be written to .*file/report\.html"):
        write_page("<p>", tmp_path / "file" / "report.html")


def test_after_a_training_a_failing_report_is_a_warning(
    make_run: MakeRun, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert try_report(make_run(splits=())) == tmp_path / "run" / "report.html"
    with caplog.at_level(logging.WARNING):
        assert try_report(tmp_path / "nowhere") is None
        monkeypatch.setattr("ssd_lightning.reporting.page.run_page", lambda run, refresh_s: 1 / 0)
        assert try_report(tmp_path / "run") is None
    assert [len(message.splitlines()) for message in caplog.messages] == [1, 1]
    assert "there is no run directory" in caplog.messages[0]
    assert "division by zero" in caplog.messages[1]


def test_a_comparison_has_all_its_parts(make_run: MakeRun, tmp_path: Path) -> None:
    runs = [make_run("a0"), make_run("a1", seed=1, shift=0.1), make_run("b", lr=0.2, shift=-0.1)]
    write_report(runs[2])
    page = read(write_comparison(runs, tmp_path / "pages" / "both.html"))
    assert set(page.ids) == {"runs", "scores", "curves", "classes", "errors", "settings"}
    said = ("3 runs of 2 configurations", "0.650 ± 0.071", "0.500", "−0.150", "optimizer.lr: 0.1 -> 0.2", "0, 1")
    assert [text for text in said if text not in page.text] == []
    assert "../b/report.html" in page.targets
    assert "../a0/report.html" not in page.targets


def test_a_comparison_of_runs_that_share_little(make_run: MakeRun, tmp_path: Path, record: EvaluationRecord) -> None:
    other = make_run("b", without=("config.yaml", "run.json", "result.json", "val"), splits=())
    make_record([]).save(make_run("c", splits=()) / "evaluations" / "val.npz")
    page = read(write_comparison([make_run("a"), other, tmp_path / "c"], tmp_path / "x.html"))
    assert "B without an evaluation of the validation images" in page.text
    assert "There is no recorded difference." in page.text
    assert "nan" not in page.text


def test_scores_on_different_images_are_not_compared(make_run: MakeRun, tmp_path: Path) -> None:
    runs = [make_run("a0"), make_run("a1", seed=1, shift=0.1), make_run("b", lr=0.2, shift=-0.1)]
    marks = ('class="best"', 'class="sure"', "−0.150", "the difference to")
    alike = write_comparison(runs, tmp_path / "alike.html").read_text()
    assert all(mark in alike for mark in marks)
    assert "cannot be compared" not in alike
    make_record([ImageSpec()], class_names=("<i>",)).save(runs[2] / "evaluations" / "val.npz")
    html = write_comparison(runs, tmp_path / "other.html").read_text()
    assert not [mark for mark in marks if mark in html]
    said = (
        "These runs were validated on different images or classes, so their scores cannot be compared: "
        "a0, a1 against b."
    )
    assert 0 < html.index(said) < html.index('id="runs"')
    assert "0.500" in read(tmp_path / "other.html").text


def test_a_run_given_twice_is_refused(make_run: MakeRun, tmp_path: Path) -> None:
    directory = make_run()
    with pytest.raises(DataError, match="is given twice"):
        write_comparison([directory, tmp_path / "x" / ".." / "run"], tmp_path / "x.html")
