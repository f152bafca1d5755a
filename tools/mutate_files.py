"""Damage annotations and images at random, read them, and count what becomes of them.

    python tools/mutate_files.py --count 500 --seed 0

Every file is one of a toy set in VOC layout, changed by one of: flipped bits, a cut, bytes put in, bytes taken out, a
block repeated elsewhere, digits and letters exchanged. Then its annotation and its image are read as training reads
them, in processes of their own, so that a crash or a hang of a decoder is seen. Each reading ends in one of:

- same: the damage has no effect, as in white space, comments or metadata: boxes, classes and pixels are as before;
- named: an error of one line that begins with a file's name;
- changed: it reads without an error to other boxes or pixels. No reader can see this: it is for the checksums to tell;
- crashed: another type of error, an error without the file's name, a dead process, or more than `--timeout` seconds.

A file that changed is told by the fingerprint that every run writes into `run.json` (boxes, sizes of image files)
or, where an image has kept its size, by the checksums of `data.checksum=true`; what neither tells changed silently.
Ends with code 1 if anything crashed or changed silently.
"""

import argparse
import os
import random
import string
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Literal

import numpy as np

from ssd_lightning.data.annotations import AnnotationTable, ImageAnnotation
from ssd_lightning.data.fingerprint import differences, fingerprint
from ssd_lightning.data.formats import VOC
from ssd_lightning.data.images import read_image
from ssd_lightning.data.reading import DatasetOpener
from ssd_lightning.data.toy import TOY_CLASSES, write_toy_dataset
from ssd_lightning.errors import DataError
from ssd_lightning.visualization.tables import TextTable, print_table

Kind = Literal["xml", "jpeg"]
Outcome = Literal["same", "named", "changed", "crashed"]
OUTCOMES: tuple[Outcome, ...] = ("same", "named", "changed", "crashed")
NUM_IMAGES = 20


@dataclass(frozen=True)
class Trial:
    """One damaged file and what became of it."""

    kind: Kind
    damage: str
    outcome: Outcome
    told_by_fingerprint: bool = False
    told_by_checksum: bool = False
    message: str = ""


def flip_bits(data: bytes, rng: random.Random) -> bytes:
    """Flip 1 to 8 bits."""
    damaged = bytearray(data)
    for _ in range(rng.randint(1, 8)):
        damaged[rng.randrange(len(damaged))] ^= 1 << rng.randrange(8)
    return bytes(damaged)


def cut(data: bytes, rng: random.Random) -> bytes:
    """Leave the end out."""
    return data[: rng.randrange(len(data))]


def insert(data: bytes, rng: random.Random) -> bytes:
    """Put 1 to 16 random bytes in."""
    place = rng.randrange(len(data) + 1)
    return data[:place] + rng.randbytes(rng.randint(1, 16)) + data[place:]


def delete(data: bytes, rng: random.Random) -> bytes:
    """Take 1 to 16 bytes out."""
    place = rng.randrange(len(data))
    return data[:place] + data[place + rng.randint(1, 16) :]


def repeat_block(data: bytes, rng: random.Random) -> bytes:
    """Write a block of 1 to 512 bytes over, or before, another place."""
    start, place, length = rng.randrange(len(data)), rng.randrange(len(data)), rng.randint(1, 512)
    block = data[start : start + length]
    return data[:place] + block + data[place + (len(block) if rng.random() < 0.5 else 0) :]


def change_letters(data: bytes, rng: random.Random) -> bytes:
    """Write 1 to 3 digits over other digits, letters over letters, any other bytes over their like."""
    damaged = bytearray(data)
    for _ in range(rng.randint(1, 3)):
        place = rng.randrange(len(damaged))
        alike = next((kind for kind in (b"0123456789", string.ascii_letters.encode()) if damaged[place] in kind), None)
        damaged[place] = rng.choice(alike) if alike else rng.randrange(256)
    return bytes(damaged)


DAMAGES: tuple[Callable[[bytes, random.Random], bytes], ...] = (
    flip_bits, cut, insert, delete, repeat_block, change_letters,
)  # fmt: skip


def read_record(root: Path) -> ImageAnnotation:
    """Read an annotation as training does; the first unsound object is an error."""
    opener = DatasetOpener(format=VOC())
    (annotation,) = opener(splits=[{"root": str(root), "split": "."}], class_names=TOY_CLASSES).annotations
    return annotation


def try_one(root: Path, kind: Kind, seed: int, number: int) -> Trial:
    """Damage one file of its own copy, read it, and put it back."""
    rng = random.Random(f"{seed} {kind} {number}")  # noqa: S311 - no secret
    names = sorted(path.stem for path in (root / "Annotations").iterdir())
    name = names[number % len(names)]
    damage = DAMAGES[number % len(DAMAGES)]
    trial = Trial(kind, damage.__name__, "crashed")
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder)
        files = {"xml": Path("Annotations") / f"{name}.xml", "jpeg": Path("JPEGImages") / f"{name}.jpg"}
        for file in files.values():
            (copy / file).parent.mkdir()
            (copy / file).write_bytes((root / file).read_bytes())
        before, pixels_before = _read(copy, name)
        prints = [
            fingerprint(AnnotationTable.of([before]), TOY_CLASSES, contents=contents) for contents in (False, True)
        ]
        target = copy / files[kind]
        damaged = damage(target.read_bytes(), rng)
        if damaged == target.read_bytes():
            return replace(trial, outcome="same")
        target.write_bytes(damaged)
        try:
            after, pixels = _read(copy, name)
        except DataError as error:
            is_named = str(error).startswith(f"{copy}/") and "\n" not in str(error)
            return replace(trial, outcome="named" if is_named else "crashed", message=str(error))
        except Exception as error:
            return replace(trial, message=f"{type(error).__name__}: {error}")
        by_fingerprint, by_checksum = (
            bool(differences(earlier, fingerprint(AnnotationTable.of([after]), TOY_CLASSES, contents=contents)))
            for earlier, contents in zip(prints, (False, True), strict=True)
        )
        is_same = np.array_equal(pixels, pixels_before) and _equal(before, after)
        return replace(
            trial,
            outcome="same" if is_same else "changed",
            told_by_fingerprint=by_fingerprint,
            told_by_checksum=by_checksum,
        )


def _equal(one: ImageAnnotation, two: ImageAnnotation) -> bool:
    return one.size_px == two.size_px and all(
        np.array_equal(getattr(one, name), getattr(two, name)) for name in ("boxes_xyxy_px", "labels", "difficult")
    )


def _read(root: Path, name: str) -> tuple[ImageAnnotation, np.ndarray]:
    record = read_record(root)
    return record, read_image(record.image_path, record.size_px)


def run_trials(
    count: int, seed: int, *, timeout_s: float = 30.0, kinds: Sequence[Kind] = ("xml", "jpeg")
) -> list[Trial]:
    """Damage `count` files of each kind.

    Args:
        count: of each kind.
        seed: of the damage.
        timeout_s: longest reading.
        kinds: of files.
    """
    trials: list[Trial] = []
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "toy"
        write_toy_dataset(root, num_train=NUM_IMAGES, num_val=1, num_test=1, image_size_px=(120, 160))
        for kind in kinds:
            trials += _in_processes(partial(try_one, root, kind, seed), range(count), kind, timeout_s)
    return trials


def _in_processes(task: Callable[[int], Trial], numbers: Sequence[int], kind: Kind, timeout_s: float) -> list[Trial]:
    trials: list[Trial] = []
    while len(trials) < len(numbers):  # a process that dies takes its pool with it
        pool = ProcessPoolExecutor(2, mp_context=get_context("fork"), initializer=_silence)
        futures = [pool.submit(task, number) for number in numbers[len(trials) :]]
        try:
            for future in futures:
                trials.append(future.result(timeout=timeout_s))
        except (BrokenProcessPool, TimeoutError) as error:
            damage = DAMAGES[numbers[len(trials)] % len(DAMAGES)].__name__
            trials.append(Trial(kind, damage, "crashed", message=f"process: {type(error).__name__}"))
            for process in list((pool._processes or {}).values()):
                process.kill()
        pool.shutdown(wait=True, cancel_futures=True)
    return trials


def _silence() -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # libjpeg grumbles, but does not tell its caller


def silent(trials: Sequence[Trial]) -> list[Trial]:
    """List what changed and is told neither by the fingerprint nor by the checksums."""
    return [
        trial
        for trial in trials
        if trial.outcome == "changed" and not trial.told_by_fingerprint and not trial.told_by_checksum
    ]


def as_table(trials: Sequence[Trial]) -> TextTable:
    """Count outcomes by kind and damage, and how many of the changed files the two tell."""
    rows = []
    for kind in dict.fromkeys(trial.kind for trial in trials):
        for damage in (*(damage.__name__ for damage in DAMAGES), "all"):
            chosen = [trial for trial in trials if trial.kind == kind and damage in (trial.damage, "all")]
            counts = Counter(trial.outcome for trial in chosen)
            changed = [trial for trial in chosen if trial.outcome == "changed"]
            numbers = [
                len(chosen),
                *(counts[outcome] for outcome in OUTCOMES),
                sum(trial.told_by_fingerprint for trial in changed),
                sum(trial.told_by_checksum for trial in changed),
            ]
            rows.append((f"{kind}: {damage.replace('_', ' ')}", *map(str, numbers)))
    return TextTable(("damage", "files", *OUTCOMES, "fingerprint", "checksums"), rows)


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=500, help="files of each kind")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--timeout", type=float, default=30.0, help="seconds of the longest reading")
    arguments = parser.parse_args()
    trials = run_trials(arguments.count, arguments.seed, timeout_s=arguments.timeout)
    print_table(as_table(trials), numbers=True)
    crashed, unseen = [trial for trial in trials if trial.outcome == "crashed"], silent(trials)
    print(f"\n{len(crashed)} crashes or errors without a named file, {len(unseen)} silent changes")
    for trial in [*crashed, *unseen][:20]:
        print(f"  {trial}")
    sys.exit(1 if crashed or unseen else 0)


if __name__ == "__main__":
    main()
