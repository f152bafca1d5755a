"""Files below a folder."""

from pathlib import Path

from ssd_lightning.data.formats.files import visible_below


def test_links_to_folders_are_followed_but_nothing_is_found_twice(tmp_path: Path) -> None:
    folder, elsewhere = tmp_path / "train", tmp_path / "elsewhere"
    for path in (folder / "day/a.jpg", elsewhere / "b.jpg", elsewhere / "deep/c.jpg", folder / ".hidden/d.jpg"):
        path.parent.mkdir(parents=True)
        path.touch()
    for link, target in (
        (folder / "more", elsewhere),
        (folder / "more_again", elsewhere),
        (folder / "day_again", folder / "day"),
        (folder / "deep_again", elsewhere / "deep"),
        (folder / "around", tmp_path),
        (elsewhere / "back", folder),
        (elsewhere / "loop", elsewhere),
    ):
        link.symlink_to(target)
    names = ["day", "day/a.jpg", "deep_again", "deep_again/c.jpg", "more", "more/b.jpg"]
    assert [path.relative_to(folder).as_posix() for path in visible_below(folder)] == names
