import os
from pathlib import Path

import pytest

from ssd_lightning.data.image_suffixes import IMAGE_SUFFIXES, UNREADABLE_SUFFIXES
from ssd_lightning.errors import DataError
from ssd_lightning.inference.names import MOST_BYTES, UniqueNames, clean_name, output_names
from ssd_lightning.inference.sources import VIDEO_SUFFIXES, Source, find_images, find_sources


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("b.jpg", "a.PNG", "deep/a.jpg", "deep/er/c.webp", ".hidden/d.jpg", "notes.txt", "film.MP4"):
        path = tmp_path / "shots" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (tmp_path / "shots" / "again").symlink_to(tmp_path / "shots", target_is_directory=True)
    (tmp_path / "shots" / "folder.jpg").mkdir()
    return tmp_path / "shots"


def test_no_ending_is_of_two_kinds() -> None:
    suffixes = [*IMAGE_SUFFIXES, *UNREADABLE_SUFFIXES, *VIDEO_SUFFIXES]
    assert len(set(suffixes)) == len(suffixes)


def found(given: object, **settings: bool) -> list[tuple[str, str]]:
    return [(source.kind, source.address) for source in find_sources(given, **settings)]


def test_what_a_source_can_be(folder: Path) -> None:
    assert found("shots") == [("image", "shots/a.PNG"), ("image", "shots/b.jpg")]
    deeper = [("image", "shots/deep/a.jpg"), ("image", "shots/deep/er/c.webp")]
    assert found("shots", recursive=True) == [*found("shots"), *deeper]
    assert found("shots/*/*.jpg") == [("image", "shots/again/b.jpg"), ("image", "shots/deep/a.jpg")]
    assert found("shots/film.MP4") == found("shots/*.MP4") == [("video", "shots/film.MP4")]
    assert found("shots/notes.txt") == [("image", "shots/notes.txt")]  # what is named is tried
    assert found(0) == found("0") == found("00") == [("camera", "0")]
    assert found("HTTPS://host/a.jpg") == [("url", "HTTPS://host/a.jpg")]
    assert found([0, "shots/b.jpg", "shots", "http://h/v.mp4"]) == [
        ("camera", "0"), ("image", "shots/b.jpg"), ("image", "shots/a.PNG"), ("url", "http://h/v.mp4"),
    ]  # fmt: skip
    Path("0").touch()
    assert found("0") == [("image", "0")]


@pytest.mark.parametrize(
    ("given", "answer"),
    [
        ("nowhere", "source=nowhere: neither a file nor a folder, and nothing matches the pattern"),
        ("*.gif", "nothing matches the pattern"),
        ([], "the list is empty"),
        (["shots", "nowhere"], "source=nowhere: "),
        ("rtsp://camera", "must start with http:// or https://"),
        ("file:///etc/passwd", "must start with http:// or https://"),
        ("empty", "no image .* in the folder$"),
        ("films", r"no image .*; use a pattern for its videos, such as source='films/\*\.mp4'$"),
        ("outer", "no image .*; recursive=true uses its subfolders$"),
        ("a\0b", "source=a"),
        ("x" * 5000, "source=xxx"),
    ],
)
def test_what_is_no_source(folder: Path, given: object, answer: str) -> None:
    for name in ("empty", "films", "outer/inner"):
        Path(name).mkdir(parents=True)
    Path("films/film.mov").touch()
    with pytest.raises(DataError, match=answer) as caught:
        find_sources(given)
    assert "\n" not in str(caught.value)


def test_what_outputs_are_called_after() -> None:
    assert Source("image", "a/b.c.jpg").stem == "b.c"
    assert Source("camera", "3").stem == "camera_3"
    assert str(Source("camera", "3")) == "camera 3"
    assert Source("url", "https://host/x/caf%C3%A9%2f..%2fy.jpg?z=1.png#w").stem == "y"
    assert Source("url", "http://host:80").stem == "host:80"


def test_names_are_unique_whatever_their_case() -> None:
    names = UniqueNames()
    assert [names.take(name) for name in ("a", "A", "a_2", "a", "b")] == ["a", "A_2", "a_2_2", "a_3", "b"]
    sources = [Source("image", f"{index}/image.jpg") for index in range(3000)]
    assert len(set(output_names(sources).values())) == 3000


@pytest.mark.parametrize(
    ("name", "clean"),
    [
        ("", "image"), (" ", "image"), ("..", "image"), ("a/../../b", "a_.._.._b"), ("a\\b", "a_b"),
        ("\x1b[31m", "_[31m"), ("x\ny", "x_y"), (os.fsdecode(b"\xff"), "_"), ("鳥" * 300, "鳥" * (MOST_BYTES // 3)),
        # of Windows
        ("12:30:05", "12_30_05"), ('a<b>?*|"c', "a_b_____c"), ("CON", "_CON"), ("lpt1.old", "_lpt1.old"),
        ("conan", "conan"),
    ],
)  # fmt: skip
def test_names_are_valid_on_any_system_and_stay_in_their_folder(name: str, clean: str) -> None:
    assert clean_name(name) == clean


def test_what_is_skipped_in_a_folder_is_counted_and_named(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    Path("mixed/below").mkdir(parents=True)
    for name in ("a.jfif", "b.SVG", "c.dng", "below/d.jxl", "notes.txt", "e.mp4", "f.MOV"):
        Path("mixed", name).write_bytes(b"")
    assert [path.name for path in find_images("mixed")] == ["a.jfif"]
    assert "mixed: skipped 2 images of formats that are not read (b.SVG, c.dng)" in caplog.text
    assert "2 videos in mixed are skipped; use a pattern for its videos" in caplog.text
    find_images("mixed", recursive=True)
    assert "skipped 3 images of formats that are not read (b.SVG, c.dng, d.jxl)" in caplog.text
    Path("mixed/a.jfif").unlink()
    with pytest.raises(DataError, match=r"no image .* in the folder; there are 2 images of formats that"):
        find_images("mixed")
    with pytest.raises(DataError, match=r"3 images of formats.*\*\.mp4'$"):  # no advice that was followed already
        find_images("mixed", recursive=True)
