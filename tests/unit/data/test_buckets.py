"""Length buckets: few shapes, each clip once a pass, nothing cut that the longest shape holds."""

import dataclasses

import numpy as np
import pytest

from emofuse_jax.data.buckets import Buckets, bucket_edges
from emofuse_jax.data.sampler import make_sampler
from tests.unit.data.test_pipeline import SPEC


def test_edges_have_about_equally_many_clips_between_them():
    lengths = np.random.default_rng(0).permutation(np.arange(100, 400))
    assert bucket_edges(lengths, 3, 1000) == [200, 300, 1000]
    assert bucket_edges(lengths, 3, 250) == [200, 250]
    assert bucket_edges(np.full(9, 80), 4, 400) == [80, 400]
    assert bucket_edges(np.zeros(9, int), 4, 400) == [400]


@pytest.fixture
def buckets():
    lengths = np.random.default_rng(1).integers(10, 90, 50)
    edges = bucket_edges(lengths, 4, 80)
    specs = tuple(dataclasses.replace(SPEC, t=t) for t in edges)
    return lengths, Buckets(specs, np.searchsorted(edges[:-1], lengths).astype(np.uint8))


def test_a_shape_holds_all_clips_of_its_batch(buckets):
    lengths, length_buckets = buckets
    for clips in np.random.default_rng(2).integers(0, 50, (40, 3)):
        num_steps = length_buckets.spec(np.append(clips, -1)).t
        assert num_steps >= min(lengths[clips].max(), 80)
        assert num_steps == min(
            spec.t for spec in length_buckets.specs if spec.t >= min(lengths[clips].max(), 80)
        )
    assert length_buckets.spec(np.array([-1, -1])).t == length_buckets.specs[0].t


def test_a_pass_holds_each_clip_once_in_batches_of_like_length(buckets):
    _, length_buckets = buckets
    clips = np.arange(50)
    sampler = make_sampler(clips, None, batch_size=7, seed=3, clip_buckets=length_buckets.record_buckets)
    passes = [np.stack([sampler.batch(7 * epoch + i) for i in range(7)]) for epoch in range(3)]
    for batches in passes:
        assert len(np.unique(batches)) == 49
        is_mixed = [len(np.unique(length_buckets.record_buckets[batch])) > 1 for batch in batches]
        assert sum(is_mixed) <= len(length_buckets.specs) - 1  # where one bucket ends and the next begins
    missed_clips = [set(clips) - set(batches.ravel()) for batches in passes]
    assert len(set.union(*missed_clips)) > 1
    bucket_order = [[length_buckets.record_buckets[batch].max() for batch in batches] for batches in passes]
    assert bucket_order[0] != sorted(bucket_order[0]) or bucket_order[1] != sorted(bucket_order[1])
    plain_sampler = make_sampler(clips, None, batch_size=7, seed=3)
    steps = {
        name: sum(length_buckets.spec(s.batch(i)).t for i in range(21))
        for name, s in (("like", sampler), ("plain", plain_sampler))
    }
    assert steps["like"] < 0.85 * steps["plain"]


def test_clips_of_a_bucket_come_together(buckets):
    _, length_buckets = buckets
    clips = np.array([4, 9, 2, 30, 31, 7])
    sorted_clips = length_buckets.sort_by_bucket(clips)
    assert sorted(sorted_clips) == sorted(clips)
    assert (np.diff(length_buckets.record_buckets[sorted_clips].astype(int)) >= 0).all()
