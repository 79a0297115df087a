"""Mixup: the shares, what stays alone, and the loss."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from emofuse_jax import losses
from emofuse_jax.data.augment.mixup import mixup
from tests.support.small_models import small_model

CONFIG = ConfigDict({"smoothing": 0.1, "objectives": {"cross_entropy": 1.0}})


def make_batch(num_clips=64):
    model, params, state, apply = small_model("concat")
    batch = jax.tree.map(jnp.asarray, model.fake_batch(num_clips))
    return dataclasses.replace(batch, audio=batch.audio.astype(jnp.float32)), (params, state, apply)


def test_each_row_is_mixed_with_its_mirror():
    batch, _ = make_batch()
    out = mixup(batch, jax.random.key(0), 0.4)
    mixed_share = np.asarray(out.mixed_share)
    assert 0 < mixed_share.min() < 0.05 < 0.4 < mixed_share.max() <= 0.5
    np.testing.assert_array_equal(out.mixed_label, batch.label[::-1])
    audio, both_valid = np.asarray(batch.audio), np.asarray(batch.audio_mask & batch.audio_mask[::-1])
    expected = (1 - mixed_share)[:, None, None] * audio + mixed_share[:, None, None] * audio[::-1]
    np.testing.assert_allclose(np.asarray(out.audio)[both_valid], expected[both_valid], atol=1e-5)
    np.testing.assert_array_equal(out.audio_mask, batch.audio_mask | batch.audio_mask[::-1])
    for name, mask in (("audio", "audio_mask"), ("faces", "face_mask")):
        valid, values = np.asarray(getattr(batch, mask)), np.asarray(getattr(batch, name))
        only_first = valid & ~valid[::-1]
        np.testing.assert_allclose(np.asarray(getattr(out, name))[only_first], values[only_first])
        only_mirror = valid[::-1] & ~valid
        np.testing.assert_allclose(np.asarray(getattr(out, name))[only_mirror], values[::-1][only_mirror])
    assert out.faces.dtype == jnp.uint8


def test_rows_without_a_label_or_of_padding_stay_as_they_are():
    batch, _ = make_batch(8)
    batch = dataclasses.replace(batch, weight=batch.weight.at[0].set(0), label=batch.label.at[6].set(-1))
    out = mixup(batch, jax.random.key(0), 1.0)
    unmixed_rows = np.array([0, 7, 6, 1])
    assert not np.asarray(out.mixed_share)[unmixed_rows].any()
    assert np.asarray(out.mixed_share)[[2, 3, 4, 5]].all()
    for name in ("audio", "audio_mask", "faces", "face_mask"):
        np.testing.assert_array_equal(getattr(out, name)[unmixed_rows], getattr(batch, name)[unmixed_rows])


def test_the_loss_is_that_of_both_labels_by_their_shares():
    batch, (params, state, apply) = make_batch(6)
    outputs, _ = apply(params, state, batch)

    def loss(label, **fields):
        relabelled_batch = dataclasses.replace(batch, label=label, **fields)
        return float(losses.total_loss(outputs, relabelled_batch, CONFIG)[0])

    mixed_share = jnp.full(6, 0.3)
    mixed_loss = loss(batch.label, mixed_label=batch.label[::-1], mixed_share=mixed_share)
    np.testing.assert_allclose(mixed_loss, 0.7 * loss(batch.label) + 0.3 * loss(batch.label[::-1]), rtol=1e-5)
