from types import SimpleNamespace

import pytest

from helpers.distributed_steps import annotations
from ssd_lightning.errors import ConfigurationError
from ssd_lightning.training.fault_tolerance.rank_consistency import RankConsistencyCheck, require_same, statement

# On two real processes in test_distribution.py; which changes of images are noticed, in test_fingerprint.py.


@pytest.mark.parametrize(("world_size", "stage"), [(1, "fit"), (2, "test")])
def test_one_process_and_a_test_compare_nothing(world_size: int, stage: str) -> None:
    trainer = SimpleNamespace(world_size=world_size)  # without data, and without a process group
    RankConsistencyCheck({"seed": 0}).setup(trainer, None, stage)  # type: ignore[arg-type]


def test_settings_without_effect_and_paths_may_differ() -> None:
    require_same(
        [statement({"data": {"num_workers": rank}}, annotations(folder=f"node{rank}"), ["cat"]) for rank in range(2)]
    )


def test_only_the_release_in_the_version_must_be_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    statements = []
    for version in ("0.2.1.dev1+g1111111", "0.2.1.dev2+g2222222.d20260101", "0.3.0"):
        monkeypatch.setattr("ssd_lightning.__version__", version)
        statements.append(statement({}, annotations(), ["cat"]))
    require_same(statements[:2])
    with pytest.raises(ConfigurationError, match=r"versions\.ssd_lightning: 0\.2\.1 and 0\.3\.0"):
        require_same(statements[1:])


@pytest.mark.parametrize(
    ("other", "named"),
    [
        (statement({"seed": 1}, annotations(), ["cat"]), "seed: 0 and 1"),
        (statement({"seed": 0}, annotations(), ["cat"]) | {"versions": {"torch": "1.0"}}, r"versions\.torch: .* 1\.0"),
        (statement({"seed": 0}, annotations(count=4), ["cat"]), r"training_images\.images: 3 and 4"),
        (statement({"seed": 0}, annotations(), ["dog"]), r"training_images\.classes: \w+ and \w+"),
        (statement({str(key): key for key in range(20)}, annotations(), ["cat"]), "; and 13 more"),
    ],
)
def test_what_differs_is_named(other: dict, named: str) -> None:
    same = statement({"seed": 0}, annotations(), ["cat"])
    with pytest.raises(ConfigurationError, match=rf"rank 0 and rank 1 \(of 3\) have .*{named}") as caught:
        require_same([same, other, same])
    assert "rank 2" not in str(caught.value)
