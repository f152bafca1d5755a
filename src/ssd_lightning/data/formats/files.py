"""Roots, splits and text files of a data set."""

import codecs
import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path, PurePath
from typing import Any, TypeVar
from xml.etree.ElementTree import Element, ParseError, fromstring

from ssd_lightning.data.annotation_checks import ProblemKind
from ssd_lightning.data.special_files import GIT_LFS_POINTER, SPECIAL_FILE, is_git_lfs_pointer, is_special
from ssd_lightning.errors import DataError, listed

Item = TypeVar("Item")
Result = TypeVar("Result")

NUM_THREADS = 4
READ_AT_ONCE = 1024
"""Files that threads read before the results are used: bounds the memory."""
WIDER_ENCODINGS = {
    "gb2312": "gb18030",
    "gbk": "gb18030",
    "shift-jis": "cp932",
    "sjis": "cp932",
    "euc-kr": "cp949",
    "ks-c-5601-1987": "cp949",
}
"""Encodings that tools declare though they write characters of a wider one, which reads both."""
ARCHIVE_SUFFIXES = (".zip", ".tar", ".tgz", ".gz", ".bz2", ".xz", ".7z", ".rar")


class FileError(DataError):
    """A file of a data set is missing or cannot be used."""

    def __init__(self, file: str | PurePath, text: str, *, kind: ProblemKind = "annotation") -> None:
        super().__init__(f"{file}: {text}")
        self.file = str(file)
        self.text = text
        self.kind: ProblemKind = kind


class MissingSplitError(DataError):
    """The root exists, but not the split."""

    def __init__(self, path: Path, split: str, others: Iterable[str]) -> None:
        super().__init__(f"{path}: there is no split '{split}'; there is {listed(sorted(others)) or 'none at all'}")


class MissingLabelsError(DataError):
    """A split has images, but no file of labels."""


def check_root(root: Path) -> None:
    """Raise `DataError` if a root is not a folder, or has nothing but archives."""
    if not root.exists():
        raise DataError(f"{root}: there is no such folder; set data.root= to the folder of the data")
    visible = [path for path in root.iterdir() if not path.name.startswith(".")] if root.is_dir() else [root]
    if visible and all(path.suffix.lower() in ARCHIVE_SUFFIXES and os.path.isfile(path) for path in visible):
        text = "this is an archive; unpack it first, and set data.root= to the folder of its files"
        raise DataError(f"{visible[0]}: {text}")
    if not root.is_dir():
        raise DataError(f"{root}: this is a file, not a folder; set data.root= to the folder of the data")


def is_within(root: Path, path: Path) -> bool:
    """Tell whether a path is below a root, with links unresolved."""
    return Path(os.path.abspath(path)).is_relative_to(os.path.abspath(root))


def inside_first(paths: Iterable[Path], root: Path) -> list[Path]:
    """Sort the paths below a root before the others; both keep their order."""
    return sorted(paths, key=lambda path: not is_within(root, path))


def files_near(root: Path, suffixes: Iterable[str]) -> list[Path]:
    """List the files with some suffixes in a folder and its subfolders, sorted."""
    folders = (root, *(folder for folder in root.iterdir() if folder.is_dir()))
    return sorted(path for folder in folders for suffix in suffixes for path in folder.glob(f"*{suffix}"))


def list_files(folder: Path, suffixes: Sequence[str], *, skipped: Sequence[str]) -> Iterator[PurePath]:
    """List the files below a folder, relative to it, without hidden files and without those of some subfolders."""
    for path in visible_below(folder):
        inner = path.relative_to(folder)
        if inner.suffix.lower() in suffixes and inner.parts[0].lower() not in skipped:
            yield inner


def visible_below(folder: Path) -> list[Path]:
    """List all files and folders below a folder, sorted, without hidden ones.

    Links to folders are followed, but not into this folder or around it, and no folder is listed twice.
    """
    whole = Path(os.path.realpath(folder))
    known = {whole}
    found: list[str] = []
    for parent, folders, names in os.walk(folder, followlinks=True):
        inner = []
        for name in sorted(name for name in folders if not is_hidden(name)):
            path = os.path.join(parent, name)
            real = Path(os.path.realpath(path))
            leads_back = os.path.islink(path) and (real.is_relative_to(whole) or whole.is_relative_to(real))
            if not leads_back and real not in known:
                known.add(real)
                inner.append(name)
        folders[:] = inner
        found += (os.path.join(parent, name) for name in (*inner, *names) if not is_hidden(name))
    return sorted(map(Path, found))


def folders_in(folder: Path) -> list[Path]:
    """List a folder and all folders that `visible_below` finds in it; nothing if it is not a folder."""
    return [folder, *(path for path in visible_below(folder) if path.is_dir())] if folder.is_dir() else []


def is_hidden(name: str) -> bool:
    """Tell by its name whether a file or folder is hidden, or one that macOS adds to archives."""
    return name.startswith((".", "__MACOSX"))


def encoding_of(start: bytes) -> str:
    """Tell the encoding of a text by its first bytes: UTF-16 where a byte order mark says so, otherwise UTF-8."""
    return "utf-16" if start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "utf-8-sig"


def read_bytes(path: str | Path, what: str = "annotation") -> bytes:
    """Read a whole file. Raises `FileError`, which says `what` it is, if it cannot be read."""
    try:
        if is_special(path):
            raise FileError(path, SPECIAL_FILE)
        content = Path(path).read_bytes()
    except FileNotFoundError:
        raise FileError(path, f"the {what} is missing", kind="missing") from None
    except (OSError, ValueError) as error:  # ValueError: a name that no file can have
        raise FileError(path, f"cannot read the {what}: {error}") from error
    if is_git_lfs_pointer(content):
        raise FileError(path, GIT_LFS_POINTER)
    return content


def read_text(path: Path, what: str) -> str:
    """Read a text file as `read_bytes` does, with line feeds alone at the ends of lines."""
    content = read_bytes(path, what)
    try:
        return content.decode(encoding_of(content)).replace("\r\n", "\n").replace("\r", "\n")
    except UnicodeDecodeError as error:
        raise FileError(path, f"cannot read the {what}: {error}") from error


def read_lines(path: Path, what: str = "list") -> list[str]:
    """Read the lines of a text file as `read_bytes` does.

    Unlike with `str.splitlines`, only line feeds and carriage returns end a line: names may contain other separators.
    """
    return read_text(path, what).removesuffix("\n").split("\n")


def read_json(path: Path) -> Any:
    """Read a JSON file. Raises `FileError` if it cannot be read, or is not JSON."""
    content = read_bytes(path)
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as error:
        raise FileError(path, f"this is not readable JSON: {error}") from error


def read_xml(path: str | Path) -> Element:
    """Read an XML file, with all tags in lower case, since tools differ: <Difficult>, <xMin>.

    Entities are rejected, since they can expand without limit. The standard parser does not load external ones, and
    Expat limits what others expand to.

    Raises:
        FileError: the file cannot be read, is not XML, or has entities.
    """
    content = read_bytes(path)
    _refuse_entities(path, content.replace(b"\0", b""))  # without the zeros of UTF-16 and UTF-32
    is_utf_16 = encoding_of(content) == "utf-16"  # whatever the XML declares
    try:
        try:
            root = fromstring(content.decode("utf-16") if is_utf_16 else content)  # noqa: S314 - see above
        except ValueError:  # Expat does not know encodings of several bytes
            text = _decode_xml(content)
            _refuse_entities(path, text.encode())
            root = fromstring(text)  # noqa: S314 - see above
    except (ParseError, ValueError, LookupError) as error:  # ValueError, LookupError: wrong or unknown encodings
        raise FileError(path, f"this is not well-formed XML: {error}") from error
    for element in root.iter():
        element.tag = element.tag.lower()
    return root


def _refuse_entities(path: str | Path, content: bytes) -> None:
    if b"<!ENTITY" in content:
        raise FileError(path, "the XML declares entities, which is refused")


def _decode_xml(content: bytes) -> str:
    declared = re.match(rb"""\s*<\?xml[^>]*\bencoding\s*=\s*["']([\w.-]+)""", content)
    name = declared[1].decode("ascii", "replace").lower() if declared else "utf-8"
    return content.decode(WIDER_ENCODINGS.get(name.replace("_", "-"), name))


def attempt(read: Callable[[], Result]) -> Result | FileError:
    """Return what is read, or the `FileError` that is raised."""
    try:
        return read()
    except FileError as error:
        return error


def in_threads(read: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[tuple[Item, Result | FileError]]:
    """Read items in threads, since this mostly waits for the disk; yield each with its result or `FileError`."""
    waiting = iter(items)
    with ThreadPoolExecutor(NUM_THREADS) as pool:
        while chunk := list(islice(waiting, READ_AT_ONCE)):
            yield from pool.map(lambda item: (item, attempt(lambda: read(item))), chunk)
