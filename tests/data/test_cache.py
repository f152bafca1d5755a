"""Decoded images are kept once for all processes, and never when their file is another."""

import multiprocessing
import os
import pickle
import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from helpers.datasets import FunctionOpener, annotation
from helpers.pixels import noise
from ssd_lightning.data import cache as cache_module
from ssd_lightning.data import dataset as dataset_module
from ssd_lightning.data import overlap
from ssd_lightning.data.cache import ImageCache, ImageCaches, free_memory
from ssd_lightning.data.dataset import DetectionDataset
from ssd_lightning.data.detection_data import DetectionData
from ssd_lightning.data.images import read_image
from ssd_lightning.errors import ConfigurationError, DataError

SIZES = [(20, 30), (31, 17), (1, 1), (64, 48)]


@pytest.fixture
def images(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / f"{number}.png" for number in range(4)]
    for number, path in enumerate(paths):
        Image.fromarray(noise(*SIZES[number], number)).save(path)
    return paths


def opened(kind: str, images: list[Path], count: int = 4) -> ImageCache:
    return ImageCaches(kind=kind, folder=images[0].with_name("cache")).open(images[:count], SIZES[:count])


@pytest.fixture(params=["ram", "disk"])
def cache(request, images) -> ImageCache:
    return opened(request.param, images)


def refuse() -> np.ndarray:
    raise AssertionError("the file was read again")


def fill(cache: ImageCache, images: list[Path], *indices: int) -> None:
    for index in indices:
        found = cache.get(index, partial(read_image, images[index]))
        np.testing.assert_array_equal(found, read_image(images[index]))


def assert_kept(cache: ImageCache, images: list[Path], *indices: int) -> None:
    for index in indices:
        np.testing.assert_array_equal(cache.get(index, refuse), read_image(images[index]))


def change(path: Path, level: int = 1) -> os.stat_result:
    """Replace an image by another, and return what the old file was."""
    before = path.stat()
    Image.new("RGB", (30, 20), (level, 2, 3)).save(path)
    os.utime(path, ns=(0, before.st_mtime_ns + 1))  # however coarse the clock is
    return before


def in_fork(function: Callable[..., None], *arguments: object) -> int | None:
    process = multiprocessing.get_context("fork").Process(target=function, args=arguments)
    process.start()
    process.join()
    return process.exitcode


def test_an_image_is_read_once(cache, images):
    fill(cache, images, 2, 0, 3, 1)
    cache.get(0, refuse)[:] = 7  # a copy: the slot stays as it is
    assert_kept(cache, images, 0, 1, 2, 3)


def test_a_changed_image_is_read_again(cache, images):
    fill(cache, images, 0)
    for level in range(2):
        change(images[0], level)
        fill(cache, images, 0)
        assert_kept(cache, images, 0)


def test_what_cannot_be_read_or_has_another_size_is_not_kept(cache, images):
    images[1].write_bytes(b"")
    for _ in range(2):
        with pytest.raises(DataError, match="empty"):
            fill(cache, images, 1)
        assert cache.get(3, lambda: np.zeros((5, 5, 3), np.uint8)).shape == (5, 5, 3)
    images[0].unlink()
    with pytest.raises(DataError, match="No such file"):
        fill(cache, images, 0)


@pytest.mark.parametrize(("kind", "writes"), [("ram", 1), ("disk", 2)])
def test_a_process_that_dies_while_it_replaces_an_image_leaves_an_empty_slot(images, monkeypatch, kind, writes):
    cache = opened(kind, images)
    fill(cache, images, 0)
    write, left = cache._write, writes

    def die_later(offset: int, values: np.ndarray) -> None:
        nonlocal left
        write(offset, values)
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    contents = images[0].read_bytes()
    before = change(images[0])
    with monkeypatch.context() as patch:
        patch.setattr(cache, "_write", die_later)
        assert in_fork(fill, cache, images, 0) == -signal.SIGKILL
    images[0].write_bytes(contents)  # the old file again, as from a backup: its stamp must not stand for the new pixels
    os.utime(images[0], ns=(0, before.st_mtime_ns))
    fill(cache, images, 0)
    assert_kept(cache, images, 0)


def test_a_slot_that_is_replaced_while_it_is_copied_is_not_given(cache, images):
    fill(cache, images, 0)
    values = cache._values

    class Replaced:
        """The bytes of the slots; as soon as they are read, another process begins to fill the first."""

        def __getitem__(self, part: slice) -> np.ndarray:
            cache._values = values
            cache._write(0, np.zeros(2, dtype=np.int64))
            cache._write(int(cache._offsets[0]), np.full(30, 9, np.uint8))
            return values[part]

    cache._values = Replaced()
    fill(cache, images, 0)


def test_the_next_run_and_another_process_find_the_file(images, tmp_path):
    first, second = opened("disk", images), opened("disk", images)
    sent = pickle.loads(pickle.dumps(first))
    for index, one in enumerate((first, second, sent)):
        fill(one, images, index)
    for each in (first, second, sent, opened("disk", images)):
        assert_kept(each, images, 0, 1, 2)
    with pytest.raises(AssertionError, match="read again"):  # the cache of another data set
        assert_kept(opened("disk", images, count=3), images, 0)
    assert len(list((tmp_path / "cache").iterdir())) == 2


def test_in_memory_a_process_that_was_not_forked_reads_files(images, tmp_path, caplog):
    caches = ImageCaches(kind="ram", folder=tmp_path)
    cache = caches.open(images, SIZES)
    sent_caches, sent = pickle.loads(pickle.dumps((caches, cache)))
    assert "shared with forked processes only" in caplog.text
    fill(sent, images, 0)
    assert sent_caches.open(images[:1], SIZES[:1]) is not None  # another one fits beside it
    with pytest.raises(AssertionError, match="read again"):
        assert_kept(cache, images, 0)


def refuse_with(*error: object) -> Callable[..., None]:
    def fail(*_: object, **__: object) -> None:
        raise OSError(*error)

    return fail


def test_a_full_disk_ends_the_keeping_with_one_warning(images, monkeypatch, caplog):
    cache = opened("disk", images)
    fill(cache, images, 3)
    monkeypatch.setattr(os, "pwrite", refuse_with(28, "No space left on device"))
    fill(cache, images, 0, 1, 2, 0)
    assert caplog.text.count("No space left on device") == 1
    assert_kept(cache, images, 3)


NEEDED = sum(height * width * 3 for height, width in SIZES) + 4 * 16


@pytest.fixture
def free(monkeypatch, tmp_path) -> list[int]:
    """Free bytes in memory and in the folder of the cache, a list of one."""
    values = [0]
    monkeypatch.setattr(cache_module, "free_memory", lambda: values[0])
    monkeypatch.setattr(
        "shutil.disk_usage", lambda folder: SimpleNamespace(free={tmp_path / "cache": values[0]}[folder])
    )
    return values


@pytest.mark.parametrize("kind", ["ram", "disk"])
def test_a_cache_is_opened_if_its_bytes_are_free_and_not_promised_to_another(images, tmp_path, free, caplog, kind):
    caches = ImageCaches(kind=kind, folder=tmp_path / "cache")
    free[0] = int(0.99 * NEEDED / cache_module.USABLE_SHARE)
    assert caches.open(images, SIZES) is None
    (line,) = caplog.messages
    assert f"data.cache={kind}: 4 decoded images need 0.00 GiB" in line
    free[0] = int(NEEDED / cache_module.USABLE_SHARE) + 1
    first = caches.open(images, SIZES)
    assert first.empty_bytes == NEEDED - 4 * 16
    others = images[::-1], SIZES[::-1]
    assert caches.open(*others) is None
    fill(first, images, *range(4))
    assert first.empty_bytes == 0
    assert caches.open(*others) is not None


def test_every_process_has_its_promise_and_both_numbers_are_reported(images, free, caplog):
    free[0] = 5 * 2**30
    caches = ImageCaches(kind="ram", folder=None)
    sizes = [(16384, 16384)] * 4  # .75 GiB each
    assert caches.open(images, sizes, processes=2) is None
    assert "need 6.00 GiB in 2 processes, and 4.00 GiB of memory may be used" in caplog.text
    assert caches.open(images[:2], sizes[:2], processes=2) is not None
    assert caches.open(images[:2], sizes[:2]) is None
    assert "need 1.50 GiB, and 1.00 GiB of memory" in caplog.text


def test_what_a_file_holds_already_needs_no_room(images, free):
    free[0] = 2**20
    fill(opened("disk", images), images, *range(4))
    free[0] = 0
    assert opened("disk", images) is not None
    assert opened("disk", images, count=3) is None


def test_no_cache_and_no_images(images):
    assert opened("none", images) is None
    assert opened("ram", images, count=0) is None
    assert ImageCaches(kind="ram", folder=None).open(images, SIZES) is not None


@pytest.mark.parametrize(
    ("kind", "folder", "said"),
    [
        ("memory", ".", r"data\.cache is 'memory'; it can be none, ram or disk"),
        ("disk", None, r"data\.cache_folder is None; data\.cache=disk needs the path"),
        ("ram", 5, r"data\.cache_folder is 5; data\.cache=disk needs the path"),
    ],
)
def test_a_bad_setting_is_named(kind, folder, said):
    with pytest.raises(ConfigurationError, match=said):
        ImageCaches(kind=kind, folder=folder)


def test_a_cache_that_cannot_be_made_says_what_can_be_done(images, monkeypatch):
    monkeypatch.setattr("mmap.mmap", refuse_with(12, "Cannot allocate memory"))
    with pytest.raises(DataError, match=r"^data\.cache=ram cannot be created: Cannot allocate memory$"):
        opened("ram", images)
    monkeypatch.setattr(os, "open", refuse_with(13, "Permission denied"))
    with pytest.raises(DataError, match=r"cache: data\.cache=disk .*: Permission denied; data\.cache_folder= names "):
        opened("disk", images)


def dataset_of(*, paths: list[Path], **settings) -> DetectionDataset:
    records = [annotation(path, size_px=size, boxes=[[0, 0, 1, 1]]) for path, size in zip(paths, SIZES, strict=True)]
    return DetectionDataset(annotations=records, **{**settings, "class_names": ["x"]})


@pytest.fixture
def module(images, tmp_path):
    def make(**settings) -> DetectionData:
        split = {"paths": images}
        defaults = {"image_size": (8, 9), "batch_size": 2, "num_workers": 0, "cache_folder": tmp_path / "cache"}
        opener = FunctionOpener(make=dataset_of)
        return DetectionData(dataset=opener, train=split, val=split, test=split, **{**defaults, **settings})

    return make


def epoch_of(loader: DataLoader) -> dict[str, bytes]:
    samples = (sample for batch in loader for sample in zip(*batch, strict=True))
    return {target["image_id"]: image.numpy().tobytes() for image, target in samples}


def test_batches_are_the_same_with_and_without_it(module, monkeypatch):
    plain = epoch_of(module().train_loader())
    reads = multiprocessing.get_context("fork").Value("i", 0)

    def counted(*args, **settings) -> np.ndarray:
        with reads.get_lock():
            reads.value += 1
        return read_image(*args, **settings)

    monkeypatch.setattr(dataset_module, "read_image", counted)
    loader = module(cache="ram", num_workers=2).train_loader()
    for _ in range(2):
        assert epoch_of(loader) == plain
    assert reads.value == len(SIZES)


def test_the_test_split_is_read_once_and_not_kept(module, caplog):
    data = module(cache="ram")
    loaders = data.train_loader(), data.evaluation_loader("val"), data.evaluation_loader("test")
    assert [loader.dataset.cache is not None for loader in loaders] == [True, True, False]
    assert data.train_loader().dataset.cache is loaders[0].dataset.cache
    assert {record.name for record in caplog.records} == {overlap.__name__}  # of the images that splits share
    assert module().train_loader().dataset.cache is None


def test_a_cache_that_does_not_fit_is_reported_once(module, free, caplog):
    data = module(cache="ram")
    for _ in range(2):
        assert data.train_loader().dataset.cache is None
    assert caplog.text.count("0.00 GiB of memory may be used") == 1


def test_reduced_decoding_leaves_five_times_the_input_and_the_same_boxes(module, images):
    data = module(image_size=(3, 2), reduced_decoding=True, cache="ram")
    dataset, whole = data.train_loader().dataset, module(image_size=(3, 2)).train_loader().dataset
    assert dataset.sizes_as_read_px == [(20, 30), (31, 17), (1, 1), (16, 12)]  # only 64 x 48 is 4 x 15 and 4 x 10
    for index in (0, 1, 2, 3, 3):
        (image, target), (full, full_target) = dataset[index], whole[index]
        assert (image.shape, target["size_px"]) == (full.shape, full_target["size_px"])
        torch.testing.assert_close(target["boxes"], full_target["boxes"])
    assert dataset.cache.get(3, refuse).shape == (16, 12, 3)


def test_prefetching_is_the_loaders(module):
    assert module(num_workers=1, prefetch_factor=5).train_loader().prefetch_factor == 5
    assert module(num_workers=1).train_loader().prefetch_factor == 2  # torch's
    assert module(num_workers=0, prefetch_factor=5).train_loader().prefetch_factor is None


MACHINE = 1000 * 1024


def group(path: str, most: object, used: int, read: int = 0) -> dict[str, str]:
    """Files of a control group of version 2 with a limit, its usage, and the part of it that is the files' cache."""
    stat = f"anon 5\ninactive_file {read}\nactive_file 7\n"
    values = {"memory.max": f"{most}\n", "memory.current": f"{used}\n", "memory.stat": stat}
    return {f"{path}{name}": text for name, text in values.items()}


OF_VERSION_1 = {
    "memory/job/memory.limit_in_bytes": "900",
    "memory/job/memory.usage_in_bytes": "600",
    "memory/job/memory.stat": "inactive_file 1\ntotal_inactive_file 50\n",
    "memory/memory.limit_in_bytes": "9223372036854771712",
    "memory/memory.usage_in_bytes": "600",
    **group("cpu/job/", 1, 0),
}


@pytest.mark.parametrize(
    ("membership", "files", "expected"),
    [
        ("0::/not/there\n", {}, MACHINE),
        ("0::/\n", group("", 2**40, 500_000), MACHINE),
        ("0::/a/b\n", {**group("a/b/", 900, 100), **group("", 300, 100), **group("a/c/", 120, 100)}, 200),
        ("0::/a/b\n", {**group("a/b/", "max", 100), **group("a/", 700, 200)}, 500),
        ("0::/a/b/not_mounted\n", group("a/", 700, 200), 500),
        ("0::/a\n", group("a/", 700, 650, read=400), 450),
        ("0::/a\n", group("a/", 700, 900), 0),
        ("0::/a\n", {name: text for name, text in group("a/", 700, 650).items() if "stat" not in name}, 50),
        ("5:cpu,cpuacct:/job\n4:hugetlb,memory:/job/step\n0::/\n", OF_VERSION_1, 350),
    ],
)
def test_free_memory_is_the_least_of_the_machine_and_all_control_groups(tmp_path, membership, files, expected):
    (tmp_path / "machine").write_text("MemTotal:  4000 kB\nMemFree:  10 kB\nMemAvailable:  1000 kB\n")
    (tmp_path / "membership").write_text(membership)
    for name, text in files.items():
        path = tmp_path / "groups" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    places = {name: tmp_path / name for name in ("machine", "membership", "groups")}
    assert free_memory(**places) == expected
    assert free_memory(**places | {"membership": tmp_path}) == MACHINE  # it cannot be read
