"""Decoded pictures are kept once for all processes, and never when their file is another."""

import multiprocessing
import os
import pickle
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from hydra.utils import instantiate
from PIL import Image
from torch.utils.data import DataLoader

from ssd_lightning.configs import compose_config
from ssd_lightning.data import cache as cache_module
from ssd_lightning.data import dataset as dataset_module
from ssd_lightning.data.cache import PictureCache, PictureCaches
from ssd_lightning.data.dataset import DetectionDataset, Record, collate
from ssd_lightning.data.free_space import free_disk, free_memory
from ssd_lightning.data.images import read_image
from ssd_lightning.errors import ConfigurationError, DataError
from ssd_lightning.training import DetectionDataModule

SIZES = [(20, 30), (31, 17), (1, 1), (64, 48)]


@pytest.fixture
def pictures(tmp_path: Path) -> list[Path]:
    paths = []
    for number, (height, width) in enumerate(SIZES):
        pixels = np.random.default_rng(number).integers(0, 256, (height, width, 3), dtype=np.uint8)
        paths.append(tmp_path / f"{number}.png")
        Image.fromarray(pixels).save(paths[-1])
    return paths


def make_records(paths: list[Path]) -> list[Record]:
    boxes = np.array([[0, 0, 1, 1]], dtype=np.float32)
    return [
        Record(path.stem, path, size, boxes, np.array([1]), np.array([False]))
        for path, size in zip(paths, SIZES, strict=True)
    ]


@pytest.fixture(params=["ram", "disk"])
def cache(request, pictures, tmp_path: Path) -> PictureCache:
    opened = PictureCaches(kind=request.param, folder=tmp_path / "cache").open(pictures, SIZES)
    assert opened is not None
    return opened


def refuse() -> np.ndarray:
    raise AssertionError("the file was read again")


def test_a_picture_is_read_once(cache, pictures):
    for index in (2, 0, 3, 1):
        expected = read_image(pictures[index])
        np.testing.assert_array_equal(cache.get(index, lambda path=pictures[index]: read_image(path)), expected)
    for index in range(4):
        kept = cache.get(index, refuse)
        np.testing.assert_array_equal(kept, read_image(pictures[index]))
        assert not kept.flags.writeable


def test_a_changed_picture_is_read_again(cache, pictures):
    cache.get(0, lambda: read_image(pictures[0]))
    for change in range(2):
        before = pictures[0].stat()
        Image.new("RGB", (30, 20), (change, 2, 3)).save(pictures[0])
        os.utime(pictures[0], ns=(0, before.st_mtime_ns + 1))  # however coarse the clock is
        assert cache.get(0, lambda: read_image(pictures[0]))[0, 0].tolist() == [change, 2, 3]
        assert cache.get(0, refuse)[0, 0].tolist() == [change, 2, 3]


def test_what_cannot_be_read_or_has_another_size_is_not_kept(cache, pictures):
    pictures[1].write_bytes(b"")
    for _ in range(2):
        with pytest.raises(DataError, match="empty"):
            cache.get(1, lambda: read_image(pictures[1]))
    for _ in range(2):
        assert cache.get(3, lambda: np.zeros((5, 5, 3), np.uint8)).shape == (5, 5, 3)
    pictures[0].unlink()
    with pytest.raises(DataError, match="No such file"):
        cache.get(0, lambda: read_image(pictures[0]))


def fill_slot(cache: PictureCache, index: int, path: Path) -> None:
    cache.get(index, lambda: read_image(path))


def test_forked_processes_share_it(cache, pictures):
    process = multiprocessing.get_context("fork").Process(target=fill_slot, args=(cache, 3, pictures[3]))
    process.start()
    process.join()
    np.testing.assert_array_equal(cache.get(3, refuse), read_image(pictures[3]))
    assert np.array_equal(cache.get(0, lambda: np.zeros((20, 30, 3), np.uint8)), np.zeros((20, 30, 3)))


def test_a_process_that_dies_before_the_stamp_leaves_an_empty_slot(cache, pictures, monkeypatch):
    def die_between(offset: int, values: np.ndarray) -> None:
        write(offset, values)
        os.kill(os.getpid(), signal.SIGKILL)

    write = cache._storage.write
    monkeypatch.setattr(cache._storage, "write", die_between)
    process = multiprocessing.get_context("fork").Process(target=fill_slot, args=(cache, 0, pictures[0]))
    process.start()
    process.join()
    monkeypatch.undo()
    assert process.exitcode == -signal.SIGKILL
    with pytest.raises(AssertionError, match="read again"):
        cache.get(0, refuse)
    fill_slot(cache, 0, pictures[0])
    np.testing.assert_array_equal(cache.get(0, refuse), read_image(pictures[0]))


def test_the_next_run_and_another_process_find_the_file(pictures, tmp_path):
    folder = tmp_path / "cache"
    first = PictureCaches(kind="disk", folder=folder).open(pictures, SIZES)
    second = PictureCaches(kind="disk", folder=folder).open(pictures, SIZES)
    sent = pickle.loads(pickle.dumps(first))
    fill_slot(first, 0, pictures[0])
    fill_slot(second, 1, pictures[1])
    fill_slot(sent, 3, pictures[3])
    third = PictureCaches(kind="disk", folder=folder).open(pictures, SIZES)
    for each in (first, second, sent, third):
        for index in (0, 1, 3):
            np.testing.assert_array_equal(each.get(index, refuse), read_image(pictures[index]))
    assert len(list(folder.iterdir())) == 1
    other = PictureCaches(kind="disk", folder=folder).open(pictures[:3], SIZES[:3])
    with pytest.raises(AssertionError, match="read again"):
        other.get(0, refuse)
    assert len(list(folder.iterdir())) == 2


def test_in_memory_a_process_that_was_not_forked_reads_files(pictures, tmp_path, caplog):
    cache = PictureCaches(kind="ram", folder=tmp_path).open(pictures, SIZES)
    sent = pickle.loads(pickle.dumps(cache))
    assert "shared with forked processes only" in caplog.text
    for _ in range(2):
        np.testing.assert_array_equal(sent.get(0, lambda: read_image(pictures[0])), read_image(pictures[0]))
    with pytest.raises(AssertionError, match="read again"):
        cache.get(0, refuse)


def test_a_full_disk_ends_the_keeping_with_one_warning(pictures, tmp_path, monkeypatch, caplog):
    def no_room(*_: object) -> int:
        raise OSError(28, "No space left on device")

    cache = PictureCaches(kind="disk", folder=tmp_path / "cache").open(pictures, SIZES)
    fill_slot(cache, 3, pictures[3])
    monkeypatch.setattr(os, "pwrite", no_room)
    for _ in range(2):
        for index in range(3):
            np.testing.assert_array_equal(
                cache.get(index, lambda path=pictures[index]: read_image(path)), read_image(pictures[index])
            )
    assert caplog.text.count("No space left on device") == 1
    np.testing.assert_array_equal(cache.get(3, refuse), read_image(pictures[3]))


NEEDED = sum(height * width * 3 for height, width in SIZES) + 4 * 16


@pytest.mark.parametrize("kind", ["ram", "disk"])
@pytest.mark.parametrize(("share", "fits"), [(1.0, True), (0.99, False)])
def test_what_does_not_fit_is_said_once_and_not_kept(pictures, tmp_path, monkeypatch, caplog, kind, share, fits):
    free = int(NEEDED * share / cache_module.USABLE_SHARE) + 1
    for name in ("free_memory", "free_disk"):
        monkeypatch.setattr(cache_module, name, lambda *_: free)
    opened = PictureCaches(kind=kind, folder=tmp_path / "cache").open(pictures, SIZES)
    assert (opened is not None) == fits
    assert len(caplog.records) == (0 if fits else 1)
    assert fits or f"data.cache={kind}: 4 decoded pictures need 0.00 GiB" in caplog.text


def test_both_numbers_are_told(pictures, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(cache_module, "free_memory", lambda: 5 * 2**30)
    caches = PictureCaches(kind="ram", folder=tmp_path)
    sizes = [(16384, 16384)] * 4  # .75 GiB each
    assert caches.open(pictures, sizes, processes=2) is None
    assert "need 6.00 GiB in 2 processes, and 4.00 GiB of memory may be used" in caplog.text
    assert caches.open(pictures, sizes) is not None  # 3 GiB; taken when they are filled
    assert caches.open(pictures[:2], sizes[:2]) is None
    assert "need 1.50 GiB, and 1.00 GiB of memory" in caplog.text


def test_what_a_file_holds_already_needs_no_room(pictures, tmp_path, monkeypatch):
    folder = tmp_path / "cache"
    cache = PictureCaches(kind="disk", folder=folder).open(pictures, SIZES)
    for index, path in enumerate(pictures):
        fill_slot(cache, index, path)
    monkeypatch.setattr(cache_module, "free_disk", lambda _: 0)
    assert PictureCaches(kind="disk", folder=folder).open(pictures, SIZES) is not None
    assert PictureCaches(kind="disk", folder=folder).open(pictures[1:], SIZES[1:]) is None


def test_no_cache_and_no_pictures(pictures, tmp_path):
    assert PictureCaches(kind="none", folder=tmp_path).open(pictures, SIZES) is None
    assert PictureCaches(kind="ram", folder=tmp_path).open([], []) is None
    with pytest.raises(ConfigurationError, match=r"data\.cache is 'memory'; it is one of none, ram, disk"):
        PictureCaches(kind="memory", folder=tmp_path)  # type: ignore[arg-type]


def test_a_folder_that_cannot_be_made_is_named(pictures, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"file: data\.cache=disk cannot be made: "):
        PictureCaches(kind="disk", folder=tmp_path / "file").open(pictures, SIZES)


class FolderOfPictures(DetectionDataset):
    def __init__(self, *, paths: list[Path], **settings) -> None:
        super().__init__(records=make_records(paths), **{**settings, "class_names": ["x"]})


@pytest.fixture
def module(pictures, tmp_path):
    def make(**settings) -> DetectionDataModule:
        split = {"paths": pictures}
        defaults = {"image_size": (8, 9), "batch_size": 2, "num_workers": 0, "cache_folder": tmp_path / "cache"}
        return DetectionDataModule(
            dataset=FolderOfPictures, train=split, val=split, test=split, **{**defaults, **settings}
        )

    return make


def epoch_of(loader: DataLoader) -> dict[str, torch.Tensor]:
    return {
        target["image_id"]: image for images, targets in loader for image, target in zip(images, targets, strict=True)
    }


@pytest.mark.parametrize("kind", ["ram", "disk"])
@pytest.mark.parametrize("workers", [0, 2])
def test_batches_are_the_same_with_and_without_it(module, monkeypatch, kind, workers):
    plain = epoch_of(module().train_dataloader())
    reads = multiprocessing.get_context("fork").Value("i", 0)

    def counted(*args, **settings) -> np.ndarray:
        with reads.get_lock():
            reads.value += 1
        return read_image(*args, **settings)

    monkeypatch.setattr(dataset_module, "read_image", counted)
    loader = module(cache=kind, num_workers=workers).train_dataloader()
    for _ in range(3):
        epoch = epoch_of(loader)
        assert epoch.keys() == plain.keys()
        assert all(torch.equal(epoch[name], plain[name]) for name in plain)
    assert reads.value == len(SIZES)


def test_the_test_split_is_read_once_and_not_kept(module, caplog):
    data = module(cache="ram")
    for loader, kept in (
        (data.train_dataloader(), True),
        (data.val_dataloader(), True),
        (data.test_dataloader(), False),
    ):
        assert (loader.dataset.cache is not None) == kept
    first = data.train_dataloader().dataset.cache
    assert data.train_dataloader().dataset.cache is first
    assert not caplog.records
    assert module().train_dataloader().dataset.cache is None


def test_reduced_decoding_leaves_three_times_the_input_and_the_same_boxes(module, pictures):
    data = module(image_size=(5, 4), reduced_decoding=True, cache="ram")
    dataset = data.train_dataloader().dataset
    assert dataset.sizes_as_read_px == [(20, 30), (31, 17), (1, 1), (16, 12)]  # only 64 x 48 is 4 x 15 and 4 x 12
    whole = module(image_size=(5, 4)).train_dataloader().dataset
    for _ in range(2):
        for index in range(4):
            (image, target), (full, full_target) = dataset[index], whole[index]
            assert image.shape == full.shape
            assert target["size_px"] == full_target["size_px"]
            torch.testing.assert_close(target["boxes"], full_target["boxes"])
    assert dataset.cache.get(3, refuse).shape == (16, 12, 3)


def test_prefetching_is_the_loaders(module):
    assert module(num_workers=1, prefetch_factor=5).train_dataloader().prefetch_factor == 5
    assert module(num_workers=1).train_dataloader().prefetch_factor == 2  # torch's
    assert module(num_workers=0, prefetch_factor=5).train_dataloader().prefetch_factor is None
    with pytest.raises(ConfigurationError, match=r"data\.prefetch_factor is 0"):
        module(prefetch_factor=0)


def test_a_batch_of_kept_pictures_can_be_written_to(module):
    data = module(cache="ram", image_size=(20, 30), batch_size=1)
    dataset = data.train_dataloader().dataset
    for _ in range(2):
        images, _ = collate([dataset[0]])
        images.zero_()
        dataset[0][0].zero_()
    assert dataset[0][0].sum() > 0


def test_the_command_line_reaches_cache_and_further_transforms(tmp_path):
    config = compose_config(
        "train",
        [
            "data=voc_folder",
            "data.root=nowhere",
            "data.cache=disk",
            f"data.cache_folder={tmp_path}",
            "data.prefetch_factor=4",
            "data.num_workers=1",
            "data.reduced_decoding=true",
            "augmentation.further=[{_target_:albumentations.ToGray,p:1.0}]",
        ],
    )
    split = {"paths": []}
    arguments = {"dataset": FolderOfPictures, "train": split, "val": None, "test": None}
    data = instantiate(config.data.module, **arguments, _convert_="all")
    assert (data._caches.kind, data._caches.folder) == ("disk", tmp_path)
    assert (data._prefetch_factor, data._reduced_decoding) == (4, True)
    colours = np.full((40, 40, 3), (200, 100, 50), np.uint8)
    grey, *_ = data._augmentation(colours, np.zeros((0, 4), np.float32), 0)
    assert (grey == grey[..., :1]).all()


def test_free_space_is_plausible(tmp_path):
    assert 0 <= free_memory() < 2**50
    assert 0 <= free_disk(tmp_path) < 2**60
