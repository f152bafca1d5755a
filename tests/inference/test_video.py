import os
from collections.abc import Iterable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from helpers.prediction_media import write_video
from ssd_lightning.errors import ConfigurationError, DataError
from ssd_lightning.inference.video import Video, VideoFile

GREYS = [20 * index for index in range(12)]


def greys(frames: Iterable[tuple[int, np.ndarray]]) -> list[int]:
    """Brightness of each frame, to the nearest of those that were filmed: MPEG-4 changes them a little."""
    return [min(GREYS, key=lambda grey: abs(grey - image.mean())) for _, image in frames]


@pytest.mark.parametrize(("frame_stride", "most"), [(1, None), (2, 2), (5, 50), (100, None), (1, 0)])
def test_every_nth_frame_in_order_and_no_more_than_asked(clip: Path, frame_stride: int, most: int | None) -> None:
    video = Video(clip)
    assert (video.fps, video.stated_frames) == (5.0, 12)
    frames = list(video.frames(frame_stride=frame_stride, most=most))
    expected = list(range(0, 12, frame_stride))[:most]
    assert [number for number, _ in frames] == expected
    assert greys(frames) == [GREYS[number] for number in expected]
    assert all((image.shape, image.dtype) == ((48, 64, 3), np.dtype(np.uint8)) for _, image in frames)
    with pytest.raises(ConfigurationError, match="frame_stride is 0"):
        list(Video(clip).frames(frame_stride=0))


def test_colours_are_rgb_and_a_video_filmed_lying_down_is_turned(tmp_path: Path) -> None:
    """Phones note a turn by 90 degrees in the matrix of the track header, `tkhd`."""
    left_half = np.zeros((32, 64, 3), np.uint8)
    left_half[:, :32] = (220, 0, 0)
    path = write_video(tmp_path / "phone.mp4", [left_half] * 2)
    content = bytearray(path.read_bytes())
    matrix = content.index(b"tkhd") + 4 + 40  # version 0: 40 bytes of times, ids and flags come first
    one, minus_one, last = (value.to_bytes(4, "big") for value in (1 << 16, (1 << 32) - (1 << 16), 1 << 30))
    zero = bytes(4)
    content[matrix : matrix + 36] = b"".join([zero, one, zero, minus_one, zero, zero, zero, zero, last])
    path.write_bytes(content)
    for _, image in Video(str(path)).frames():
        assert image.shape == (64, 32, 3)
        upright = np.rot90(left_half, -1).astype(int)  # the left is above now
        assert np.abs(image - upright)[[*range(28), *range(36, 64)]].max() < 20


def test_a_video_that_lies_about_its_length_gives_what_is_there(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (12, 96, 128, 3), dtype=np.uint8)
    path = write_video(tmp_path / "clip.avi", list(noise), codec="MJPG")
    assert len(list(Video(path).frames())) == len(list(Video(path).frames(most=12))) == 12
    assert len(list(Video(path).frames(most=2))) == 2
    assert not caplog.messages
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    video = Video(path)
    count = len(list(video.frames()))
    assert video.stated_frames != count
    assert 3 <= count <= 8
    assert caplog.messages == [f"{path}: read {count} of its 12 frames; the others are damaged, missing or trimmed"]


def test_damaged_frames_are_skipped_and_the_others_keep_their_place(
    clip: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """MPEG-4 video begins each frame with 00 00 01 B6."""
    content = clip.read_bytes()
    starts = [place for place in range(len(content)) if content[place : place + 4] == b"\0\0\1\xb6"]
    for place in starts[4:6]:
        content = content[:place] + b"\xff" * 8 + content[place + 8 :]
    clip.write_bytes(content)
    video = Video(clip)
    seen = [(number, video.time_s) for number, _ in video.frames()]
    assert len(starts) == 12
    assert seen == [(number, pytest.approx(number / 5)) for number in range(12) if number not in (4, 5)]
    assert caplog.messages == [f"{clip}: read 10 of its 12 frames; the others are damaged, missing or trimmed"]


def test_a_variable_rate(clip: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Phones and screen recorders. The MP4 has runs of (frames, duration of each) in its box `stts`."""
    content = bytearray(clip.read_bytes())
    place = content.index(b"stts")
    runs, count, duration = (int.from_bytes(content[place + at : place + at + 4], "big") for at in (8, 12, 16))
    assert (runs, count) == (1, 12)
    table = [2, 8, duration // 2, 4, 2 * duration]
    content[place + 8 : place + 20] = b"".join(number.to_bytes(4, "big") for number in table)
    for box in (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"stts"):
        at = content.index(box) - 4
        content[at : at + 4] = (int.from_bytes(content[at : at + 4], "big") + 8).to_bytes(4, "big")
    clip.write_bytes(content)
    video = Video(clip)
    times = [video.time_s for _ in video.frames()]
    assert times == pytest.approx([*(0.1 * index for index in range(8)), 0.8, 1.2, 1.6, 2.0])
    assert not caplog.messages


def test_a_camera_that_ends(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    given = [np.zeros((4, 6, 3), np.uint8)] * 3
    capture = SimpleNamespace(
        isOpened=lambda: True,
        set=lambda *_: True,
        get=lambda _: 30.0,
        read=lambda: (True, given.pop()) if given else (False, None),
        release=lambda: None,
    )
    monkeypatch.setattr("cv2.VideoCapture", lambda _: capture)
    video = Video(0)
    assert [(number, video.time_s) for number, _ in video.frames()] == [(0, None), (1, None), (2, None)]
    assert caplog.messages == ["camera 0 has ended after 3 frames"]


# What says where the frames lie comes last, so a file that was cut off is no video.
@pytest.mark.parametrize("content", [b"\0" * 5000, b"#EXTM3U\n#EXTINF:10,\nclip.mp4\n", 0, 0.9])
def test_what_is_no_video(clip: Path, capfd: pytest.CaptureFixture[str], content: bytes | float) -> None:
    film = clip.read_bytes()
    bad = clip.with_name("bad.mp4")
    bad.write_bytes(content if isinstance(content, bytes) else film[: int(len(film) * content)])
    with pytest.raises(DataError, match=r"bad\.mp4: "):
        list(Video(bad).frames())
    assert capfd.readouterr().err == ""  # nor do the libraries tell of it in lines of their own


def test_what_is_no_file_or_camera(clip: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    os.mkfifo(tmp_path / "pipe.mp4")
    no_text = clip.rename(tmp_path / os.fsdecode(b"clip\xff.mp4"))
    for address, answer in (
        (tmp_path / "none.mp4", "there is no such video"),
        (tmp_path / "pipe.mp4", "pipe"),
        (no_text, "rename it"),
        (87, "there is no camera 87"),
    ):
        with pytest.raises(DataError, match=answer):
            Video(address)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("name", ["concat:x.mp4", "clip%02d.mp4", "-i.mp4", "größe 鳥.mp4", "x\ny.mp4"])
def test_names_are_no_protocols_and_no_patterns(
    clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    clip.rename(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    assert greys(Video(Path(name)).frames()) == GREYS


@pytest.mark.parametrize(("size_px", "fps"), [((48, 64), 2.5), ((47, 63), None), ((1, 1), 2.5)])
def test_what_is_written_is_read_back(tmp_path: Path, size_px: tuple[int, int], fps: float | None) -> None:
    file = VideoFile(tmp_path / "out.mp4", fps)
    for grey in GREYS:
        file.write(np.full((*size_px, 3), grey, np.uint8))
    file.close()
    video = Video(tmp_path / "out.mp4")
    assert video.fps == (fps or 25)
    frames = list(video.frames())
    even = tuple(side + side % 2 for side in size_px)  # one row or column more rather than one less
    assert {image.shape[:2] for _, image in frames} == {even}
    assert greys(frames) == GREYS


def test_frames_of_another_size_are_not_lost_and_a_place_where_nothing_can_be_written_is_named(tmp_path: Path) -> None:
    file, nowhere = VideoFile(tmp_path / "out.mp4", 10), VideoFile(tmp_path / "none" / "out.mp4", 5)
    for side in (32, 64, 20):
        file.write(np.full((side, side, 3), 100, np.uint8))
    file.close()
    assert [image.shape[:2] for _, image in Video(tmp_path / "out.mp4").frames()] == [(32, 32)] * 3
    with pytest.raises(DataError, match=r"out\.mp4: cannot write a video of 8 x 6 px"):
        nowhere.write(np.zeros((6, 8, 3), np.uint8))
    nowhere.close()
