"""From sources to batches: what comes, in which order, and how much of it is held."""

import weakref
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from helpers.prediction_media import Web, sends
from ssd_lightning.errors import DataError
from ssd_lightning.inference.frames import SourceImage, SourceReader
from ssd_lightning.inference.loop import Tally, detect_in, in_batches
from ssd_lightning.inference.progress import progress_bar
from ssd_lightning.inference.results import ImageDetections
from ssd_lightning.inference.sources import Source, find_sources


def png(path: Path) -> bytes:
    Image.fromarray(np.full((30, 40, 3), 77, np.uint8)).save(path)
    return path.read_bytes()


def read(sources: list[Source], **settings: int) -> tuple[list[SourceImage], list[str]]:
    bad: list[str] = []
    source_images = list(SourceReader(**settings).read(sources, on_bad=lambda error: bad.append(str(error))))
    return source_images, bad


def test_all_kinds_one_after_the_other(web: Web, clip: Path, tmp_path: Path) -> None:
    url, answers = web
    content = png(tmp_path / "a.png")
    answers |= {
        "/a.png": sends(content, "image/png"),
        "/image": sends(content),
        "/film": sends(clip.read_bytes(), "video/mp4"),
        "/film.mp4": sends(clip.read_bytes()),
    }
    (tmp_path / "bad.jpg").write_text("<html>404</html>")
    names = [f"{tmp_path}/bad.jpg", f"{tmp_path}/a.png", *(f"{url}{path}" for path in answers), str(clip), "87"]
    source_images, bad = read(find_sources(names), frame_stride=6)
    assert [(str(source_image.source).rpartition("/")[2], source_image.frame) for source_image in source_images] == [
        ("a.png", None), ("a.png", None), ("image", None), ("film", 0), ("film", 6), ("film.mp4", 0), ("film.mp4", 6),
        ("clip.mp4", 0), ("clip.mp4", 6),
    ]  # fmt: skip
    assert all((source_image.image == 77).all() for source_image in source_images[:3])
    assert [source_image.path is None for source_image in source_images] == [False, *[True] * 8]
    assert {source_image.fps for source_image in source_images if source_image.frame is not None} == {5 / 6}
    assert [sentence.partition(":")[0].rpartition("/")[2] for sentence in bad] == [
        "bad.jpg", "there is no camera 87, or it is in use or this account has no permission to use it",
    ]  # fmt: skip


def test_what_comes_from_the_web_is_named_by_its_address(web: Web, tmp_path: Path) -> None:
    url, answers = web
    answers |= {
        "/page.jpg": sends(b"<html>hello</html>", "image/jpeg"),
        "/cut.png": sends(png(tmp_path / "a.png")[:60]),
        "/film.mp4": sends(b"no film"),
        "/a/..%2f..%2fetc%2fpasswd": sends(b"x"),
    }
    addresses = [f"{url}{path}" for path in (*answers, "/gone.jpg")]
    source_images, bad = read(find_sources(addresses))
    assert source_images == []
    for address, sentence in zip(addresses, bad, strict=True):
        assert sentence.startswith(f"{address}: ")
        assert "ssd_lightning_" not in sentence  # the folder it was kept in
        assert "\n" not in sentence


def test_downloads_leave_nothing_behind(web: Web, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url, answers = web
    answers["/a.png"] = sends(png(tmp_path / "a.png"))
    place = tmp_path / "temporary"
    place.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(place))
    assert len(read(find_sources([f"{url}/a.png", f"{url}/none.png"]))[0]) == 1
    assert list(place.iterdir()) == []


def test_a_bad_source_can_stop_all(tmp_path: Path) -> None:
    png(tmp_path / "b.png")
    (tmp_path / "a.png").write_bytes(b"")

    def stop(error: DataError) -> None:
        raise error

    with pytest.raises(DataError, match=r"a\.png: the file is empty"):
        list(SourceReader().read(find_sources(str(tmp_path)), on_bad=stop))


def test_only_what_fits_within_the_limit_is_fetched(web: Web, tmp_path: Path) -> None:
    url, answers = web
    content = png(tmp_path / "a.png")
    answers["/a.png"] = sends(content)
    assert len(read(find_sources(f"{url}/a.png"), most_bytes=len(content))[0]) == 1
    assert "allowed" in read(find_sources(f"{url}/a.png"), most_bytes=len(content) - 1)[1][0]


@pytest.mark.parametrize(("count", "size"), [(0, 3), (1, 3), (3, 3), (7, 3), (5, 1)])
def test_batches_have_all_shots_once_in_order(count: int, size: int) -> None:
    source_images = [SourceImage(Source("camera", "0"), np.zeros((1, 1, 3), np.uint8), frame=i) for i in range(count)]
    batches = list(in_batches(source_images, size))
    assert [source_image.frame for batch in batches for source_image in batch] == list(range(count))
    assert all(len(batch) == size for batch in batches[:-1])
    assert all(0 < len(batch) <= size for batch in batches)


class FindsOne:
    """Stands in for a detector: one detection in every image, surer in the brighter ones."""

    def __call__(self, images: list[np.ndarray]) -> list[ImageDetections]:
        box, label = np.array([[1, 2, 3, 4]], np.float32), np.array([1])
        return [
            ImageDetections(image, box, np.array([image.mean() / 255], np.float32), label, ("thing",))
            for image in images
        ]


def test_no_more_images_are_held_than_two_batches() -> None:
    """One is worked on while the next is made, whatever the number of images."""
    alive: list[weakref.ref] = []
    most = 0

    def source_images() -> "object":
        nonlocal most
        for index in range(60):
            image = np.full((8, 8, 3), index, np.uint8)
            alive.append(weakref.ref(image))
            most = max(most, sum(reference() is not None for reference in alive))
            yield SourceImage(Source("image", str(index)), image)

    tally = Tally()
    detect_in(source_images(), FindsOne(), batch_size=4, select=lambda found: found, writers=[], tally=tally)
    assert tally.images == 60
    assert most <= 2 * 4 + 1


def test_what_is_counted_written_and_shown() -> None:
    source_images = [SourceImage(Source("image", str(i)), np.full((4, 4, 3), 25 * i, np.uint8)) for i in range(10)]
    written: list[tuple[str, int]] = []
    shown: list[str] = []

    def show(image: Image.Image, *, title: str, fps: float | None = None) -> bool:
        shown.append(title)
        return len(shown) < 7

    tally, steps = Tally(), []
    detect_in(
        source_images,
        FindsOne(),
        batch_size=3,
        select=lambda found: found.select(0.5),
        writers=[
            SimpleNamespace(write=lambda source_image, found: written.append((source_image.source.address, len(found))))
        ],  # type: ignore[list-item]
        tally=tally,
        window=SimpleNamespace(show=show),  # type: ignore[arg-type]
        on_image=lambda: steps.append(1),
    )
    assert written == [(str(i), int(25 * i >= 127.5)) for i in range(7)]  # after the seventh the user had enough
    assert (tally.images, tally.frames, tally.total, dict(tally.detections)) == (7, 0, 7, {"thing": 1})
    assert len(steps) == 7
    assert shown[6] == "6: 1 found - space: next, q: quit"


@pytest.mark.parametrize(
    ("frames", "total"), [([], 3), ([10], 12), ([10, 5], 16), ([None], None), ([None, 5], None), ([5, None], None)]
)
def test_the_bar_expects_what_is_known(frames: list[int | None], total: int | None) -> None:
    with progress_bar(3) as bar:
        for count in frames:
            bar.opened_video(count)
        bar.step()
        (task,) = bar._progress.tasks
        assert (task.total, task.completed) == (total, 1)
