import collections

import numpy as np
import pytest

from emofuse_jax.data.dataset import open_dataset
from emofuse_jax.data.pipeline import train_batches
from emofuse_jax.data.sampler import BalancedSampler, make_sampler
from emofuse_jax.types import InputSpec
from tests.support.resuming import check_resuming

SPEC = InputSpec(t=100, f=70, s=4, h=16, w=16, classes=3)
RNG = np.random.default_rng(0)


def make_balanced_sampler(class_counts, batch_size, seed=0, num_unlabelled=0, labelled_share=0.0):
    labels = np.repeat([*range(len(class_counts)), -1], [*class_counts, num_unlabelled])
    order = RNG.permutation(len(labels))
    return BalancedSampler(100 + order, labels[order], batch_size, seed, labelled_share)


def labels_by_clip(sampler):
    return dict(zip(sampler.clips.tolist(), sampler.labels.tolist(), strict=True))


@pytest.mark.parametrize(
    ("counts", "size"), [((50, 20, 5), 12), ((50, 20, 5), 16), ((9, 9, 9, 9), 2), ((30,) * 8, 32)]
)
def test_every_batch_holds_the_same_number_of_each_class_up_to_one(counts, size):
    sampler = make_balanced_sampler(counts, size)
    clip_labels, total = labels_by_clip(sampler), collections.Counter()
    for number in range(40):
        batch = sampler.batch(number)
        assert len(batch) == size
        batch_counts = collections.Counter(clip_labels[int(clip)] for clip in batch)
        class_rows = [batch_counts[label] for label in range(len(counts))]
        assert max(class_rows) - min(class_rows) <= 1
        total.update(batch_counts)
    overall = [total[label] for label in range(len(counts))]
    assert max(overall) - min(overall) <= 1  # the odd rows go round


def test_a_class_sees_all_its_clips_once_a_pass_in_a_new_order():
    sampler = make_balanced_sampler((15, 9), 6)
    clip_labels = labels_by_clip(sampler)
    taken = [
        int(c) for i in range(18) for c in sampler.batch(i) if clip_labels[int(c)] == 1
    ]  # 3 rows a batch
    passes = [tuple(taken[i : i + 9]) for i in range(0, 54, 9)]
    members = sorted(clip for clip, label in clip_labels.items() if label == 1)
    assert all(sorted(one_pass) == members for one_pass in passes)
    assert len(set(passes)) == 6


def test_a_batch_is_a_function_of_its_number_and_the_seed():
    sampler = make_balanced_sampler((20, 20), 8)
    same_sampler = BalancedSampler(sampler.clips, sampler.labels, 8, 0)
    np.testing.assert_array_equal(sampler.batch(17), same_sampler.batch(17))
    assert (sampler.batch(17) != sampler.batch(18)).any()
    assert (sampler.batch(17) != BalancedSampler(sampler.clips, sampler.labels, 8, 1).batch(17)).any()


@pytest.mark.parametrize(("unlabelled", "rows"), [(90, 12), (5, 2), (30, 8)])
def test_unlabelled_clips_take_their_share_but_leave_a_row_for_each_class(unlabelled, rows):
    sampler = make_balanced_sampler((10, 10, 5, 5), 16, num_unlabelled=unlabelled)
    clip_labels = labels_by_clip(sampler)
    clip_counts = collections.Counter()
    for number in range(60):
        batch = [int(clip) for clip in sampler.batch(number)]
        batch_counts = collections.Counter(clip_labels[clip] for clip in batch)
        assert batch_counts[-1] == rows
        class_rows = [batch_counts[label] for label in range(4)]
        assert max(class_rows) - min(class_rows) <= 1
        assert min(class_rows) >= 1
        clip_counts.update(batch)
    assert len(clip_counts) == len(clip_labels)


@pytest.mark.parametrize(
    ("unlabelled", "share", "rows"), [(90, 0.5, 8), (5, 0.25, 12), (9, 1.0, 0), (0, 0.5, 0)]
)
def test_the_labelled_rows_are_a_share_of_the_batch(unlabelled, share, rows):
    sampler = make_balanced_sampler((10, 4), 16, num_unlabelled=unlabelled, labelled_share=share)
    clip_labels = labels_by_clip(sampler)
    for number in range(20):
        assert sum(clip_labels[int(clip)] < 0 for clip in sampler.batch(number)) == rows


def test_a_share_that_is_none():
    with pytest.raises(ValueError, match=r"data.labelled_share=1.5: expected a number from 0 to 1"):
        make_balanced_sampler((4, 4), 4, labelled_share=1.5)


def test_nothing_to_balance():
    with pytest.raises(ValueError, match=r"data.balanced: no training clip has a label"):
        BalancedSampler(np.arange(4), np.full(4, -1), 2, 0)


@pytest.fixture
def make_balanced_batches(fake_dataset):
    dataset = open_dataset(fake_dataset)
    clips = np.arange(30)  # label i % 3; ten of each, less those left out below
    clips = clips[(clips % 3 != 2) | (clips < 12)]
    labels = clips % 3

    def make_batches(size=9, **options):
        sampler = make_sampler(clips, labels, batch_size=size, seed=4, balanced=True)
        return train_batches(dataset, sampler, lambda clips: SPEC, **options)

    return make_batches


def test_records_of_balanced_batches(make_balanced_batches):
    batches = make_balanced_batches()
    for _ in range(5):
        batch = next(batches)
        assert np.bincount(batch.label, minlength=3).tolist() == [3, 3, 3]
        assert batch.weight.tolist() == [1] * 9


def test_it_goes_on_from_any_batch(make_balanced_batches):
    check_resuming(make_balanced_batches, num_before=4, num_after=3)


def test_processes_share_the_same_global_batches(make_balanced_batches):
    global_batches, process_batches = (
        make_balanced_batches(12),
        [make_balanced_batches(12, process=(i, 3)) for i in range(3)],
    )
    for _ in range(3):
        gathered = np.concatenate([next(batches).clip for batches in process_batches])
        np.testing.assert_array_equal(gathered, next(global_batches).clip)


def test_balancing_needs_labels():
    with pytest.raises(ValueError, match=r"data.balanced, data.labelled_share: expected labels of the clips"):
        make_sampler(np.arange(9), None, batch_size=3, seed=0, balanced=True)
    with pytest.raises(ValueError, match=r"data.buckets: expected 1 with data.balanced"):
        make_sampler(
            *2 * [np.arange(9)], batch_size=3, seed=0, balanced=True, clip_buckets=np.zeros(9, np.uint8)
        )


def test_shuffled_passes_hold_each_clip_once_and_depend_on_the_seed():
    clips = np.arange(100, 123)
    samplers = {seed: make_sampler(clips, None, batch_size=5, seed=seed) for seed in (0, 1)}
    passes = {
        seed: [np.concatenate([s.batch(4 * epoch + i) for i in range(4)]) for epoch in range(3)]
        for seed, s in samplers.items()
    }
    for clips_of_pass in (*passes[0], *passes[1]):
        assert len(set(clips_of_pass.tolist())) == 20
        assert set(clips_of_pass) <= set(clips)
    assert (passes[0][0] != passes[0][1]).any()
    assert (passes[0][0] != passes[1][0]).any()
    np.testing.assert_array_equal(samplers[0].batch(7), samplers[0].batch(np.int64(7)))


@pytest.mark.parametrize("batch_size", [0, 6])
def test_a_batch_needs_enough_clips(batch_size):
    with pytest.raises(ValueError, match=rf"data.batch_size={batch_size}: expected 1 to 5, the number of"):
        make_sampler(np.arange(5), None, batch_size=batch_size, seed=0)
