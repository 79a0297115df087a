"""Mixup: the shares, what stays alone, and the loss."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from emofuse_jax import losses
from emofuse_jax.data.augment.mixup import mixup
from tests.models.small import small_model

CONFIG = ConfigDict({"smoothing": 0.1, "objectives": {"cross_entropy": 1.0}})


def made(n=64):
    model, params, state, apply = small_model("concat")
    batch = jax.tree.map(jnp.asarray, model.fake_batch(n))
    return dataclasses.replace(batch, audio=batch.audio.astype(jnp.float32)), (params, state, apply)


def test_each_row_is_mixed_with_its_mirror():
    batch, _ = made()
    out = mixup(batch, jax.random.key(0), 0.4)
    share = np.asarray(out.mixed_share)
    assert 0 < share.min() < 0.05 < 0.4 < share.max() <= 0.5
    np.testing.assert_array_equal(out.mixed_label, batch.label[::-1])
    a, both = np.asarray(batch.audio), np.asarray(batch.audio_mask & batch.audio_mask[::-1])
    expected = (1 - share)[:, None, None] * a + share[:, None, None] * a[::-1]
    np.testing.assert_allclose(np.asarray(out.audio)[both], expected[both], atol=1e-5)
    np.testing.assert_array_equal(out.audio_mask, batch.audio_mask | batch.audio_mask[::-1])
    for name, mask in (("audio", "audio_mask"), ("faces", "face_mask")):
        own, values = np.asarray(getattr(batch, mask)), np.asarray(getattr(batch, name))
        alone = own & ~own[::-1]
        np.testing.assert_allclose(np.asarray(getattr(out, name))[alone], values[alone])
        other = own[::-1] & ~own
        np.testing.assert_allclose(np.asarray(getattr(out, name))[other], values[::-1][other])
    assert out.faces.dtype == jnp.uint8


def test_rows_without_a_label_or_of_padding_stay_as_they_are():
    batch, _ = made(8)
    batch = dataclasses.replace(batch, weight=batch.weight.at[0].set(0), label=batch.label.at[6].set(-1))
    out = mixup(batch, jax.random.key(0), 1.0)
    alone = np.array([0, 7, 6, 1])
    assert not np.asarray(out.mixed_share)[alone].any()
    assert np.asarray(out.mixed_share)[[2, 3, 4, 5]].all()
    for name in ("audio", "audio_mask", "faces", "face_mask"):
        np.testing.assert_array_equal(getattr(out, name)[alone], getattr(batch, name)[alone])


def test_the_loss_is_that_of_both_labels_by_their_shares():
    batch, (params, state, apply) = made(6)
    outputs, _ = apply(params, state, batch)

    def loss(label, **more):
        given = dataclasses.replace(batch, label=label, **more)
        return float(losses.total_loss(outputs, given, CONFIG)[0])

    share = jnp.full(6, 0.3)
    mixed = loss(batch.label, mixed_label=batch.label[::-1], mixed_share=share)
    np.testing.assert_allclose(mixed, 0.7 * loss(batch.label) + 0.3 * loss(batch.label[::-1]), rtol=1e-5)
