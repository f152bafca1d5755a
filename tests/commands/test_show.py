"""Priors, augmentation and matches as images, from the configuration to the PNG."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hydra.utils import instantiate
from omegaconf import DictConfig
from PIL import Image

from helpers import planted
from helpers.commands import output_of, refused
from helpers.exported_networks import tiny_detector
from ssd_lightning.assembly import make_data, make_net
from ssd_lightning.commands import show
from ssd_lightning.config import compose_config
from ssd_lightning.data.sampler import SampleKey
from ssd_lightning.errors import DataError, UserError
from ssd_lightning.inference.detector import Detector
from ssd_lightning.ops.priors import make_priors

SETTINGS = [
    "experiment=toy_tiny", "image_size=[128,128]", "data=voc_folder", "data.train_split=train", "data.test_split=test",
    "data.val_fraction=0.4", "data.batch_size=4", "trainer.accelerator=cpu",
]  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    planted.write("voc", tmp_path / "set", planted.CLEAN)
    return tmp_path


def compose(folder: Path, what: str, *more: str) -> DictConfig:
    places = [f"data.root={folder / 'set'}", f"output={folder / 'out'}"]
    return compose_config("show", [*SETTINGS, *places, f"what={what}", *more])


@pytest.mark.parametrize("what", ["priors", "batch", "matches"])
def test_each_image_is_written_and_the_same_every_time(
    folder: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture, what: str
) -> None:
    caplog.set_level("INFO")
    settings = ["num=2", "augmentation=paper", "auto_augmentation=true"]
    paths = show.show(compose(folder, what, *settings))

    # The bounds of the augmentation are those of the training.
    bounds = [line for line in caplog.messages if line.startswith("auto_augmentation: the median training box has")]
    assert len(bounds) == (what != "priors")
    assert [path.name for path in paths] == [f"{what}.png", "priors_overview.png"][: 2 if what == "priors" else 1]
    first = [path.read_bytes() for path in paths]
    out = capsys.readouterr().out
    for path, data in zip(paths, first, strict=True):
        image = np.asarray(Image.open(path))
        assert image.std() > 5
        assert f"{path}: {image.shape[1]} x {image.shape[0]} pixels" in out
        assert len(data) < 1_500_000
    paths[0].write_bytes(b"older")
    for seed in (1,) if what == "priors" else (0, 1):
        is_same = seed == 0 or what == "priors"  # which have no randomness
        drawn = show.show(compose(folder, what, *settings, f"seed={seed}"))
        assert ([path.read_bytes() for path in drawn] == first) == is_same
    assert set((folder / "out").iterdir()) == set(paths)


def test_the_columns_of_a_batch_are_what_the_first_epochs_train_on(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = {}
    monkeypatch.setattr(show, "draw_augmentation", lambda rows, names, **more: drawn.update(rows=rows))
    config = compose(folder, "batch", "augmentation=paper", "num=3", "draws=2", "data.mosaic_probability=0.5")
    show.show_batch(config)

    data = make_data(config)
    data.trainer = None
    keys = list(data.train_dataloader().sampler)[:3]
    assert [len(row) for row in drawn["rows"]] == [3, 3, 3]
    for row, (_, index, _, _) in zip(drawn["rows"], keys, strict=True):
        record = data.dataset("train").annotations[index]
        assert row[0].image.shape[:2] == record.size_px
        np.testing.assert_allclose(row[0].boxes_xyxy[:, 2] * record.size_px[1], record.boxes_xyxy_px[:, 2], rtol=1e-5)
        for epoch in range(2):
            image, target = data.dataset("train")[SampleKey(epoch, index)]
            assert (row[1 + epoch].image == image.permute(1, 2, 0).numpy()).all()
            assert (row[1 + epoch].boxes_xyxy == target["boxes"].numpy()).all()


@pytest.mark.parametrize("overrides", [["loss/matcher=argmax", "loss.matcher.iou_threshold=0.6"], []])
def test_matches_are_those_of_the_loss_on_the_first_batch(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], overrides: list[str]
) -> None:
    drawn = {}
    monkeypatch.setattr(show, "draw_match_sheet", lambda rows, **more: drawn.update(rows=rows))
    config = compose(folder, "matches", "num=2", *overrides)
    show.show_matches(config)

    data = make_data(config)
    samples = [data.dataset("train")[key] for key in list(data.train_dataloader().sampler)[:4]]
    targets = [target for _, target in samples]
    priors_cxcywh = show.prior_boxes(show.read_network(config))
    labels = instantiate(config.loss.matcher)(targets, priors_cxcywh).labels
    assert len(drawn["rows"]) == 2
    for (image, objects), (pixels, target), of_image in zip(drawn["rows"], samples[:2], labels[:2], strict=True):
        assert (image == pixels.permute(1, 2, 0).numpy()).all()
        assert len(objects) == len(target["labels"])
        assert sum(len(thing.priors_xyxy) for thing in objects) == int((of_image > 0).sum())
    count = sum(len(target["labels"]) for target in targets)
    assert f"4 images, {count} objects, {int((labels > 0).sum())} matched priors" in capsys.readouterr().out


def test_priors_are_those_of_the_network_and_its_weights_are_not_fetched(folder: Path) -> None:
    overrides = ["model=ssd300", "backbone.weights=IMAGENET1K_V1", "priors.clip=true", "data.root=x"]
    net = show.read_network(compose_config("show", ["what=priors", *overrides]))
    assert [level.grid_size for level in net.levels] == [(n, n) for n in (38, 19, 10, 5, 3, 1)]
    priors_cxcywh = show.prior_boxes(net)
    assert torch.equal(priors_cxcywh, make_priors(net.levels, 300, clip=True))
    assert priors_cxcywh.shape == (8732, 4)


def test_a_checkpoint_brings_its_input_size_and_priors(folder: Path) -> None:
    trained = make_net(compose(folder, "priors", "image_size=[64,96]", "priors.clip=size"), 2, pretrained=False)
    Detector(trained, class_names=["a", "b"]).save(folder / "a.ckpt")
    config = compose(folder, "batch", f"checkpoint={folder / 'a.ckpt'}", "num=1")
    net = show.read_network(config)
    assert net.image_size == (64, 96)
    assert net.clip_priors == "size"
    assert torch.equal(show.prior_boxes(net), trained.priors_cxcywh)
    image, _ = make_data(config).dataset("train")[0]
    assert image.shape == (3, 64, 96)
    assert all(path.is_file() for path in show.show(config))


def test_what_a_checkpoint_replaces_is_said(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tiny_detector().save(folder / "a.ckpt")
    given = ["show", "what=priors", "checkpoint=a.ckpt", "experiment=toy_tiny", "data=voc_folder", "data.root=set"]
    message = refused(capsys, folder, *given, "image_size=[64,64]")
    assert message.startswith("error: image_size is [64, 64], but the input of a.ckpt is [32, 48]")
    printed = output_of(
        folder, *given, "image_size=[32,48]", "data.test_split=null", "priors.clip=size", "model=ssd300"
    )
    assert "a.ckpt brings its own network; no effect: priors.clip, model" in printed


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["what=anchors"], "what is 'anchors'; it can be priors, batch or matches"),
        (["what=priors", "image=none.jpg"], "none.jpg"),
        (["what=batch", "image=none.jpg"], "image= is for what=priors"),
        (["what=priors", "data.root=nowhere"], "nowhere.*image=FILE"),
        (["what=batch", "data.root=nowhere"], "nowhere"),
        (["what=batch", "num=0"], "num is 0"),
        (["what=batch", "draws=1.5"], "draws is 1.5"),
        (["what=matches", "checkpoint=other.ckpt"], "other.ckpt"),
        (["what=batch", "num=1", "output=other.ckpt"], "output=other.ckpt: cannot write there"),
    ],
)
def test_bad_input(folder: Path, monkeypatch: pytest.MonkeyPatch, overrides: list[str], said: str) -> None:
    monkeypatch.chdir(folder)
    torch.save({"model": torch.zeros(3)}, "other.ckpt")
    with pytest.raises(UserError, match=said):
        show.show(compose_config("show", [*SETTINGS, "data.root=set", *overrides]))


def test_data_without_any_object_are_refused(tmp_path: Path) -> None:
    planted.write("voc", tmp_path / "set", [replace(image, things=()) for image in planted.CLEAN])
    with pytest.raises(DataError, match="no object"):
        show.show(compose(tmp_path, "batch", "data.class_names=[cat]"))


@pytest.mark.parametrize("what", ["matches", "batch"])
def test_images_without_objects_are_drawn_like_others(tmp_path: Path, what: str) -> None:
    images = [image if image.name == "train0" else replace(image, things=()) for image in planted.CLEAN]
    planted.write("voc", tmp_path / "set", images)
    (path,) = show.show(compose(tmp_path, what, "num=2", "data.val_fraction=0", "data.batch_size=2", "draws=1"))
    assert Image.open(path).size[0] > 500


def test_the_command_leaves_nothing_but_its_images(folder: Path) -> None:
    assert "matches.png" in output_of(folder, "show", *SETTINGS, "data.root=set", "what=matches", "num=1")
    assert sorted(path.name for path in folder.iterdir()) == ["set", "show"]
    assert [path.name for path in (folder / "show").iterdir()] == ["matches.png"]
