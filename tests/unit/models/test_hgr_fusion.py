import dataclasses
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from emofuse_jax import settings
from emofuse_jax.models.fusions.emodal import CommonAndPrivate
from emofuse_jax.models.fusions.hgr import CommonInformation
from emofuse_jax.models.interfaces import EncodedSequence, EncodedSequences, PooledVectors
from emofuse_jax.models.layers.measured_state import MeasuredState
from emofuse_jax.models.registry import check_training
from emofuse_jax.settings.model import default_model_config
from tests.golden import formulas
from tests.support.small_models import device_batch, small_model

RNG = np.random.default_rng(10)
KEY = jax.random.key(0)


def make_fusion(name, **fields):
    config = default_model_config(name).fusion
    config.update({"width": 4, "hidden": 6} | fields)
    fusion_class = {"hgr": CommonInformation, "emodal": CommonAndPrivate}[name]
    return fusion_class(3, 5, 3, config, jnp.float32, rngs=nnx.Rngs(1))


def make_sequence(mask, d, seed=0):
    mask = np.asarray(mask, bool)
    b, l = mask.shape
    values = np.random.default_rng(seed).normal(size=(b, l, d)).astype(np.float32)
    order = np.broadcast_to(np.arange(l), (b, l))
    return EncodedSequence(*(jnp.asarray(x) for x in (values, mask, order, np.full(b, l))))


MASKS = (
    [[1, 1, 1, 1], [1, 0, 1, 0], [0, 0, 0, 0], [1, 1, 1, 1]],
    [
        [1, 1, 1, 1],
        [1, 1, 0, 0],
        [0, 1, 1, 0],
        [0, 0, 0, 0],
    ],
)
"""Of sound and of faces: whole, holes, without sound, without faces."""


def make_inputs():
    return EncodedSequences(make_sequence(MASKS[0], 3, 1), make_sequence(MASKS[1], 5, 2))


def evaluate(network, inputs):
    """The network's answer in evaluation, jitted, as NumPy."""
    graphdef, variables = nnx.split(network)
    return jax.tree.map(
        np.asarray, jax.jit(lambda n, x: nnx.merge(graphdef, n)(x, train=False, key=None))(variables, inputs)
    )


def affine(layer, x):
    return x @ np.asarray(layer.kernel) + np.asarray(layer.bias)


def test_a_clip_is_the_mean_of_its_segments_posteriors():
    network, inputs = make_fusion("hgr", segments=4), make_inputs()
    fused = evaluate(network, inputs)
    inputs = jax.tree.map(np.asarray, inputs)
    for i in range(4):
        posteriors, hiddens = [], []
        for j in range(4):
            a, v = MASKS[0][i][j], MASKS[1][i][j]
            if a or v:
                f = a * affine(network.common.audio.linear, inputs.audio.values[i, j])
                g = v * affine(network.common.video.linear, inputs.video.values[i, j])
                hiddens.append(np.maximum(affine(network.hidden, np.concatenate([f, g])), 0))
                posteriors.append(formulas.softmax(affine(network.head.linear, hiddens[-1])))
                np.testing.assert_allclose(fused.aux["audio_common"][i, j], f, atol=1e-5)
                np.testing.assert_allclose(fused.aux["video_common"][i, j], g, atol=1e-5)
            assert bool(fused.aux["level_mask"][i, j]) == bool(a or v)
        np.testing.assert_allclose(np.exp(fused.logits[i]), np.mean(posteriors, 0), atol=1e-5)
        np.testing.assert_allclose(fused.embedding[i], np.mean(hiddens, 0), atol=1e-5)
    table = np.maximum(np.asarray(network.labels.embedding), 0)
    np.testing.assert_allclose(fused.aux["label_features"], affine(network.labels.linear, table), atol=1e-5)


def test_streams_of_different_lengths_meet_in_time():
    network = make_fusion("hgr", segments=2)
    audio, video = make_sequence(np.ones((1, 2)), 3, 1), make_sequence(np.ones((1, 6)), 5, 2)
    values = np.asarray(video.values).reshape(1, 2, 3, 5).mean(2)
    joined = EncodedSequence(
        jnp.asarray(values), jnp.ones((1, 2), bool), video.time_index[:, :2], jnp.array([2])
    )
    long, short = (evaluate(network, EncodedSequences(audio, v)) for v in (video, joined))
    np.testing.assert_allclose(long.logits, short.logits, atol=1e-5)


def test_the_correlation_of_a_clip():
    network, inputs = make_fusion("hgr", segments=4), make_inputs()
    rng = np.random.default_rng(0)
    means = [rng.normal(size=4).astype(np.float32) for _ in range(2)]
    network.common.audio.mean[...], network.common.video.mean[...] = map(jnp.asarray, means)
    aux = evaluate(network, inputs).aux
    for i in range(4):
        cosines = []
        for j in range(4):
            if MASKS[0][i][j] and MASKS[1][i][j]:
                f, g = (
                    np.asarray(aux[f"{n}_common"][i, j]) - m
                    for n, m in zip(("audio", "video"), means, strict=True)
                )
                cosines.append(f @ g / np.linalg.norm(f) / np.linalg.norm(g))
        assert float(aux["correlation"][i]) == pytest.approx(np.mean(cosines) if cosines else 0, abs=1e-4)


def read_statistics(network):
    return jax.tree.map(np.asarray, nnx.to_pure_dict(nnx.state(network, MeasuredState)))


@pytest.mark.parametrize("name", ["hgr", "emodal"])
def test_running_numbers_move_in_training_alone(name):
    network = make_fusion(name, ema=0.8)
    inputs = make_inputs()
    if name == "emodal":
        inputs = PooledVectors(inputs.audio.values, inputs.audio.mask, inputs.video.values, inputs.video.mask)
    before = read_statistics(network)
    for part in ("audio", "video"):
        assert network(inputs, train=False, key=None).aux[f"{part}_covariance"].shape == (4, 4)
    jax.tree.map(np.testing.assert_array_equal, read_statistics(network), before)
    aux = network(inputs, train=True, key=KEY).aux
    after = read_statistics(network)
    ok = np.asarray(aux["audio_common_mask"])
    rows = np.asarray(aux["audio_common"])[ok]
    np.testing.assert_allclose(after["common"]["audio"]["mean"], 0.1 * rows.mean(0), atol=1e-5)
    np.testing.assert_allclose(after["common"]["audio"]["products"], 0.2 * np.cov(rows.T), atol=1e-5)
    np.testing.assert_allclose(aux["audio_covariance"], np.cov(rows.T), atol=1e-4)  # corrected for its start
    np.testing.assert_allclose(
        network(inputs, train=False, key=None).aux["audio_covariance"], np.cov(rows.T), atol=1e-4
    )


def test_without_ema_there_are_no_covariances():
    network = make_fusion("hgr")
    assert "products" not in read_statistics(network)["common"]["audio"]
    assert "audio_covariance" not in network(make_inputs(), train=True, key=KEY).aux
    with pytest.raises(ValueError, match=r"fusion.ema: 1.0, expected a number in \[0, 1\)"):
        make_fusion("hgr", ema=1.0)
    with pytest.raises(ValueError, match=r"fusion.segments: 0, expected at least 1"):
        make_fusion("hgr", segments=0)


def test_common_and_private_features_of_a_clip():
    network = make_fusion("emodal")
    audio, video = (RNG.normal(size=(2, 1, d)).astype(np.float32) for d in (3, 5))
    ok = np.array([[True], [False]])
    fused = evaluate(network, PooledVectors(*map(jnp.asarray, (audio, ok, video, ~ok))))
    for i, (a, v) in enumerate([(1, 0), (0, 1)]):
        parts = [
            a * affine(network.common.audio.linear, audio[i, 0]),
            v * affine(network.common.video.linear, video[i, 0]),
            a * affine(network.audio_private, audio[i, 0]),
            v * affine(network.video_private, video[i, 0]),
        ]
        hidden = np.maximum(affine(network.hidden, np.concatenate(parts)), 0)
        np.testing.assert_allclose(fused.logits[i], affine(network.head.linear, hidden), atol=1e-5)
        np.testing.assert_allclose(fused.aux["audio_private"][i, 0], parts[2], atol=1e-5)
        np.testing.assert_allclose(fused.aux["video_private"][i, 0], parts[3], atol=1e-5)


def test_padding_changes_nothing_with_any_pair_of_encoders():
    model, params, state, apply = small_model("hgr", fusion__segments=3)  # the FCN's map and face frames
    batch = device_batch(model, 2)
    mask = jnp.broadcast_to(jnp.arange(163) < 131, batch.audio_mask.shape)
    batch = dataclasses.replace(batch, audio_mask=mask)
    shorter = dataclasses.replace(batch, audio=batch.audio[:, :131], audio_mask=mask[:, :131])
    outputs, expected = (apply(params, state, x)[0] for x in (batch, shorter))
    np.testing.assert_allclose(outputs.logits, expected.logits, atol=1e-5)
    np.testing.assert_allclose(outputs.aux["audio_common"], expected.aux["audio_common"], atol=1e-5)
    assert np.abs(outputs.aux["audio_common"]).max() > 1e-2


def test_too_few_labelled_segments_are_warned_of():
    config = settings.small("hgr_semi")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_training(config)  # its covariances are those of many batches
        check_training(settings.small("hgr"))
    config.model.fusion.ema = 0.0
    check_training(config)  # half of its rows have labels
    config.data.labelled_share = 0.0
    with pytest.warns(UserWarning, match=r"about 13 labelled segments per batch, fewer than 4 x"):
        check_training(config)
