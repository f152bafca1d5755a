import os
from pathlib import Path

import numpy as np
import pytest

from helpers.prediction_media import write_video
from ssd_lightning.errors import DataError
from ssd_lightning.inference.video import Video, VideoFile

GREYS = [20 * index for index in range(12)]


def greys(path: Path, **settings: int) -> list[int]:
    """Brightness of each frame, to the nearest of those that were filmed: MPEG-4 changes them a little."""
    frames = Video(path).frames(**settings)
    return [min(GREYS, key=lambda grey: abs(grey - frame.image.mean())) for frame in frames]


def test_all_frames_come_in_their_order(clip: Path) -> None:
    video = Video(clip)
    assert (video.fps, video.stated_frames) == (5.0, 12)
    frames = list(video.frames())
    assert [frame.number for frame in frames] == list(range(12))
    assert [frame.time_s for frame in frames] == pytest.approx([index / 5 for index in range(12)])
    assert {(frame.image.shape, frame.image.dtype) for frame in frames} == {((48, 64, 3), np.dtype(np.uint8))}
    assert greys(clip) == GREYS


@pytest.mark.parametrize(("frame_stride", "most"), [(1, 2), (2, None), (5, 50), (12, 1), (100, None)])
def test_every_nth_frame_and_no_more_than_asked(clip: Path, frame_stride: int, most: int | None) -> None:
    frames = list(Video(clip).frames(frame_stride=frame_stride, most=most))
    expected = list(range(0, 12, frame_stride))[:most]
    assert [frame.number for frame in frames] == expected
    assert greys(clip, frame_stride=frame_stride, most=most) == [GREYS[number] for number in expected]


def test_colours_are_rgb(tmp_path: Path) -> None:
    red = np.zeros((16, 16, 3), np.uint8)
    red[..., 0] = 220
    (frame,) = Video(write_video(tmp_path / "red.mp4", [red])).frames()
    assert np.abs(frame.image.astype(int) - red).max() < 20


def test_a_video_filmed_lying_down_is_turned(tmp_path: Path) -> None:
    """Phones note a turn by 90 degrees in the matrix of the track header, `tkhd`."""
    left_half = np.zeros((32, 64, 3), np.uint8)
    left_half[:, :32] = 255
    path = write_video(tmp_path / "phone.mp4", [left_half] * 2)
    content = bytearray(path.read_bytes())
    matrix = content.index(b"tkhd") + 4 + 40  # version 0: 40 bytes of times, ids and flags come first
    one, minus_one, last = (value.to_bytes(4, "big") for value in (1 << 16, (1 << 32) - (1 << 16), 1 << 30))
    zero = bytes(4)
    content[matrix : matrix + 36] = b"".join([zero, one, zero, minus_one, zero, zero, zero, zero, last])
    path.write_bytes(content)
    frames = list(Video(path).frames())
    assert [frame.image.shape for frame in frames] == [(64, 32, 3)] * 2
    assert frames[0].image[:28].mean() > 200  # the left is above now
    assert frames[0].image[36:].mean() < 50


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
def test_a_video_that_was_cut_off_is_refused(clip: Path, share: float) -> None:
    content = clip.read_bytes()
    clip.write_bytes(content[: int(len(content) * share)])  # what says where the frames lie comes last
    with pytest.raises(DataError, match=r"clip\.mp4: FFmpeg cannot read this file as a video, or it is truncated"):
        Video(clip)


def test_a_video_that_lies_about_its_length_gives_what_is_there(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (12, 96, 128, 3), dtype=np.uint8)
    path = write_video(tmp_path / "clip.avi", list(noise), codec="MJPG")
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    video = Video(path)
    count = len(list(video.frames()))
    assert video.stated_frames != count
    assert 3 <= count <= 8


@pytest.mark.parametrize("content", [b"", b"\0" * 5000, b"#EXTM3U\n#EXTINF:10,\nclip.mp4\n", b"<html>404</html>"])
def test_what_is_no_video(tmp_path: Path, capfd: pytest.CaptureFixture[str], content: bytes) -> None:
    (tmp_path / "bad.mp4").write_bytes(content)
    with pytest.raises(DataError, match=r"bad\.mp4"):
        list(Video(tmp_path / "bad.mp4").frames())
    assert capfd.readouterr().err == ""  # nor do the libraries tell of it in lines of their own


def test_what_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no such video"):
        Video(tmp_path / "none.mp4")
    os.mkfifo(tmp_path / "pipe.mp4")
    with pytest.raises(DataError, match="pipe"):
        Video(tmp_path / "pipe.mp4")


@pytest.mark.parametrize("name", ["concat:x.mp4", "clip%02d.mp4", "-i.mp4", "größe 鳥.mp4", "a|b.mp4", "x\ny.mp4"])
def test_names_are_no_protocols_and_no_patterns(
    clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    clip.rename(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    assert greys(Path(name)) == GREYS


def test_a_name_that_is_no_text_is_refused(clip: Path, tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode(b"clip\xff.mp4")
    clip.rename(path)
    with pytest.raises(DataError, match="rename it"):
        Video(path)


def test_a_camera_that_is_not_there(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(DataError, match="there is no camera 87"):
        Video(87)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(("size_px", "fps"), [((48, 64), 2.5), ((47, 63), None), ((1, 1), 2.5), ((2, 501), None)])
def test_what_is_written_is_read_back(tmp_path: Path, size_px: tuple[int, int], fps: float | None) -> None:
    file = VideoFile(tmp_path / "out.mp4", fps)
    for grey in GREYS:
        file.write(np.full((*size_px, 3), grey, np.uint8))
    file.close()
    video = Video(tmp_path / "out.mp4")
    assert video.fps == (fps or 25)
    frames = list(video.frames())
    even = tuple(side + side % 2 for side in size_px)  # one row or column more rather than one less
    assert {frame.image.shape[:2] for frame in frames} == {even}
    assert greys(tmp_path / "out.mp4") == GREYS


def test_frames_of_another_size_are_not_lost(tmp_path: Path) -> None:
    file = VideoFile(tmp_path / "out.mp4", 10)
    for side in (32, 64, 20):
        file.write(np.full((side, side, 3), 100, np.uint8))
    file.close()
    assert [frame.image.shape[:2] for frame in Video(tmp_path / "out.mp4").frames()] == [(32, 32)] * 3


def test_a_place_where_no_video_can_be_written(tmp_path: Path) -> None:
    file = VideoFile(tmp_path / "none" / "out.mp4", 5)
    with pytest.raises(DataError, match=r"out\.mp4: cannot write a video of 8 x 6 px"):
        file.write(np.zeros((6, 8, 3), np.uint8))
    file.close()
