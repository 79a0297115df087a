"""Conditions under which test clips are scored again: what each does to a batch, the same for every model."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from emofuse_jax.scoring.predict import Predictions, predict
from emofuse_jax.scoring.robustness import (
    LOST_FACE_FRACTIONS,
    SNR_LEVELS_DB,
    make_corruptions,
    robustness_curves,
)
from tests.support.small_models import SPEC, small_model


def make_batch(n=16):
    model, *_ = small_model("concat")
    return jax.tree.map(jnp.asarray, model.fake_batch(n))


def test_no_batches_are_refused():
    with pytest.raises(ValueError, match="batches: there are none, expected at least one"):
        predict(lambda *_: None, {}, {}, [])


def test_which_there_are_follows_the_network_and_the_records():
    both = make_corruptions(("audio", "video"), SPEC, "fbp")
    assert [at for curve, at in both if curve == "snr"] == list(SNR_LEVELS_DB)
    assert [at for curve, at in both if curve == "lost"] == list(LOST_FACE_FRACTIONS)
    assert [at for curve, at in both if curve == "without"] == ["audio", "video"]
    assert {curve for curve, _ in make_corruptions(("audio",), SPEC, "fbp")} == {"snr"}
    assert {curve for curve, _ in make_corruptions(("video",), SPEC, "fbp")} == {"lost"}
    assert make_corruptions(("audio",), dataclasses.replace(SPEC, t=0), "fbp") == {}


def test_the_first_place_of_each_curve_is_the_clip_as_it_is():
    batch, changes = make_batch(), make_corruptions(("audio", "video"), SPEC, "fbp")
    for condition in (("snr", None), ("lost", 0.0)):
        jax.tree.map(np.testing.assert_array_equal, changes[condition](batch), batch)


def test_noise_grows_and_is_the_same_again():
    batch, changes = make_batch(), make_corruptions(("audio",), SPEC, "fbp")
    power = [
        float(jnp.exp(2 * changes["snr", snr](batch).audio.astype(jnp.float32)).mean())
        for snr in SNR_LEVELS_DB
    ]
    assert power == sorted(power)
    first, again = (changes["snr", 0.0](batch).audio for _ in range(2))
    np.testing.assert_array_equal(first, again)
    assert not np.asarray(first)[~np.asarray(batch.audio_mask)].any()


@pytest.mark.parametrize("share", LOST_FACE_FRACTIONS)
def test_so_many_of_the_faces_that_there_are_get_lost(share):
    batch, changes = make_batch(), make_corruptions(("video",), SPEC, "fbp")
    out = changes["lost", share](batch)
    faces_before, faces_after = np.asarray(batch.face_mask).sum(1), np.asarray(out.face_mask).sum(1)
    np.testing.assert_array_equal(faces_after, faces_before - np.round(share * faces_before))
    assert not (np.asarray(out.face_mask) & ~np.asarray(batch.face_mask)).any()


def test_curves_pool_the_runs():
    def make_predictions(is_correct):
        probabilities = np.eye(2)[[0, 1] if is_correct else [1, 0]]
        return Predictions(np.arange(2), np.array([0, 1]), np.zeros(2, int), probabilities, 0.0)

    runs = [
        {("snr", None): make_predictions(True), ("without", "audio"): make_predictions(i == 0)}
        for i in range(4)
    ]
    curves = robustness_curves(runs, 2)
    assert curves["snr"] == [{"at": None, "ua": 1.0, "wa": 1.0}]
    assert curves["without"] == [{"at": "audio", "ua": 0.25, "wa": 0.25}]
