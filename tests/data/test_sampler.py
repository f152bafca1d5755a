from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from torch import distributed
from torch.utils.data import DistributedSampler

from helpers.datasets import annotation, sampler_of
from ssd_lightning.data.annotations import AnnotationTable
from ssd_lightning.data.sampler import EpochSampler, MultiScale, SampleKey, multiscale_sizes, repeat_factors
from ssd_lightning.errors import ConfigurationError


def all_ranks(world_size: int, epoch: int = 0, resume_after: int = 0, **settings) -> list[list[SampleKey]]:
    result = []
    for rank in range(world_size):
        sampler = sampler_of(rank, world_size, **settings)
        if resume_after:
            sampler.resume(epoch=epoch, samples_seen=resume_after)
        sampler.set_epoch(epoch)
        result.append(list(sampler))
        assert resume_after or len(sampler) == len(result[-1])
    return result


@given(size=st.integers(0, 40), world_size=st.integers(1, 5), shuffle=st.booleans(), pad=st.booleans())
def test_evaluation_covers_every_sample_once_and_training_gives_every_rank_as_many(size, world_size, shuffle, pad):
    ranks = all_ranks(world_size, size=size, shuffle=shuffle, pad=pad)
    counts = Counter(key.image for rank in ranks for key in rank)
    assert counts.keys() == set(range(size))
    assert max(map(len, ranks)) - min(map(len, ranks)) <= (0 if pad else 1)
    # Lightning ends a run in which a rank has no images to validate.
    assert not size or min(map(len, ranks))
    assert counts.total() - size <= (world_size - 1 if pad or size < world_size else 0)
    assert not size or max(counts.values()) - min(counts.values()) <= 1


SCALES = MultiScale(multiscale_sizes([32, 128], (64, 64)), seed=5)
FACTORS = np.array([1, 1.5, 1, 2.25, 1, 3, 1.25, 1.7])
EPOCHS = {
    "plain": {"size": 47, "batch_size": 12},
    "scaled": {"size": 100, "batch_size": 12, "multiscale": SCALES},
    "repeated": {"size": 8, "batch_size": 6, "repeats": FACTORS},
    "both": {"size": 8, "batch_size": 6, "repeats": FACTORS, "multiscale": SCALES},
}
STATE = {"seed": 2, "epoch": 3, "pad": True}


@pytest.mark.parametrize("name", EPOCHS)
@pytest.mark.parametrize("world_size", [2, 3])
def test_an_epoch_has_the_same_steps_on_any_number_of_ranks(name, world_size):
    settings = EPOCHS[name]
    (alone,), ranks = (all_ranks(count, **settings, **STATE) for count in (1, world_size))
    assert [ranks[place % world_size][place // world_size] for place in range(len(alone))] == alone
    samples, batch_size = int(np.sum(settings.get("repeats", np.ones(settings["size"])))), settings["batch_size"]
    assert len(alone) == sum(map(len, ranks)) == samples // batch_size * batch_size
    of_steps = [SCALES.size_at(3, place // batch_size) for place in range(len(alone))]
    assert [key.image_size for key in alone] == (of_steps if "multiscale" in settings else [None] * len(alone))


@pytest.mark.parametrize("world_size", [2, 3])
def test_a_set_that_is_smaller_than_a_batch_has_one_step_and_repeats_until_ranks_have_equally_many(world_size):
    ranks = all_ranks(world_size, size=5, pad=True, batch_size=24)
    assert {len(rank) for rank in ranks} == {-(-5 // world_size)}
    assert {key.image for rank in ranks for key in rank} == set(range(5))


@pytest.mark.parametrize("name", EPOCHS)
@pytest.mark.parametrize(("world_size", "samples_seen"), [(1, 5), (2, 6), (2, 10), (3, 9)])
def test_a_run_that_goes_on_has_the_samples_and_sizes_that_were_left(name, world_size, samples_seen):
    """Also where it was cut between the batches that share a step."""
    whole = all_ranks(world_size, **EPOCHS[name], **STATE)
    rest = all_ranks(world_size, resume_after=samples_seen, **EPOCHS[name], **STATE)
    assert rest == [rank[samples_seen // world_size :] for rank in whole]


def test_the_order_follows_from_seed_and_epoch_alone_and_the_epoch_comes_with_the_index():
    def epochs(seed: int, *numbers: int) -> list[list[SampleKey]]:
        sampler, found = EpochSampler(size=50, seed=seed, pad=True), []
        for epoch in numbers:
            sampler.set_epoch(epoch)
            found.append(list(sampler))
            assert {key.epoch for key in found[-1]} == {epoch}
            sampler.set_epoch(epoch)
            assert list(sampler) == found[-1]
        return found

    found = epochs(3, 0, 1, 2)
    orders = {tuple(key.image for key in keys) for keys in (*found, *epochs(4, 2))} | {tuple(range(50))}
    assert len(orders) == 5
    assert epochs(3, 2) == found[2:]


def test_trainers_leave_it_as_it_is():
    """Lightning's default would divide any other sampler among the ranks again, and lose half of the images of two."""
    assert isinstance(EpochSampler(size=3, pad=False), DistributedSampler)


def test_a_plain_loop_goes_from_epoch_to_epoch_by_itself():
    plain, told = (EpochSampler(size=7, pad=True, batch_size=2) for _ in range(2))
    plain.resume(epoch=2, samples_seen=4)
    told.resume(epoch=2, samples_seen=4)
    for epoch in range(2, 5):
        told.set_epoch(epoch)
        assert list(plain) == list(told)


def test_without_shuffling_the_order_is_that_of_the_data_set():
    assert list(EpochSampler(size=4, shuffle=False, pad=False)) == [SampleKey(0, image) for image in range(4)]
    ranks = all_ranks(2, size=3, shuffle=False, pad=True)
    assert [[key.image for key in rank] for rank in ranks] == [[0, 2], [1, 0]]


@pytest.mark.parametrize("samples_seen", [0, 8, 20])
def test_resuming_skips_what_all_ranks_have_seen_of_that_epoch_only(samples_seen):
    resumed = sampler_of(1, 2, size=20, seed=1, pad=True)
    resumed.resume(epoch=3, samples_seen=samples_seen)
    for epoch, skipped in ((3, samples_seen // 2), (3, samples_seen // 2), (4, 0)):  # Lightning says it twice
        resumed.set_epoch(epoch)
        assert list(resumed) == all_ranks(2, epoch, size=20, seed=1, pad=True)[1][skipped:]
        assert len(resumed) == 10


def test_place_among_the_ranks_is_asked_for_when_it_is_needed(monkeypatch):
    sampler = EpochSampler(size=5, shuffle=False, pad=False)
    assert len(sampler) == 5
    monkeypatch.setattr(distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(distributed, "get_rank", lambda: 1)
    monkeypatch.setattr(distributed, "get_world_size", lambda: 2)
    assert len(sampler) == 2
    assert list(sampler) == [SampleKey(0, 1), SampleKey(0, 3)]


@pytest.mark.parametrize(("ranks", "samples_seen"), [(1, -1), (1, 9), (2, 3)])
def test_what_the_ranks_cannot_have_seen_together_is_not_skipped(ranks, samples_seen):
    sampler, of_each = sampler_of(0, ranks, size=8, pad=True), 8 // ranks
    match = f"cannot skip {samples_seen} samples of an epoch of {of_each} on each of {ranks} ranks"
    with pytest.raises(ConfigurationError, match=match):
        sampler.resume(epoch=0, samples_seen=samples_seen)


# Images of rare classes come more often

LABELS = [[1, 1], [1, 2], [], [1], [3, 2, 1], [1], [1], [1], [1], []]


def test_repeat_factors_are_those_of_lvis():
    table = AnnotationTable.of([annotation(labels=labels) for labels in LABELS])
    # Of ten images, two have class 2 and one has class 3.
    expected = [2 if 3 in labels else 2**0.5 if 2 in labels else 1 for labels in LABELS]
    assert repeat_factors(table, threshold=0.4).tolist() == pytest.approx(expected)
    assert repeat_factors(table, threshold=0.1).tolist() == [1] * 10  # the rarest class has just that share


def test_an_epoch_has_every_sample_as_often_as_its_factor_says_and_always_as_many():
    sampler = EpochSampler(size=8, seed=5, pad=True, repeats=FACTORS)
    counts = np.zeros((200, 8))
    for epoch in range(200):
        sampler.set_epoch(epoch)
        keys = list(sampler)
        assert len(keys) == len(sampler) == sampler.samples == int(FACTORS.sum())
        assert len(set(keys)) == len(keys)  # copies are told apart
        for _, index, copy, _ in keys:
            assert copy < np.ceil(FACTORS[index])
            counts[epoch, index] += 1
    # Twelve of 12.7: the thirteenth, where it is drawn, is any of them.
    assert (counts >= np.floor(FACTORS) - 1).all()
    assert (counts <= np.ceil(FACTORS)).all()
    np.testing.assert_allclose(counts.mean(axis=0), FACTORS * 12 / 12.7, atol=0.1)
    assert len(np.unique(counts, axis=0)) > 3  # drawn again in every epoch


def test_factors_of_one_draw_each_sample_once():
    sampler = EpochSampler(size=50, seed=1, pad=True, repeats=np.ones(50))
    assert sorted(sampler) == [SampleKey(0, image) for image in range(50)]
    assert list(EpochSampler(size=0, pad=True, repeats=np.ones(0))) == []


# Multi-scale training


@pytest.mark.parametrize(
    ("sides", "image_size", "sizes"),
    [
        ([256, 384], (320, 320), [(256, 256), (288, 288), (320, 320), (352, 352), (384, 384)]),
        ([250, 300], (300, 300), [(256, 256), (288, 288)]),
        ([64, 64], (64, 64), [(64, 64)]),
        ([64, 128], (64, 96), [(64, 96), (96, 128), (128, 192)]),  # 144 and 160 are as near; 144 is no multiple
        ([64, 96], (128, 64), [(128, 64), (192, 96)]),
    ],
)
def test_sizes_are_the_multiples_of_32_in_the_range(sides, image_size, sizes):
    assert list(multiscale_sizes(sides, image_size)) == sizes


@pytest.mark.parametrize(
    ("sides", "named"),
    [
        ([384, 256], r"data.multiscale is \[384, 256\]; it must be null or the least and the largest side"),
        ([0, 256], "it must be null or"),
        *((sides, "it must be null or") for sides in ([256], [256, 320, 384], ["a", 320])),
        ([330, 340], r"data.multiscale is \[330, 340\]; no multiple of 32 lies in this range"),
    ],
)
def test_what_is_no_range_is_refused(sides, named):
    with pytest.raises(ConfigurationError, match=named):
        multiscale_sizes(sides, (320, 320))


def test_each_size_has_its_share_and_epochs_differ():
    multiscale = MultiScale(multiscale_sizes([256, 384], (320, 320)), seed=0)
    epochs = [[multiscale.size_at(epoch, step) for step in range(400)] for epoch in range(2)]
    counts = Counter(epochs[0])
    assert counts.keys() == set(multiscale.sizes)
    assert all(50 < count < 110 for count in counts.values())  # 80 expected, standard deviation 8
    assert epochs[0] != epochs[1]
    other = MultiScale(multiscale.sizes, seed=1)
    assert [other.size_at(0, step) for step in range(400)] != epochs[0]
    assert multiscale.size_at(0, 399) == epochs[0][399]  # whatever was drawn before
