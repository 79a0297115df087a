"""Encoders of frozen features: the formula, its gradient, its masks; and every fusion learns from them."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads
from ml_collections import ConfigDict

from emofuse_jax.losses.cross_entropy import cross_entropy
from emofuse_jax.models.build import build_model
from emofuse_jax.models.registry import FUSIONS
from emofuse_jax.settings.model import default_model_config
from emofuse_jax.types import InputSpec
from tests.support.small_models import device_batch, float_leaves

SPEC = InputSpec(t=0, f=70, s=4, h=0, w=0, classes=5, feature_steps=11, audio_features=9, face_features=6)


def make_model(fusion="concat", spec=SPEC, **fields):
    config = default_model_config(fusion, audio="features", video="features")
    small = {"audio.embedding": 8, "video.embedding": 8, "audio.attention_width": 4}
    config.update_from_flattened_dict({**small, "video.attention_width": 4, **fields})
    for name, value in (
        ("width", 8),
        ("hidden", 8),
        ("attention_width", 8),
        ("common_width", 8),
        ("steps", 3),
    ):
        if isinstance(config.fusion.get(name), int):
            config.fusion[name] = value
    if fusion == "bottleneck":
        config.fusion.update(layers=2, fusion_layer=1)
    return build_model(config, spec)


def init_model(model):
    return jax.jit(model.init)(jax.random.key(0))


def formula(x, numbers, activation):
    """Layer norm, linear, activation, in NumPy."""
    x = np.asarray(x, np.float64)
    x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6)
    x = x * numbers["norm"]["scale"] + numbers["norm"]["bias"]
    y = x @ np.asarray(numbers["linear"]["kernel"], np.float64) + numbers["linear"]["bias"]
    if activation == "tanh":
        return np.tanh(y)
    return 0.5 * y * (1 + np.tanh(np.sqrt(2 / np.pi) * (y + 0.044715 * y**3)))


def random_like(params, seed=0):
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda x: jnp.asarray(rng.normal(0, 0.5, x.shape), x.dtype), params)


@pytest.mark.parametrize("activation", ["tanh", "gelu"])
def test_the_encoders_are_the_formula(activation):
    """Seen through a fusion of pooled vectors with one valid position, where pooling is the identity."""
    model = make_model(**{"audio.activation": activation, "video.activation": activation})
    params, state = init_model(model)
    params = random_like(params)
    batch = device_batch(model)
    first = jnp.zeros((4, 11), bool).at[:, 2].set(True), jnp.zeros((4, 4), bool).at[:, 1].set(True)
    batch = dataclasses.replace(batch, audio_features_mask=first[0], face_mask=first[1])
    outputs, _ = jax.jit(model.apply)(params, state, batch)
    for vector, values, name in (
        (outputs.audio_vector, batch.audio_features[:, 2], "audio"),
        (outputs.video_vector, batch.face_features[:, 1], "video"),
    ):
        expected = formula(values, jax.tree.map(np.asarray, params[name]["projection"]), activation)
        np.testing.assert_allclose(vector, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["plain", "zeros", "constant", "single"])
def test_gradients_are_right_at_the_hard_points(kind):
    model = make_model()
    params, state = init_model(model)
    params, batch = random_like(params, 1), device_batch(model, 2)
    if kind in ("zeros", "constant"):
        batch = dataclasses.replace(
            batch, audio_features=jnp.full_like(batch.audio_features, float(kind == "constant"))
        )
    if kind == "single":
        batch = dataclasses.replace(batch, audio_features_mask=jnp.zeros((2, 11), bool).at[:, 0].set(True))

    @jax.jit
    def loss(params):
        outputs, _ = model.apply(params, state, batch)
        return jnp.sum(jnp.sin(outputs.logits))

    check_grads(loss, (params,), order=1, modes=["rev"], atol=2e-2, rtol=2e-2)


def test_padding_changes_nothing():
    model = make_model("am_fbp")
    params, state = init_model(model)
    apply = jax.jit(model.apply)
    batch = device_batch(model)
    logits = apply(params, state, batch)[0].logits
    pad = ((0, 0), (0, 6), (0, 0))
    longer = dataclasses.replace(
        batch,
        audio_features=jnp.pad(batch.audio_features, pad, constant_values=9.0),
        audio_features_mask=jnp.pad(batch.audio_features_mask, pad[:2]),
    )
    np.testing.assert_allclose(apply(params, state, longer)[0].logits, logits, atol=1e-5)
    garbage = jnp.where(batch.face_mask[..., None], batch.face_features, jnp.nan)
    garbage_batch = dataclasses.replace(batch, face_features=garbage)
    np.testing.assert_allclose(apply(params, state, garbage_batch)[0].logits, logits, atol=1e-5)


@pytest.mark.parametrize("fusion", FUSIONS)
def test_every_fusion_learns_from_features(fusion):
    """Value and gradient, with a clip without sound, one without faces, and one without either."""
    model = make_model(fusion)
    params, state = init_model(model)
    batch = device_batch(model, 6)
    audio_mask = batch.audio_features_mask.at[jnp.array([1, 3])].set(False)
    face_mask = batch.face_mask.at[jnp.array([2, 3])].set(False)
    batch = dataclasses.replace(batch, audio_features_mask=audio_mask, face_mask=face_mask)

    def loss(params):
        outputs, _ = model.apply(params, state, batch, train=True, key=jax.random.key(1))
        total, weight = cross_entropy(outputs.logits, batch.label, batch.weight, smoothing=0.0)
        return total / weight, outputs

    gradient = jax.jit(jax.value_and_grad(loss, has_aux=True))
    (value, outputs), grads = gradient(params)
    assert np.isfinite(value)
    assert outputs.logits.shape == (6, 5)
    assert all(np.isfinite(leaf).all() for leaf in float_leaves((outputs, grads)))
    for name in FUSIONS[fusion].modalities:
        assert np.abs(grads[name]["projection"]["linear"]["kernel"]).max() > 0
    assert model.input_fields == tuple(
        field
        for name, fields in (
            ("audio", ("audio_features", "audio_features_mask")),
            ("video", ("face_features", "face_mask")),
        )
        if name in FUSIONS[fusion].modalities
        for field in fields
    )


def test_bfloat16_is_finite():
    model = make_model(dtype="bfloat16")
    params, state = init_model(model)
    outputs, _ = jax.jit(model.apply)(params, state, device_batch(model))
    assert outputs.audio_vector.dtype == jnp.bfloat16
    assert all(np.isfinite(np.asarray(leaf, np.float32)).all() for leaf in float_leaves(outputs))


def test_one_stream_of_features_beside_one_of_tensors():
    spec = InputSpec(163, 70, 4, 16, 16, 5, feature_steps=11, audio_features=9)
    config = default_model_config("concat", audio="features")
    config.video.update(width=4, blocks=(1,), embedding=8)
    model = build_model(config, spec)
    assert model.input_fields == ("audio_features", "audio_features_mask", "faces", "face_mask")
    outputs, _ = jax.jit(model.apply)(*init_model(model), model.fake_batch(2))
    assert np.isfinite(outputs.logits).all()
    assert model.fake_batch(2).face_features is None


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (
            lambda: make_model(spec=dataclasses.replace(SPEC, audio_features=0)),
            r"contain no audio features.* --audio_encoder",
        ),
        (
            lambda: make_model(spec=dataclasses.replace(SPEC, face_features=0)),
            r"contain no face features.* --face_encoder",
        ),
        (
            lambda: make_model(**{"video.activation": "relu"}),
            r"video\.activation: 'relu', expected one of tanh",
        ),
        (
            lambda: build_model(default_model_config("audio_only"), SPEC),
            r"audio\.encoder: reads audio, which the records do not hold",
        ),
        (
            lambda: build_model(default_model_config("video_only"), SPEC),
            r"video\.encoder: reads faces, which the records do not hold",
        ),
    ],
)
def test_what_does_not_fit_is_named(build, message):
    with pytest.raises(ValueError, match=message):
        build()


def test_a_batch_without_features_is_named():
    model = make_model()
    batch = dataclasses.replace(model.fake_batch(2), audio_features=None)
    with pytest.raises(ValueError, match=r"batch\.audio_features: NoneType, expected an array of shape"):
        model.apply(*init_model(model), batch)


def test_fake_features_are_valid_and_leave_other_fakes_alone():
    model = make_model(spec=dataclasses.replace(SPEC, t=163, h=16, w=16))
    batch = model.fake_batch(5, seed=2)
    length = batch.audio_features_mask.sum(1)
    assert length[0] == 11
    assert ((length > 0) & (length <= 11)).all()
    assert not batch.audio_features[~batch.audio_features_mask].any()
    assert not batch.face_features[~batch.face_mask].any()
    plain = build_model(default_model_config("audio_only"), InputSpec(163, 70, 4, 16, 16, 5)).fake_batch(
        5, seed=2
    )
    for name in ("audio", "faces", "label", "face_mask", "speaker"):
        np.testing.assert_array_equal(getattr(batch, name), getattr(plain, name))


@pytest.mark.parametrize("experiment", ["am_fbp", "lmf", "hgr", "video_only"])
def test_the_config_takes_an_experiment(experiment):
    from emofuse_jax import settings

    config = settings.with_features(experiment)
    shipped = settings.load_shipped(experiment)
    assert config.model.fusion == shipped.model.fusion
    assert config.loss == shipped.loss
    assert (config.model.audio.encoder, config.model.video.encoder) == ("features", "features")
    assert config.model.video.get("attention") == shipped.model.video.get("attention")
    assert config.data.recipe == "features"
    assert isinstance(config.model.audio, ConfigDict)
    assert config.name == ("features" if experiment == "am_fbp" else f"features_{experiment}")
    with pytest.raises(LookupError, match="no such shipped experiment"):
        settings.with_features("features")
