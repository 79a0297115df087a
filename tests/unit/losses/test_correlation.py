import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from ml_collections import ConfigDict

from emofuse_jax import losses
from emofuse_jax.losses.correlation import correlation_loss, repeat_label_features
from emofuse_jax.losses.orthogonality import cross_correlation_norm, orthogonality_loss
from emofuse_jax.models.fusions.hgr import CommonInformation
from emofuse_jax.models.interfaces import EncodedSequence, EncodedSequences
from emofuse_jax.settings.model import default_model_config
from emofuse_jax.types import Batch, Outputs
from tests.golden import formulas

RNG = np.random.default_rng(11)
B, L, D, C = 12, 4, 3, 5


def make_batch(b=B, **fields):
    """A batch of which nothing but labels and weights is looked at; some are hidden, one row is padding."""
    empty = dict.fromkeys(field.name for field in dataclasses.fields(Batch))
    label = RNG.integers(0, C, b).astype(np.int32)
    label[0] = 0  # the first class is there, and shown
    defaults = {
        "label": jnp.asarray(label),
        "label_mask": jnp.asarray(np.arange(b) % 3 != 1),
        "weight": jnp.ones(b).at[-1].set(0.0),
    }
    return Batch(**empty | defaults | fields)


def make_outputs(b=B, l=L, **fields):
    aux = {
        "audio_common": jnp.asarray(RNG.normal(size=(b, l, D)), jnp.float32),
        "video_common": jnp.asarray(RNG.normal(size=(b, l, D)), jnp.float32),
        "audio_common_mask": jnp.asarray(RNG.random((b, l)) < 0.8),
        "video_common_mask": jnp.asarray(RNG.random((b, l)) < 0.8),
        "label_features": jnp.asarray(RNG.normal(size=(C, D)), jnp.float32),
    }
    return Outputs(jnp.zeros((b, C)), jnp.zeros((b, 1)), None, None, aux | fields)


def term_rows(outputs, batch):
    """Rows of the three terms, gathered one segment at a time: (f, g), (f, h), (g, h)."""
    terms = [], [], []
    outputs, batch = jax.tree.map(np.asarray, (outputs, batch))
    for i in range(len(batch.weight)):
        h = np.asarray(outputs.aux["label_features"])[int(batch.label[i])]
        for j in range(outputs.aux["audio_common"].shape[1]):
            f, g = (np.asarray(outputs.aux[f"{n}_common"][i, j]) for n in ("audio", "video"))
            ok = [
                bool(outputs.aux[f"{n}_common_mask"][i, j]) and batch.weight[i] > 0
                for n in ("audio", "video")
            ]
            is_labelled = bool(batch.label_mask[i]) and batch.label[i] >= 0
            for term, pair, counts in zip(
                terms,
                ((f, g), (f, h), (g, h)),
                (all(ok), ok[0] and is_labelled, ok[1] and is_labelled),
                strict=True,
            ):
                if counts:
                    term.append(pair)
    return [[np.array(side) for side in zip(*term, strict=True)] for term in terms]


def test_equals_the_formula_over_the_segments_that_count():
    outputs, batch = make_outputs(), make_batch()
    expected = -sum(formulas.soft_hgr(*pair) for pair in term_rows(outputs, batch))
    total, width = correlation_loss(outputs, batch, ConfigDict())
    assert float(width) == D
    assert float(total) == pytest.approx(expected, abs=1e-4)
    loss, parts = losses.total_loss(
        outputs, batch, ConfigDict({"smoothing": 0.0, "objectives": {"correlation": 0.1}})
    )
    assert float(loss) == pytest.approx(0.1 / D * expected, abs=1e-5)
    assert float(parts["correlation"]) == pytest.approx(expected / D, abs=1e-5)


def test_a_hidden_label_has_no_features():
    """Nor has a clip without one, whatever its mask says."""
    table, label = jnp.ones((C, D)), jnp.array([1, 1, -1, 0])
    batch = make_batch(4, label=label, label_mask=jnp.array([True, False, True, True]))
    rows = repeat_label_features(table, batch, 2)
    np.testing.assert_array_equal(rows[:, 0], [1, 1, 0, 0, 0, 0, 0, 0])  # the last clip is padding


def test_a_clip_without_label_is_as_one_whose_label_is_hidden():
    outputs, batch = make_outputs(), make_batch()
    shown = dataclasses.replace(batch, label=jnp.where(batch.label_mask, batch.label, -1))
    unmasked = dataclasses.replace(shown, label_mask=jnp.ones(B, bool))
    np.testing.assert_allclose(
        correlation_loss(outputs, unmasked, ConfigDict())[0],
        correlation_loss(outputs, batch, ConfigDict())[0],
    )


def test_unlabelled_clips_give_the_streams_term_alone():
    outputs = make_outputs()
    batch = make_batch(label_mask=jnp.zeros(B, bool))
    total, _ = correlation_loss(outputs, batch, ConfigDict())
    assert float(total) == pytest.approx(-formulas.soft_hgr(*term_rows(outputs, batch)[0]), abs=1e-4)
    without = {k: v for k, v in outputs.aux.items() if k != "label_features"}
    same, _ = correlation_loss(dataclasses.replace(outputs, aux=without), make_batch(), ConfigDict())
    assert float(same) == pytest.approx(float(total), abs=1e-4)


def test_moving_covariances_stand_for_the_batch():
    c_f, c_g = (np.cov(RNG.normal(size=(20, D)).T).astype(np.float32) for _ in range(2))
    outputs, batch = (
        make_outputs(audio_covariance=jnp.asarray(c_f), video_covariance=jnp.asarray(c_g)),
        make_batch(),
    )
    terms = term_rows(outputs, batch)
    c_h = [np.cov(term[1].T) for term in terms[1:]]
    pairs = (c_f, c_g), (c_f, c_h[0]), (c_g, c_h[1])
    expected = 0.0
    for (x, y), (c_x, c_y) in zip(terms, pairs, strict=True):
        shared = ((x - x.mean(0)) * (y - y.mean(0))).sum() / (len(x) - 1)
        expected -= shared - 0.5 * np.trace(c_x @ c_y)
    assert float(correlation_loss(outputs, batch, ConfigDict())[0]) == pytest.approx(expected, abs=1e-4)


def test_hidden_labels_and_masked_features_change_nothing_bit_for_bit():
    outputs, batch = make_outputs(), make_batch()

    @jax.jit
    def score(outputs, batch):
        return jax.value_and_grad(
            lambda aux: correlation_loss(dataclasses.replace(outputs, aux=aux), batch, ConfigDict())[0],
            allow_int=True,
        )(outputs.aux)

    hidden = ~np.asarray(batch.label_mask)
    value, gradient = score(outputs, batch)
    for label in (np.full(B, -1), RNG.integers(0, C, B)):
        other = jnp.asarray(np.where(hidden, label, batch.label), jnp.int32)
        same, slope = score(outputs, dataclasses.replace(batch, label=other))
        assert same == value
        for name in ("audio_common", "video_common", "label_features"):
            np.testing.assert_array_equal(slope[name], gradient[name])
    masked = jnp.where(outputs.aux["audio_common_mask"][..., None], outputs.aux["audio_common"], jnp.nan)
    outputs = dataclasses.replace(outputs, aux=outputs.aux | {"audio_common": masked})
    same, slope = score(outputs, batch)
    assert same == value
    np.testing.assert_array_equal(slope["audio_common"], gradient["audio_common"])
    other_labels = dataclasses.replace(batch, label=(batch.label + 1) % C)
    assert score(outputs, other_labels)[0] != value


@pytest.mark.parametrize("missing", ["audio_common_mask", "video_common_mask", "both", "weight"])
def test_finite_without_a_modality_or_a_clip(missing):
    empty = {name: jnp.zeros((B, L), bool) for name in ("audio_common_mask", "video_common_mask")}
    outputs = make_outputs(**{k: v for k, v in empty.items() if missing in (k, "both")})
    batch = make_batch(weight=jnp.zeros(B)) if missing == "weight" else make_batch()

    def loss(aux):
        return correlation_loss(dataclasses.replace(outputs, aux=aux), batch, ConfigDict())[0]

    value, gradient = jax.jit(jax.value_and_grad(loss, allow_int=True))(outputs.aux)
    assert np.isfinite(value)
    for name in ("audio_common", "video_common", "label_features"):
        assert np.all(np.isfinite(gradient[name]))
    if missing in ("both", "weight"):
        assert value == 0


def test_one_device_and_eight_agree_on_the_whole_fusion():
    config = default_model_config("hgr").fusion
    config.update({"segments": L, "width": D, "hidden": 6, "ema": 0.5, "head_dropout": 0.0})
    network = CommonInformation(4, 4, C, config, jnp.float32, rngs=nnx.Rngs(0))
    graphdef, *variables = nnx.split(network, nnx.Param, ...)
    params, state = map(nnx.to_pure_dict, variables)
    b = 16
    batch = make_batch(b, weight=jnp.ones(b).at[:5].set(0.0))  # uneven over the devices
    loss_config = ConfigDict(
        {"smoothing": 0.0, "objectives": {"cross_entropy": 1.0, "levels": 1.0, "correlation": 0.1}}
    )

    def random_stream():
        order = jnp.broadcast_to(jnp.arange(L), (b, L))
        values = jnp.asarray(RNG.normal(size=(b, L, 4)), jnp.float32)
        return EncodedSequence(values, jnp.asarray(RNG.random((b, L)) < 0.8), order, jnp.full(b, L))

    @jax.jit
    def step(params, state, inputs, batch):
        def objective(params):
            merged = nnx.merge(graphdef, params, state)
            fused = merged(inputs, train=True, key=jax.random.key(0))
            outputs = Outputs(fused.logits, fused.embedding, None, None, fused.aux)
            new_state = nnx.to_pure_dict(nnx.split(merged, nnx.Param, ...)[2])
            return losses.total_loss(outputs, batch, loss_config)[0], new_state

        return jax.value_and_grad(objective, has_aux=True)(params)

    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    sharded, replicated = NamedSharding(mesh, PartitionSpec("data")), NamedSharding(mesh, PartitionSpec())
    inputs = EncodedSequences(random_stream(), random_stream())
    eight = step(*jax.device_put((params, state), replicated), *jax.device_put((inputs, batch), sharded))
    one = step(params, state, inputs, batch)
    for x, y in zip(jax.tree.leaves(one), jax.tree.leaves(eight), strict=True):
        np.testing.assert_allclose(x, y, atol=1e-5, rtol=1e-4)


def add_private_features(outputs):
    private_features = {
        n: jnp.asarray(RNG.normal(size=(B, L, D)), jnp.float32) for n in ("audio_private", "video_private")
    }
    return dataclasses.replace(outputs, aux=outputs.aux | private_features)


def test_orthogonality_equals_the_formula():
    outputs, batch = add_private_features(make_outputs()), make_batch()
    aux = {k: np.asarray(v) for k, v in outputs.aux.items()}
    expected = 0.0
    for x, y in (
        ("audio_common", "audio_private"),
        ("video_common", "video_private"),
        ("audio_private", "video_private"),
    ):
        ok = (
            aux[f"{x[:5]}_common_mask"]
            & aux[f"{y[:5]}_common_mask"]
            & (np.asarray(batch.weight) > 0)[:, None]
        )
        p, q = aux[x][ok] - aux[x][ok].mean(0), aux[y][ok] - aux[y][ok].mean(0)
        product = np.zeros((D, D))
        for one, other in zip(p, q, strict=True):
            product += np.outer(one / np.linalg.norm(one), other / np.linalg.norm(other)) / len(p)
        expected += np.linalg.norm(product) ** 2
    total, count = orthogonality_loss(outputs, batch, ConfigDict())
    assert float(count) == 3
    assert float(total) == pytest.approx(expected, abs=1e-5)


def test_the_cross_product_is_between_nothing_and_one():
    x = jnp.asarray(RNG.choice([-1.0, 1.0], size=(64, 1)), jnp.float32)
    x = x - x.mean()
    weight = jnp.ones(64)
    assert float(cross_correlation_norm(x, -x, weight)) == pytest.approx(1.0, abs=1e-4)
    apart = [jnp.asarray(np.tile(p, 16)[:, None], jnp.float32) for p in ([1.0, 1, -1, -1], [1.0, -1, 1, -1])]
    assert float(cross_correlation_norm(*apart, weight)) == pytest.approx(0.0, abs=1e-6)
    value, gradient = jax.value_and_grad(cross_correlation_norm)(
        jnp.zeros((4, 2)), jnp.zeros((4, 2)), jnp.zeros(4)
    )
    assert value == 0
    assert np.all(np.asarray(gradient) == 0)


def test_few_rows_and_parts_of_rows_count_as_they_weigh():
    """Two rows are opposite when centred, whatever they weigh; what does not count may be anything."""
    rows = jnp.asarray([[1.0, 2.0], [3.0, -1.0], [np.nan, np.inf]])
    weight = jnp.array([0.75, 0.75, 0.0])
    assert float(cross_correlation_norm(rows, rows, weight)) == pytest.approx(1.0, abs=1e-4)


def test_pairs_of_which_nothing_counts_are_not_counted():
    outputs, batch = add_private_features(make_outputs()), make_batch()
    total, count = orthogonality_loss(outputs, dataclasses.replace(batch, weight=jnp.zeros(B)), ConfigDict())
    assert (float(total), float(count)) == (0.0, 0.0)
    full_masks = {f"{n}_common_mask": jnp.ones((B, L), bool) for n in ("audio", "video")}
    full_outputs = dataclasses.replace(outputs, aux=outputs.aux | full_masks)
    assert (
        orthogonality_loss(full_outputs, dataclasses.replace(batch, weight=jnp.ones(B)), ConfigDict())[1] == 3
    )


@pytest.mark.parametrize(
    ("objective", "message"),
    [(correlation_loss, "common features"), (orthogonality_loss, "private features")],
)
def test_a_fusion_without_such_features_is_named(objective, message):
    with pytest.raises(ValueError, match=message):
        objective(Outputs(jnp.zeros((B, C)), jnp.zeros((B, 1)), None, None, {}), make_batch(), ConfigDict())
