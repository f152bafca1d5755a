"""Decoded images are kept once for all processes, and never when their file is another."""

import inspect
import multiprocessing
import os
import pickle
import signal
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hydra.utils import instantiate
from PIL import Image
from torch.utils.data import DataLoader

from helpers.datasets import FunctionOpener
from ssd_lightning.config import compose_config
from ssd_lightning.data import cache as cache_module
from ssd_lightning.data import dataset as dataset_module
from ssd_lightning.data import overlap
from ssd_lightning.data.annotations import ImageAnnotation
from ssd_lightning.data.augmentation import SSDAugmentation
from ssd_lightning.data.cache import ImageCache, ImageCaches
from ssd_lightning.data.dataset import DetectionDataset
from ssd_lightning.data.detection_data import REDUCED_TO
from ssd_lightning.data.free_memory import free_memory
from ssd_lightning.data.images import read_image
from ssd_lightning.errors import ConfigurationError, DataError
from ssd_lightning.training import DetectionDataModule

SIZES = [(20, 30), (31, 17), (1, 1), (64, 48)]


@pytest.fixture
def images(tmp_path: Path) -> list[Path]:
    paths = []
    for number, (height, width) in enumerate(SIZES):
        pixels = np.random.default_rng(number).integers(0, 256, (height, width, 3), dtype=np.uint8)
        paths.append(tmp_path / f"{number}.png")
        Image.fromarray(pixels).save(paths[-1])
    return paths


def make_records(paths: list[Path]) -> list[ImageAnnotation]:
    boxes = np.array([[0, 0, 1, 1]], dtype=np.float32)
    return [
        ImageAnnotation(path.stem, path, size, boxes, np.array([1]), np.array([False]))
        for path, size in zip(paths, SIZES, strict=True)
    ]


@pytest.fixture(params=["ram", "disk"])
def cache(request, images, tmp_path: Path) -> ImageCache:
    opened = ImageCaches(kind=request.param, folder=tmp_path / "cache").open(images, SIZES)
    assert opened is not None
    return opened


def refuse() -> np.ndarray:
    raise AssertionError("the file was read again")


def test_an_image_is_read_once(cache, images):
    for index in (2, 0, 3, 1):
        expected = read_image(images[index])
        np.testing.assert_array_equal(cache.get(index, lambda path=images[index]: read_image(path)), expected)
    for index in range(4):
        for _ in range(2):
            kept = cache.get(index, refuse)
            np.testing.assert_array_equal(kept, read_image(images[index]))
            kept[:] = 7  # a copy: the slot stays as it is


def test_a_changed_image_is_read_again(cache, images):
    cache.get(0, lambda: read_image(images[0]))
    for change in range(2):
        before = images[0].stat()
        Image.new("RGB", (30, 20), (change, 2, 3)).save(images[0])
        os.utime(images[0], ns=(0, before.st_mtime_ns + 1))  # however coarse the clock is
        assert cache.get(0, lambda: read_image(images[0]))[0, 0].tolist() == [change, 2, 3]
        assert cache.get(0, refuse)[0, 0].tolist() == [change, 2, 3]


def test_what_cannot_be_read_or_has_another_size_is_not_kept(cache, images):
    images[1].write_bytes(b"")
    for _ in range(2):
        with pytest.raises(DataError, match="empty"):
            cache.get(1, lambda: read_image(images[1]))
    for _ in range(2):
        assert cache.get(3, lambda: np.zeros((5, 5, 3), np.uint8)).shape == (5, 5, 3)
    images[0].unlink()
    with pytest.raises(DataError, match="No such file"):
        cache.get(0, lambda: read_image(images[0]))


def fill_slot(cache: ImageCache, index: int, path: Path) -> None:
    cache.get(index, lambda: read_image(path))


def test_forked_processes_share_it(cache, images):
    process = multiprocessing.get_context("fork").Process(target=fill_slot, args=(cache, 3, images[3]))
    process.start()
    process.join()
    np.testing.assert_array_equal(cache.get(3, refuse), read_image(images[3]))
    assert np.array_equal(cache.get(0, lambda: np.zeros((20, 30, 3), np.uint8)), np.zeros((20, 30, 3)))


@pytest.mark.parametrize(("kind", "writes"), [("ram", 1), ("disk", 2)])
def test_a_process_that_dies_while_it_replaces_an_image_leaves_an_empty_slot(
    images, tmp_path, monkeypatch, kind, writes
):
    cache = ImageCaches(kind=kind, folder=tmp_path / "cache").open(images, SIZES)
    fill_slot(cache, 0, images[0])
    before, contents = images[0].stat(), images[0].read_bytes()
    write, left = cache._storage.write, writes

    def die_later(offset: int, values: np.ndarray) -> None:
        nonlocal left
        write(offset, values)
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    Image.new("RGB", (30, 20), (1, 2, 3)).save(images[0])
    os.utime(images[0], ns=(0, before.st_mtime_ns + 1))
    monkeypatch.setattr(cache._storage, "write", die_later)
    process = multiprocessing.get_context("fork").Process(target=fill_slot, args=(cache, 0, images[0]))
    process.start()
    process.join()
    monkeypatch.undo()
    assert process.exitcode == -signal.SIGKILL
    images[0].write_bytes(contents)  # the old file again, as from a backup: its stamp must not stand for the new pixels
    os.utime(images[0], ns=(0, before.st_mtime_ns))
    np.testing.assert_array_equal(cache.get(0, lambda: read_image(images[0])), read_image(images[0]))
    np.testing.assert_array_equal(cache.get(0, refuse), read_image(images[0]))


def test_a_slot_that_is_replaced_while_it_is_copied_is_not_given(cache, images):
    fill_slot(cache, 0, images[0])
    slots = cache._storage

    class Replaced:
        """The bytes of the slots; as soon as they are asked for, another process begins to fill the first."""

        @property
        def values(self) -> np.ndarray:
            slots.write(0, np.zeros(2, dtype=np.int64))
            slots.write(int(cache._offsets[0]), np.full(30, 9, np.uint8))
            return slots.values

        write = slots.write

    cache._storage = Replaced()
    np.testing.assert_array_equal(cache.get(0, lambda: read_image(images[0])), read_image(images[0]))


def test_the_next_run_and_another_process_find_the_file(images, tmp_path):
    def opened(count: int = 4) -> ImageCache:
        return ImageCaches(kind="disk", folder=tmp_path / "cache").open(images[:count], SIZES[:count])

    first, second = opened(), opened()
    sent = pickle.loads(pickle.dumps(first))
    for index, one in enumerate((first, second, sent)):
        fill_slot(one, index, images[index])
    for each in (first, second, sent, opened()):
        for index in range(3):
            np.testing.assert_array_equal(each.get(index, refuse), read_image(images[index]))
    with pytest.raises(AssertionError, match="read again"):
        opened(3).get(0, refuse)
    assert len(list((tmp_path / "cache").iterdir())) == 2


def test_in_memory_a_process_that_was_not_forked_reads_files(images, tmp_path, caplog):
    caches = ImageCaches(kind="ram", folder=tmp_path)
    cache = caches.open(images, SIZES)
    sent_caches, sent = pickle.loads(pickle.dumps((caches, cache)))
    assert "shared with forked processes only" in caplog.text
    np.testing.assert_array_equal(sent.get(0, lambda: read_image(images[0])), read_image(images[0]))
    assert sent_caches.open(images[:1], SIZES[:1]) is not None  # another one fits beside it
    with pytest.raises(AssertionError, match="read again"):
        cache.get(0, refuse)


def test_a_full_disk_ends_the_keeping_with_one_warning(images, tmp_path, monkeypatch, caplog):
    def no_room(*_: object) -> int:
        raise OSError(28, "No space left on device")

    cache = ImageCaches(kind="disk", folder=tmp_path / "cache").open(images, SIZES)
    fill_slot(cache, 3, images[3])
    monkeypatch.setattr(os, "pwrite", no_room)
    for index in (0, 1, 2, 0):
        kept = cache.get(index, lambda path=images[index]: read_image(path))
        np.testing.assert_array_equal(kept, read_image(images[index]))
    assert caplog.text.count("No space left on device") == 1
    np.testing.assert_array_equal(cache.get(3, refuse), read_image(images[3]))


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
    for index, path in enumerate(images):
        fill_slot(first, index, path)
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


def test_what_a_file_holds_already_needs_no_room(images, tmp_path, free):
    free[0] = 2**20
    cache = ImageCaches(kind="disk", folder=tmp_path / "cache").open(images, SIZES)
    for index, path in enumerate(images):
        fill_slot(cache, index, path)
    free[0] = 0
    assert ImageCaches(kind="disk", folder=tmp_path / "cache").open(images, SIZES) is not None
    assert ImageCaches(kind="disk", folder=tmp_path / "cache").open(images[1:], SIZES[1:]) is None


def test_no_cache_and_no_images(images, tmp_path):
    assert ImageCaches(kind="none", folder=tmp_path).open(images, SIZES) is None
    assert ImageCaches(kind="ram", folder=tmp_path).open([], []) is None
    with pytest.raises(ConfigurationError, match=r"data\.cache is 'memory'; it can be none, ram or disk"):
        ImageCaches(kind="memory", folder=tmp_path)  # type: ignore[arg-type]


def test_a_cache_that_cannot_be_made_says_what_can_be_done(images, tmp_path, monkeypatch):
    def refuse_with(*error: object):
        def fail(*_: object, **__: object) -> None:
            raise OSError(*error)

        return fail

    monkeypatch.setattr("mmap.mmap", refuse_with(12, "Cannot allocate memory"))
    with pytest.raises(DataError, match=r"^data\.cache=ram cannot be created: Cannot allocate memory$"):
        ImageCaches(kind="ram", folder=tmp_path).open(images, SIZES)
    monkeypatch.setattr(os, "open", refuse_with(13, "Permission denied"))
    with pytest.raises(DataError, match=r"shelf: data\.cache=disk .*: Permission denied; data\.cache_folder= names "):
        ImageCaches(kind="disk", folder=tmp_path / "shelf").open(images, SIZES)


@pytest.mark.parametrize(("kind", "folder"), [("disk", None), ("ram", 5)])
def test_a_folder_is_a_path(module, kind, folder):
    with pytest.raises(ConfigurationError, match=rf"data\.cache_folder is {folder}; data\.cache=disk needs the path"):
        module(cache=kind, cache_folder=folder)
    assert module(cache="ram", cache_folder=None).train_dataloader().dataset.cache is not None


def dataset_of(*, paths: list[Path], **settings) -> DetectionDataset:
    return DetectionDataset(annotations=make_records(paths), **{**settings, "class_names": ["x"]})


@pytest.fixture
def module(images, tmp_path):
    def make(**settings) -> DetectionDataModule:
        split = {"paths": images}
        defaults = {"image_size": (8, 9), "batch_size": 2, "num_workers": 0, "cache_folder": tmp_path / "cache"}
        opener = FunctionOpener(make=dataset_of)
        return DetectionDataModule(dataset=opener, train=split, val=split, test=split, **{**defaults, **settings})

    return make


def epoch_of(loader: DataLoader) -> dict[str, torch.Tensor]:
    return {
        target["image_id"]: image for images, targets in loader for image, target in zip(images, targets, strict=True)
    }


def test_batches_are_the_same_with_and_without_it(module, monkeypatch):
    plain = epoch_of(module().train_dataloader())
    reads = multiprocessing.get_context("fork").Value("i", 0)

    def counted(*args, **settings) -> np.ndarray:
        with reads.get_lock():
            reads.value += 1
        return read_image(*args, **settings)

    monkeypatch.setattr(dataset_module, "read_image", counted)
    loader = module(cache="ram", num_workers=2).train_dataloader()
    for _ in range(2):
        epoch = epoch_of(loader)
        assert epoch.keys() == plain.keys()
        assert all(torch.equal(epoch[name], plain[name]) for name in plain)
    assert reads.value == len(SIZES)


def test_the_test_split_is_read_once_and_not_kept(module, caplog):
    data = module(cache="ram")
    loaders = data.train_dataloader(), data.val_dataloader(), data.test_dataloader()
    assert [loader.dataset.cache is not None for loader in loaders] == [True, True, False]
    assert data.train_dataloader().dataset.cache is loaders[0].dataset.cache
    assert {record.name for record in caplog.records} == {overlap.__name__}  # of the images that splits share
    assert module().train_dataloader().dataset.cache is None


def test_the_smallest_crop_of_a_reduced_image_has_the_inputs_pixels():
    settings = inspect.signature(SSDAugmentation).parameters
    scale, aspect_ratio = (settings[name].default for name in ("min_crop_scale", "max_crop_aspect_ratio"))
    assert REDUCED_TO * scale / aspect_ratio**0.5 >= 1


def test_reduced_decoding_leaves_five_times_the_input_and_the_same_boxes(module, images):
    data = module(image_size=(3, 2), reduced_decoding=True, cache="ram")
    dataset, whole = data.train_dataloader().dataset, module(image_size=(3, 2)).train_dataloader().dataset
    assert dataset.sizes_as_read_px == [(20, 30), (31, 17), (1, 1), (16, 12)]  # only 64 x 48 is 4 x 15 and 4 x 10
    for index in (0, 1, 2, 3, 3):
        (image, target), (full, full_target) = dataset[index], whole[index]
        assert (image.shape, target["size_px"]) == (full.shape, full_target["size_px"])
        torch.testing.assert_close(target["boxes"], full_target["boxes"])
    assert dataset.cache.get(3, refuse).shape == (16, 12, 3)


def test_prefetching_is_the_loaders(module):
    assert module(num_workers=1, prefetch_factor=5).train_dataloader().prefetch_factor == 5
    assert module(num_workers=1).train_dataloader().prefetch_factor == 2  # torch's
    assert module(num_workers=0, prefetch_factor=5).train_dataloader().prefetch_factor is None
    with pytest.raises(ConfigurationError, match=r"data\.prefetch_factor is 0"):
        module(prefetch_factor=0)


def test_the_command_line_reaches_cache_and_further_transforms(tmp_path):
    words = "data=voc_folder data.root=nowhere data.cache=disk data.prefetch_factor=4 data.num_workers=1"
    grey = "augmentation.extra_transforms=[{_target_:albumentations.ToGray,p:1.0}]"
    more = [f"data.cache_folder={tmp_path}", "data.reduced_decoding=true", grey]
    config = compose_config("train", [*words.split(), *more])
    data = instantiate(config.data.module, _convert_="all")
    assert (data._caches.kind, data._caches.folder) == ("disk", tmp_path)
    assert (data._loading.prefetch_factor, data._reduced_decoding) == (4, True)
    colours = np.full((40, 40, 3), (200, 100, 50), np.uint8)
    grey, *_ = data._augmentation(colours, np.zeros((0, 4), np.float32), 0)
    assert (grey == grey[..., :1]).all()


MACHINE = 1000 * 1024


def group(path: str, most: object, used: int, read: int = 0) -> dict[str, str]:
    """Files of a control group of version 2 with a limit, its usage, and the part of it that is the files' cache."""
    stat = f"anon 5\ninactive_file {read}\nactive_file 7\n"
    values = {"memory.max": f"{most}\n", "memory.current": f"{used}\n", "memory.stat": stat}
    return {f"{path}{name}": text for name, text in values.items()}


def three_groups(own: int, middle: int, root: int) -> dict[str, str]:
    return {**group("a/b/", own, 100), **group("a/", middle, 100), **group("", root, 100), **group("a/c/", 120, 100)}


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
        ("", {}, MACHINE),
        ("0::/not/there\n", {}, MACHINE),
        ("0::/\n", group("", "max", 500_000), MACHINE),
        ("0::/\n", group("", 2**40, 500_000), MACHINE),
        ("0::/a/b\n", three_groups(300, 900, 800), 200),
        ("0::/a/b\n", three_groups(900, 300, 800), 200),
        ("0::/a/b\n", three_groups(900, 800, 300), 200),
        ("0::/a/b\n", {**group("a/b/", "max", 100), **group("a/", 700, 200)}, 500),
        ("0::/a/b/not_mounted\n", group("a/", 700, 200), 500),
        ("0::/a\n", group("a/", 700, 650, read=400), 450),
        ("0::/a\n", group("a/", 700, 900), 0),
        ("0::/a\n", {name: text for name, text in group("a/", 700, 650).items() if "stat" not in name}, 50),
        ("5:cpu,cpuacct:/job\n4:hugetlb,memory:/job/step\n0::/\n", OF_VERSION_1, 350),
    ],
)
def test_free_memory_is_the_least_of_the_machine_and_all_control_groups(tmp_path, membership, files, expected):
    (tmp_path / "meminfo").write_text("MemTotal:  4000 kB\nMemFree:  10 kB\nMemAvailable:  1000 kB\n")
    (tmp_path / "membership").write_text(membership)
    for name, text in files.items():
        path = tmp_path / "groups" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    places = {"machine": "meminfo", "membership": "membership", "groups": "groups"}
    assert free_memory(**{name: tmp_path / place for name, place in places.items()}) == expected
