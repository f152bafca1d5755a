from pathlib import Path

import pytest

from ssd_lightning.run_files import read_json, write_json, written_whole


def write_half(path: Path) -> None:
    with written_whole(path) as partial:
        partial.write_text("half")
        raise ValueError("torn")


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.json"
    write_json(path, {"a": 1})
    with pytest.raises(ValueError, match="torn"):
        write_half(path)
    assert read_json(path) == {"a": 1}
    assert list(path.parent.iterdir()) == [path]


def test_numbers_that_are_not_finite_are_null(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"a": float("nan"), "b": [{"c": (1.5, float("inf"))}]})
    assert read_json(tmp_path / "a.json") == {"a": None, "b": [{"c": [1.5, None]}]}


@pytest.mark.parametrize("content", [None, b"", b"[1]", b"{", b"\xff"])
def test_what_is_no_object_is_none(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "a.json").write_bytes(content)
    assert read_json(tmp_path / "a.json") is None
