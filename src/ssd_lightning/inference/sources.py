"""Parses `source=`: images, folders, patterns, web addresses, videos, cameras, and lists of these."""

import glob
import logging
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal
from urllib.parse import unquote, urlsplit

from ssd_lightning.data.image_suffixes import IMAGE_SUFFIXES, describe_unreadable, is_image_name
from ssd_lightning.errors import DataError

log = logging.getLogger(__name__)

VIDEO_SUFFIXES = {".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".wmv", ".flv", ".ts", ".3gp"}

Kind = Literal["image", "video", "camera", "url"]


@dataclass(frozen=True)
class Source:
    """An image, video, camera or web address."""

    kind: Kind
    address: str
    """Path, web address or number of the camera."""

    def __str__(self) -> str:
        return f"camera {self.address}" if self.kind == "camera" else self.address

    @property
    def stem(self) -> str:
        """Base name of its outputs, not yet unique or safe."""
        if self.kind == "camera":
            return f"camera_{self.address}"
        if self.kind == "url":
            return PurePosixPath(unquote(urlsplit(self.address).path)).stem or urlsplit(self.address).netloc
        return Path(self.address).stem


def find_sources(given: object, *, recursive: bool = False) -> list[Source]:
    """List the sources of a setting `source`, without duplicates, in the given order.

    Args:
        given: a path, pattern, web address or camera number, or a sequence of these.
        recursive: also use the subfolders of folders.

    Raises:
        DataError: an entry matches nothing, or the list is empty.
    """
    items = list(given) if isinstance(given, Sequence) and not isinstance(given, str) else [given]
    found = [source for item in items for source in _sources_of(str(item), recursive)]
    if not found:
        raise DataError(f"source={given}: the list is empty")
    return list(dict.fromkeys(found))


def _sources_of(text: str, recursive: bool) -> Iterator[Source]:
    scheme, separator, _ = text.partition("://")
    if separator and scheme.isalnum():
        if scheme.lower() not in ("http", "https"):
            raise DataError(f"source={text}: web addresses must start with http:// or https://")
        yield Source("url", text)
    elif text.isascii() and text.isdigit() and not os.path.exists(text):
        yield Source("camera", str(int(text)))
    else:
        for path in find_images(text, recursive=recursive):
            yield Source("video" if path.suffix.lower() in VIDEO_SUFFIXES else "image", str(path))


def find_images(source: str, *, recursive: bool = False) -> list[Path]:
    """List the images of a file, folder or pattern, sorted. Files and patterns may also name videos.

    With `recursive` also those of subfolders. Links to folders are not followed, because they may form a cycle.

    Raises:
        DataError: there are no images.
    """
    path = Path(os.path.expanduser(source))
    try:
        if path.is_dir():
            return sorted(_of_folder(path, recursive))
        if path.is_file():
            return [path]
        if found := sorted(name for name in _matches(path) if name.is_file()):
            return found
        raise ValueError("neither a file nor a folder, and nothing matches the pattern")
    except (OSError, ValueError) as error:  # also no permission, or an invalid file name
        raise DataError(f"source={source}: {error}") from error


def _of_folder(folder: Path, recursive: bool) -> list[Path]:
    """List the images of a folder and log what is skipped. A ValueError with hints if there are none."""
    entries = list(folder.iterdir())
    files = [entry for entry in entries if not entry.is_dir()]
    if recursive:
        files = []
        for below, folders, names in os.walk(folder):
            folders[:] = [name for name in folders if not name.startswith(".")]
            files += [Path(below, name) for name in names]
    images = [file for file in files if is_image_name(file)]
    unreadable = describe_unreadable(files)
    videos = sum(file.suffix.lower() in VIDEO_SUFFIXES for file in files)
    of_videos = f"; use a pattern for its videos, such as source='{folder}/*.mp4'"
    if not images:
        raise ValueError(
            f"no image ({', '.join(IMAGE_SUFFIXES)}) in the folder"
            + (f"; there are {unreadable}" if unreadable else "")
            + (of_videos if videos else "")
            + ("" if recursive or len(files) == len(entries) else "; recursive=true uses its subfolders")
        )
    if unreadable:
        log.warning("%s: skipped %s; convert them to .jpg or .png", folder, unreadable)
    if videos:
        log.warning("only the images of a folder are used: %d videos in %s are skipped%s", videos, folder, of_videos)
    return images


def _matches(pattern: Path) -> list[Path]:
    """List the matches of a pattern. `**` does not follow links to folders: they may form a cycle."""
    if "**" not in pattern.parts:
        return [Path(name) for name in glob.glob(str(pattern))]
    place = pattern.parts.index("**")
    rest = pattern.parts[place + 1 :] or ("*",)
    folders = glob.glob(str(Path(*pattern.parts[:place]))) if place else ["."]
    found = [path for folder in folders for path in Path(folder).glob(str(Path("**", *rest)))]
    return [path for path in found if not any(part[0] == "." and part != ".." for part in path.parts[place:])]
