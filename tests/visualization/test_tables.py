"""Tables and the doctor's report on the terminal."""

import pytest

from ssd_lightning.visualization.health_tables import print_coverage, print_issues, print_splits, print_trial
from ssd_lightning.visualization.tables import TextTable, print_table, quantity, spread


def test_quantities_and_spreads() -> None:
    texts = {
        (0.01234, "s"): "12.3 ms",
        (2.345, "s"): "2.35 s",
        (1234.5, "images/s"): "1234 images/s",
        (0.5, "MiB"): "0.5 MiB",
        (3.21e14, "FLOP/s"): "321 TFLOP/s",
    }
    assert {value: quantity(*value) for value in texts} == texts
    assert spread([1.0, 2.0]) == "1.50"
    assert spread([1.0, 2.0, 3.0, 4.0, 5.0]) == "3.00 (2.00-4.00)"


def test_cells_are_no_markup(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(TextTable(("name",), [("[bold]x",), (), ("y",)]))
    assert "[bold]x" in capsys.readouterr().out


def group(severity: str, title: str, count: int) -> dict[str, object]:
    items = [{"split": "train", "sentence": f"[bold]{title} {number}.jpg"} for number in range(count)]
    return {"severity": severity, "title": title, "advice": f"mend {title}", "items": items}


def test_issues_are_cut_and_counted_and_long_sentences_are_not_broken(capsys: pytest.CaptureFixture[str]) -> None:
    tiny = "tiny" * 100
    print_issues([group("error", "torn", 3), group("warning", tiny, 1)], lines=2, everything_in="out/doctor.json")
    lines = [line.strip() for line in capsys.readouterr().out.splitlines() if line.strip()]
    assert lines == [
        "ERRORS: they would spoil the run",
        "torn: 3",
        "[bold]torn 0.jpg",  # names are no markup
        "[bold]torn 1.jpg",
        "and 1 more in out/doctor.json",
        "-> mend torn",
        "WARNINGS",
        f"{tiny}: 1",
        f"[bold]{tiny} 0.jpg",
        f"-> mend {tiny}",
    ]
    print_issues([], lines=5, everything_in="f")
    assert capsys.readouterr().out.strip() == "no issue"


def test_the_faults_of_one_file_do_not_hide_the_other_files(capsys: pytest.CaptureFixture[str]) -> None:
    sentences = [f"a.xml: object {number} is odd" for number in range(90)]
    sentences += ["b.xml: object 1 is odd", "c.xml: object 1 is odd", "c.xml: object 2 is odd", "no file, no colon"]
    of_one_kind = group("error", "odd", 0) | {"items": [{"split": "train", "sentence": text} for text in sentences]}

    def shown(lines: int, **changes: object) -> list[str]:
        print_issues([of_one_kind | changes], lines=lines, everything_in="f.json")
        return [line.strip() for line in capsys.readouterr().out.splitlines()[3:-1]]

    assert shown(5) == [
        "a.xml: object 0 is odd",
        "a.xml: object 1 is odd (and 88 more there)",
        "b.xml: object 1 is odd",
        "c.xml: object 1 is odd (and 1 more there)",
        "no file, no colon",
        "and 89 more in f.json",
    ]
    assert shown(2) == ["a.xml: object 0 is odd (and 89 more there)", "b.xml: object 1 is odd", "and 92 more in f.json"]
    assert shown(0) == ["and 94 more in f.json"]
    assert shown(99) == sentences
    alone = shown(2, items=of_one_kind["items"][:90])  # type: ignore[index]
    assert alone == [*sentences[:2], "and 88 more in f.json"]


def test_splits_and_classes(capsys: pytest.CaptureFixture[str]) -> None:
    counts = {"objects": 6, "difficult": 3, "images": 2}
    empty = {"images": 0, "objects": 0, "difficult": 0, "images_without_objects": 0, "left_out": 4, "classes": {}}
    train = {"images": 9, "objects": 6, "difficult": 3, "images_without_objects": 1, "left_out": 2}
    print_splits({"train": train | {"classes": {"cat": counts}}, "test": empty})
    out = capsys.readouterr().out
    assert all(text in out for text in ("3 (50.0%)", "6 (2)", "0 (0)"))
    print_splits({"train": train | {"classes": {str(number): counts for number in range(80)}}})
    assert "and 50 more classes" in capsys.readouterr().out
    print_splits({})


def coverage(share: float) -> dict[str, object]:
    part = {"objects": 4, "reached": 2, "share": share, "mean_iou": 0.5}
    none = {"objects": 0, "reached": 0, "share": None, "mean_iou": None}
    bands = {"by_size": {"small": part, "large": none}, "by_ratio": {"square": part}}
    return {"threshold": 0.5, **part, **bands, "unreached": ["a.jpg: object 1", "b.jpg: object 2"]}


def test_coverage_before_and_after(capsys: pytest.CaptureFixture[str]) -> None:
    print_coverage(coverage(0.25), coverage(0.75), lines=1, everything_in="f.json")
    out = capsys.readouterr().out
    assert out.count("25.0%") == out.count("75.0%") == 3
    assert "large" not in out  # a band without objects
    assert "a.jpg: object 1" in out
    assert "and 1 more in f.json" in out
    print_coverage(coverage(0.25), None, lines=0, everything_in="f.json")
    assert "fitted" not in capsys.readouterr().out


def test_the_trial(capsys: pytest.CaptureFixture[str]) -> None:
    losses = {"expected": {"cls": 5.5, "loc": 1.0}, "measured": {"cls": 7.0, "loc": 2.0}}
    estimate = {
        "measured_batch_size": 8, "images_per_s": 12.34, "batch_size": 32, "device_batch_size": 16, "devices": 2,
        "memory_mib": 2048.0,
    }  # fmt: skip
    texts = {0.5: "about 30 min for 77 steps", 5: "about 5.0 h for", 72: "3.0 days for", None: "has no end on"}
    for hours, said in texts.items():
        steps = None if hours is None else 77
        print_trial(losses, estimate | {"steps": steps, "hours": hours}, where="cpu, 32-true")
        out, memory = capsys.readouterr().out, "about 2.0 GiB on each device, 16 images at a time"
        for text in (said, "12.3 images/s (cpu, 32-true, batches of 8", "2 such devices", memory):
            assert text in out
