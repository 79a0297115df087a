"""Length buckets: few shapes, each clip once a pass, nothing cut that the longest shape holds."""

import dataclasses

import numpy as np
import pytest

from emofuse_jax.data.buckets import Buckets, bucket_edges
from emofuse_jax.data.sampler import make_sampler
from tests.data.test_pipeline import SPEC


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
    lengths, made = buckets
    for clips in np.random.default_rng(2).integers(0, 50, (40, 3)):
        found = made.spec(np.append(clips, -1)).t
        assert found >= min(lengths[clips].max(), 80)
        assert found == min(spec.t for spec in made.specs if spec.t >= min(lengths[clips].max(), 80))
    assert made.spec(np.array([-1, -1])).t == made.specs[0].t


def test_a_pass_holds_each_clip_once_in_batches_of_like_length(buckets):
    _, made = buckets
    clips = np.arange(50)
    sampler = make_sampler(clips, None, batch_size=7, seed=3, clip_buckets=made.record_buckets)
    passes = [np.stack([sampler.batch(7 * epoch + i) for i in range(7)]) for epoch in range(3)]
    for batches in passes:
        assert len(np.unique(batches)) == 49
        mixed = [len(np.unique(made.record_buckets[batch])) > 1 for batch in batches]
        assert sum(mixed) <= len(made.specs) - 1  # where one bucket ends and the next begins
    left = [set(clips) - set(batches.ravel()) for batches in passes]
    assert len(set.union(*left)) > 1
    order = [[made.record_buckets[batch].max() for batch in batches] for batches in passes]
    assert order[0] != sorted(order[0]) or order[1] != sorted(order[1])
    plain = make_sampler(clips, None, batch_size=7, seed=3)
    steps = {
        name: sum(made.spec(s.batch(i)).t for i in range(21))
        for name, s in (("like", sampler), ("plain", plain))
    }
    assert steps["like"] < 0.85 * steps["plain"]


def test_clips_of_a_bucket_come_together(buckets):
    _, made = buckets
    clips = np.array([4, 9, 2, 30, 31, 7])
    found = made.sort_by_bucket(clips)
    assert sorted(found) == sorted(clips)
    assert (np.diff(made.record_buckets[found].astype(int)) >= 0).all()
