from pathlib import Path
from statistics import stdev

import pytest

from helpers.evaluation_records import ImageSpec, make_record
from helpers.report_runs import make_run
from ssd_lightning.reporting.groups import (
    config_differences,
    group_runs,
    letter_of,
    runs_by_data,
    score_cells,
    short_names,
    without_seed,
)
from ssd_lightning.reporting.run import Run, read_run

SCORE = "val/map_11point"


def test_runs_that_differ_in_the_seed_alone_are_one_group(tmp_path: Path) -> None:
    different = {"a": {"seed": 0}, "b": {"lr": 0.2}, "c": {"seed": 1}, "d": {"seed": 2}}
    first, second = group_runs([read_run(make_run(tmp_path / name, **changes)) for name, changes in different.items()])
    assert [run.directory.name for run in first.runs] == ["a", "c", "d"]
    assert (first.letter, first.name, second.label) == ("A", "a, c, d", "B · b")
    assert config_differences(first, second) == ["optimizer.lr: 0.1 -> 0.2"]


def test_runs_without_a_configuration_stand_alone(tmp_path: Path) -> None:
    groups = group_runs([read_run(make_run(tmp_path / name, without=("config.yaml",))) for name in "ab"])
    assert len(groups) == 2
    assert config_differences(*groups) == []


def test_the_seed_of_a_run_may_equal_that_of_something_else() -> None:
    configs = [{"seed": seed, "data": {"seed": seed, "a": 1}, "list": [{"seed": 3, "b": 2}]} for seed in (3, 4)]
    assert [without_seed(config) for config in configs] == [{"data": {"a": 1}, "list": [{"b": 2}]}] * 2


def test_scores_of_seeds_have_a_mean_and_a_spread_and_one_that_is_not_there_is_a_dash(tmp_path: Path) -> None:
    shifts = (0.0, 0.03, 0.09)
    runs = [make_run(tmp_path / f"a{seed}", seed=seed, shift=shift) for seed, shift in enumerate(shifts)]
    runs += [make_run(tmp_path / f"b{shift}", lr=shift, shift=shift) for shift in (0.3, 0.05)]
    runs.append(make_run(tmp_path / "c", lr=0.4, without=("val",)))
    groups = group_runs([read_run(run) for run in runs])
    one, two, three, none = score_cells(groups, SCORE)
    assert one.text == f"0.640 ± {stdev(shifts):.3f}"
    assert (one.difference, one.is_best) == ("", False)
    assert (two.text, two.difference, two.is_sure, two.is_best) == ("0.900", "+0.260", True, True)
    # Two standard errors of the mean of three are .053.
    assert (three.difference, three.is_sure) == ("+0.010", False)
    assert (none.text, none.difference, none.is_best) == ("–", "", False)
    assert all(not cell.is_best for cell in score_cells(groups, "test/map"))


FINGERPRINT = {"images": 30, "objects": 60, "classes": "c", "names": "n", "boxes": "b", "bytes": 5, "files": "f"}
THREE = {"class_names": ["disk", "ring", "star"]}


def validated_on(fingerprint: object) -> dict:
    return {"data": {"val": fingerprint, "train": {"images": 4}}}


@pytest.mark.parametrize(
    ("second", "are_alike"),
    [
        (validated_on(FINGERPRINT | {"contents": "x"}), True),
        (validated_on(FINGERPRINT | {"boxes": "other"}), False),
        (validated_on({"images": 30}), True),
        (validated_on({"images": 31}), False),
        (validated_on([1]) | THREE, True),
        (THREE, True),
        ({"class_names": THREE["class_names"][::-1]}, False),
        ({"data": 5, "class_names": 5}, True),
    ],
)
def test_runs_are_alike_where_images_and_classes_are(second: dict, are_alike: bool) -> None:
    records = (validated_on(FINGERPRINT) | THREE, second)
    runs = [Run(Path(), record, {}, None, {}, {}, None) for record in records]
    assert len(runs_by_data(runs)) == (1 if are_alike else 2)


def test_older_runs_are_alike_by_the_images_of_their_evaluations() -> None:
    records = [make_record([ImageSpec()] * count) for count in (30, 29, 30)]
    first, second, third = (Run(Path(), {}, {}, None, {}, {"val": record}, None) for record in records)
    assert runs_by_data([first, second, third]) == [[first, third], [second]]


def test_directories_are_named_by_what_tells_them_apart(tmp_path: Path) -> None:
    assert short_names([tmp_path / "x" / "0", tmp_path / "x" / "1"]) == ["0", "1"]
    assert short_names([tmp_path / "x" / "0", tmp_path / "y" / "0"]) == ["x/0", "y/0"]
    assert short_names([]) == []


def test_letters_do_not_run_out() -> None:
    letters = [letter_of(index) for index in range(80)]
    assert letters[0] == "A"
    assert len(set(letters)) == 80
