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


def clips(b=B, **fields):
    """A batch of which nothing but labels and weights is looked at; some are hidden, one row is padding."""
    empty = dict.fromkeys(field.name for field in dataclasses.fields(Batch))
    label = RNG.integers(0, C, b).astype(np.int32)
    label[0] = 0  # the first class is there, and shown
    made = {
        "label": jnp.asarray(label),
        "label_mask": jnp.asarray(np.arange(b) % 3 != 1),
        "weight": jnp.ones(b).at[-1].set(0.0),
    }
    return Batch(**empty | made | fields)


def outputs(b=B, l=L, **fields):
    aux = {
        "audio_common": jnp.asarray(RNG.normal(size=(b, l, D)), jnp.float32),
        "video_common": jnp.asarray(RNG.normal(size=(b, l, D)), jnp.float32),
        "audio_common_mask": jnp.asarray(RNG.random((b, l)) < 0.8),
        "video_common_mask": jnp.asarray(RNG.random((b, l)) < 0.8),
        "label_features": jnp.asarray(RNG.normal(size=(C, D)), jnp.float32),
    }
    return Outputs(jnp.zeros((b, C)), jnp.zeros((b, 1)), None, None, aux | fields)


def rows_of(answer, batch):
    """Rows of the three terms, gathered one segment at a time: (f, g), (f, h), (g, h)."""
    terms = [], [], []
    answer, batch = jax.tree.map(np.asarray, (answer, batch))
    for i in range(len(batch.weight)):
        h = np.asarray(answer.aux["label_features"])[int(batch.label[i])]
        for j in range(answer.aux["audio_common"].shape[1]):
            f, g = (np.asarray(answer.aux[f"{n}_common"][i, j]) for n in ("audio", "video"))
            ok = [
                bool(answer.aux[f"{n}_common_mask"][i, j]) and batch.weight[i] > 0 for n in ("audio", "video")
            ]
            shown = bool(batch.label_mask[i]) and batch.label[i] >= 0
            for term, pair, counts in zip(
                terms, ((f, g), (f, h), (g, h)), (all(ok), ok[0] and shown, ok[1] and shown), strict=True
            ):
                if counts:
                    term.append(pair)
    return [[np.array(side) for side in zip(*term, strict=True)] for term in terms]


def test_equals_the_formula_over_the_segments_that_count():
    answer, batch = outputs(), clips()
    expected = -sum(formulas.soft_hgr(*pair) for pair in rows_of(answer, batch))
    total, width = correlation_loss(answer, batch, None)
    assert float(width) == D
    assert float(total) == pytest.approx(expected, abs=1e-4)
    loss, parts = losses.total_loss(
        answer, batch, ConfigDict({"smoothing": 0.0, "objectives": {"correlation": 0.1}})
    )
    assert float(loss) == pytest.approx(0.1 / D * expected, abs=1e-5)
    assert float(parts["correlation"]) == pytest.approx(expected / D, abs=1e-5)


def test_a_hidden_label_has_no_features():
    """Nor has a clip without one, whatever its mask says."""
    table, label = jnp.ones((C, D)), jnp.array([1, 1, -1, 0])
    batch = clips(4, label=label, label_mask=jnp.array([True, False, True, True]))
    rows = repeat_label_features(table, batch, 2)
    np.testing.assert_array_equal(rows[:, 0], [1, 1, 0, 0, 0, 0, 0, 0])  # the last clip is padding


def test_a_clip_without_label_is_as_one_whose_label_is_hidden():
    answer, batch = outputs(), clips()
    shown = dataclasses.replace(batch, label=jnp.where(batch.label_mask, batch.label, -1))
    unmasked = dataclasses.replace(shown, label_mask=jnp.ones(B, bool))
    np.testing.assert_allclose(
        correlation_loss(answer, unmasked, None)[0], correlation_loss(answer, batch, None)[0]
    )


def test_unlabelled_clips_give_the_streams_term_alone():
    answer = outputs()
    batch = clips(label_mask=jnp.zeros(B, bool))
    total, _ = correlation_loss(answer, batch, None)
    assert float(total) == pytest.approx(-formulas.soft_hgr(*rows_of(answer, batch)[0]), abs=1e-4)
    without = {k: v for k, v in answer.aux.items() if k != "label_features"}
    same, _ = correlation_loss(dataclasses.replace(answer, aux=without), clips(), None)
    assert float(same) == pytest.approx(float(total), abs=1e-4)


def test_moving_covariances_stand_for_the_batch():
    c_f, c_g = (np.cov(RNG.normal(size=(20, D)).T).astype(np.float32) for _ in range(2))
    answer, batch = outputs(audio_covariance=jnp.asarray(c_f), video_covariance=jnp.asarray(c_g)), clips()
    terms = rows_of(answer, batch)
    c_h = [np.cov(term[1].T) for term in terms[1:]]
    pairs = (c_f, c_g), (c_f, c_h[0]), (c_g, c_h[1])
    expected = 0.0
    for (x, y), (c_x, c_y) in zip(terms, pairs, strict=True):
        shared = ((x - x.mean(0)) * (y - y.mean(0))).sum() / (len(x) - 1)
        expected -= shared - 0.5 * np.trace(c_x @ c_y)
    assert float(correlation_loss(answer, batch, None)[0]) == pytest.approx(expected, abs=1e-4)


def test_hidden_labels_and_masked_features_change_nothing_bit_for_bit():
    answer, batch = outputs(), clips()

    @jax.jit
    def score(answer, batch):
        return jax.value_and_grad(
            lambda aux: correlation_loss(dataclasses.replace(answer, aux=aux), batch, None)[0], allow_int=True
        )(answer.aux)

    hidden = ~np.asarray(batch.label_mask)
    value, gradient = score(answer, batch)
    for label in (np.full(B, -1), RNG.integers(0, C, B)):
        other = jnp.asarray(np.where(hidden, label, batch.label), jnp.int32)
        same, slope = score(answer, dataclasses.replace(batch, label=other))
        assert same == value
        for name in ("audio_common", "video_common", "label_features"):
            np.testing.assert_array_equal(slope[name], gradient[name])
    masked = jnp.where(answer.aux["audio_common_mask"][..., None], answer.aux["audio_common"], jnp.nan)
    answer = dataclasses.replace(answer, aux=answer.aux | {"audio_common": masked})
    same, slope = score(answer, batch)
    assert same == value
    np.testing.assert_array_equal(slope["audio_common"], gradient["audio_common"])
    shown = dataclasses.replace(batch, label=(batch.label + 1) % C)
    assert score(answer, shown)[0] != value


@pytest.mark.parametrize("missing", ["audio_common_mask", "video_common_mask", "both", "weight"])
def test_finite_without_a_modality_or_a_clip(missing):
    empty = {name: jnp.zeros((B, L), bool) for name in ("audio_common_mask", "video_common_mask")}
    answer = outputs(**{k: v for k, v in empty.items() if missing in (k, "both")})
    batch = clips(weight=jnp.zeros(B)) if missing == "weight" else clips()

    def loss(aux):
        return correlation_loss(dataclasses.replace(answer, aux=aux), batch, None)[0]

    value, gradient = jax.jit(jax.value_and_grad(loss, allow_int=True))(answer.aux)
    assert np.isfinite(value)
    for name in ("audio_common", "video_common", "label_features"):
        assert np.all(np.isfinite(gradient[name]))
    if missing in ("both", "weight"):
        assert value == 0


def test_one_device_and_eight_agree_on_the_whole_fusion():
    config = default_model_config("hgr").fusion
    config.update({"segments": L, "width": D, "hidden": 6, "ema": 0.5, "head_dropout": 0.0})
    network = CommonInformation(4, 4, C, config, jnp.float32, rngs=nnx.Rngs(0))
    graphdef, *numbers = nnx.split(network, nnx.Param, ...)
    params, state = map(nnx.to_pure_dict, numbers)
    b = 16
    batch = clips(b, weight=jnp.ones(b).at[:5].set(0.0))  # uneven over the devices
    loss_config = ConfigDict(
        {"smoothing": 0.0, "objectives": {"cross_entropy": 1.0, "levels": 1.0, "correlation": 0.1}}
    )

    def stream():
        order = jnp.broadcast_to(jnp.arange(L), (b, L))
        values = jnp.asarray(RNG.normal(size=(b, L, 4)), jnp.float32)
        return EncodedSequence(values, jnp.asarray(RNG.random((b, L)) < 0.8), order, jnp.full(b, L))

    @jax.jit
    def step(params, state, given, batch):
        def objective(params):
            merged = nnx.merge(graphdef, params, state)
            fused = merged(given, jax.random.key(0))
            answer = Outputs(fused.logits, fused.embedding, None, None, fused.aux)
            moved = nnx.to_pure_dict(nnx.split(merged, nnx.Param, ...)[2])
            return losses.total_loss(answer, batch, loss_config)[0], moved

        return jax.value_and_grad(objective, has_aux=True)(params)

    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    rows, whole = NamedSharding(mesh, PartitionSpec("data")), NamedSharding(mesh, PartitionSpec())
    given = EncodedSequences(stream(), stream())
    eight = step(*jax.device_put((params, state), whole), *jax.device_put((given, batch), rows))
    one = step(params, state, given, batch)
    for x, y in zip(jax.tree.leaves(one), jax.tree.leaves(eight), strict=True):
        np.testing.assert_allclose(x, y, atol=1e-5, rtol=1e-4)


def private(answer):
    more = {
        n: jnp.asarray(RNG.normal(size=(B, L, D)), jnp.float32) for n in ("audio_private", "video_private")
    }
    return dataclasses.replace(answer, aux=answer.aux | more)


def test_orthogonality_equals_the_formula():
    answer, batch = private(outputs()), clips()
    aux = {k: np.asarray(v) for k, v in answer.aux.items()}
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
    total, count = orthogonality_loss(answer, batch, None)
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
    answer, batch = private(outputs()), clips()
    total, count = orthogonality_loss(answer, dataclasses.replace(batch, weight=jnp.zeros(B)), None)
    assert (float(total), float(count)) == (0.0, 0.0)
    whole = {f"{n}_common_mask": jnp.ones((B, L), bool) for n in ("audio", "video")}
    every = dataclasses.replace(answer, aux=answer.aux | whole)
    assert orthogonality_loss(every, dataclasses.replace(batch, weight=jnp.ones(B)), None)[1] == 3


@pytest.mark.parametrize(
    ("objective", "message"),
    [(correlation_loss, "common features"), (orthogonality_loss, "private features")],
)
def test_a_fusion_without_such_features_is_named(objective, message):
    with pytest.raises(ValueError, match=message):
        objective(Outputs(jnp.zeros((B, C)), jnp.zeros((B, 1)), None, None, {}), clips(), None)
