import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from emofuse_jax.models.absent import StandIns
from emofuse_jax.models.fusions.bottleneck import BottleneckTransformer, time_features
from emofuse_jax.models.fusions.f_score import FScore, f_scores
from emofuse_jax.models.fusions.joint_cross_attention import JointCrossAttention
from emofuse_jax.models.fusions.mfh import MFH
from emofuse_jax.models.streams import Sequence, Sequences, Streams
from emofuse_jax.models.transformer import TransformerLayer
from tests.models.fusion_inputs import CLASSES, WIDTHS, random_inputs, small_fusion, still
from tests.models.small import small_config

RNG = np.random.default_rng(7)


def sequences(n=3, l_a=6, l_v=4, absent=()):
    made = {}
    for name, length in (("audio", l_a), ("video", l_v)):
        values = jnp.asarray(RNG.normal(size=(n, length, WIDTHS[name])), jnp.float32)
        mask = jnp.full((n, length), name not in absent)
        order = jnp.broadcast_to(jnp.arange(length), mask.shape)
        made[name] = Sequence(values * mask[..., None], mask, order, jnp.full(n, length))
    return Sequences(**made)


def build(fusion, name, **fields):
    config = small_config(name).fusion
    config.update(fields)
    return fusion(*WIDTHS.values(), CLASSES, config, jnp.float32, rngs=nnx.Rngs(0))


# Stand-ins for an absent modality


def test_a_stand_in_is_seen_only_where_the_modality_is_absent():
    module = StandIns(3, 2)
    module.audio[...] = jnp.array([5.0, 6.0, 7.0])
    audio, video = jnp.ones((2, 1, 3)) * 0.5, jnp.ones((2, 1, 2))
    ok_a, ok_v = jnp.array([[True], [False]]), jnp.array([[False], [True]])
    a, v = module(Streams(audio, ok_a, video, ok_v))
    np.testing.assert_array_equal(a, [[0.5] * 3, [5, 6, 7]])
    np.testing.assert_array_equal(v, np.ones((2, 2)))

    def total(module):
        return sum(x.sum() for x in module(Streams(audio, ok_a, video, ok_v)))

    gradient = nnx.grad(total)(module)
    np.testing.assert_array_equal(gradient.audio[...], 1)
    np.testing.assert_array_equal(gradient.video[...], 1)


def separable(n, seed):
    """Each stream alone tells the class; a third of the clips lacks the sound, a third the faces."""
    rng = np.random.default_rng(seed)
    label, lacks = rng.integers(0, CLASSES, n), rng.integers(0, 3, n)
    fields = []
    for i, d in enumerate(WIDTHS.values()):
        ok, centres = lacks != i + 1, np.random.default_rng(i).normal(size=(CLASSES, d))
        vectors = (centres[label] + 0.3 * rng.normal(size=(n, d))) * ok[:, None]
        fields += [jnp.asarray(vectors, jnp.float32)[:, None], jnp.asarray(ok)[:, None]]
    return Streams(*fields), jnp.asarray(label)


@pytest.mark.parametrize("name", ["g_fbp", "mfb", "mfh", "lmf"])
def test_with_modality_dropout_one_stream_alone_still_decides(name):
    params, state, apply = small_fusion(name, **still(name))
    streams, label = separable(256, 0)
    tx = optax.adam(1e-2)

    @jax.jit
    def step(params, opt_state):
        def loss(params):
            logits = apply(params, state, streams).logits
            return optax.softmax_cross_entropy_with_integer_labels(logits, label).mean()

        updates, opt_state = tx.update(jax.grad(loss)(params), opt_state)
        return optax.apply_updates(params, updates), opt_state

    opt_state = tx.init(params)
    for _ in range(100):
        params, opt_state = step(params, opt_state)
    streams, label = separable(300, 1)
    right = apply(params, state, streams).logits.argmax(-1) == label
    only_audio = streams.audio_ok[:, 0] & ~streams.video_ok[:, 0]
    only_video = streams.video_ok[:, 0] & ~streams.audio_ok[:, 0]
    for rows in (only_audio, only_video):
        assert right[rows].mean() > 0.8  # chance is 0.2


def test_mfh_checks_its_blocks():
    with pytest.raises(ValueError, match=r"fusion.blocks: 0, expected at least 1"):
        build(MFH, "mfh", blocks=0)


# Decision fusion by F scores


def f_score_fusion(weights):
    fusion = build(FScore, "f_score")
    fusion.class_weights[...] = jnp.asarray(weights, jnp.float32)
    return fusion


def test_f_scores_equal_the_formula():
    probabilities = RNG.dirichlet(np.ones(4), 50)
    labels = RNG.integers(0, 3, 50)  # nobody is of class 3
    found = f_scores(probabilities, labels)
    for c in range(4):
        guess = probabilities.argmax(1) == c
        hits = (guess & (labels == c)).sum()
        precision = hits / max(guess.sum(), 1)
        recall = hits / max((labels == c).sum(), 1)
        expected = 2 * precision * recall / (precision + recall) if hits else 0.0
        assert found[c] == pytest.approx(expected)
    assert np.array_equal(f_scores(np.zeros((0, 4)), np.zeros(0, int)), np.zeros(4))


def test_posteriors_are_weighed_by_the_f_of_the_streams_that_are_there():
    weights = RNG.uniform(0.1, 1, (2, CLASSES))
    fusion, streams = f_score_fusion(weights), random_inputs("f_score")  # 1 lacks sound, 2 faces
    fused = fusion(streams, None)
    p = np.stack(
        [
            jax.nn.softmax(fusion.audio_head(streams.audio[:, 0], None)),
            jax.nn.softmax(fusion.video_head(streams.video[:, 0], None)),
        ],
        axis=1,
    )
    ok = np.stack([streams.audio_ok[:, 0], streams.video_ok[:, 0]], axis=1)
    mass = p * weights * ok[..., None]
    expected = mass.sum(1) / mass.sum((1, 2), keepdims=True)[:, 0]
    np.testing.assert_allclose(jax.nn.softmax(fused.logits), expected, atol=1e-5)
    shares = mass.sum(2) / mass.sum((1, 2))[:, None]
    np.testing.assert_allclose(fused.aux["modality_weights"], shares, atol=1e-5)
    np.testing.assert_allclose(fused.aux["class_weights"][0], weights, atol=1e-6)


def test_a_class_that_nobody_knows_keeps_a_finite_answer():
    fusion, streams = f_score_fusion(np.zeros((2, CLASSES))), random_inputs("f_score")
    late = jax.nn.softmax(f_score_fusion(np.ones((2, CLASSES)))(streams, None).logits)
    np.testing.assert_allclose(jax.nn.softmax(fusion(streams, None).logits), late, atol=1e-5)


# Joint cross-attention


def test_an_absent_modality_gives_nothing_to_any_branch():
    fusion = build(JointCrossAttention, "joint_cross_attention", steps=3)
    fused = fusion(sequences(absent=("video",)), None)
    z, d_a, joint = np.asarray(fused.embedding), WIDTHS["audio"], sum(WIDTHS.values())
    assert np.all(z[:, d_a:joint] == 0)  # V'
    assert np.all(z[:, joint + d_a :] == 0)  # pooled V
    assert np.abs(z[:, :d_a]).min() > 0
    assert np.all(np.asarray(fused.aux["video_correlation"]) == 0)
    np.testing.assert_allclose(fused.aux["audio_attention"].sum(1), 1, atol=1e-5)
    assert np.all(np.asarray(fused.aux["video_attention"]) == 0)


def test_the_joint_branch_sees_the_other_modality():
    fusion = build(JointCrossAttention, "joint_cross_attention", steps=3)
    given = sequences()
    louder = given._replace(video=given.video._replace(values=given.video.values + 1.0))
    before, after = (np.asarray(fusion(s, None).embedding) for s in (given, louder))
    d_a, joint = WIDTHS["audio"], sum(WIDTHS.values())
    assert np.abs(before - after)[:, :d_a].max() > 1e-3  # A'
    np.testing.assert_allclose(before[:, joint : joint + d_a], after[:, joint : joint + d_a], atol=1e-6)


def test_joint_cross_attention_checks_its_steps():
    with pytest.raises(ValueError, match=r"fusion.steps: 0, expected at least 1"):
        build(JointCrossAttention, "joint_cross_attention", steps=0)


# The bottleneck transformer


def layer_formula(x, mask, layer):
    """Pre-norm attention and MLP, one token and one head at a time."""
    names = ("qkv", "out", "up", "down")
    w = {name: np.asarray(getattr(layer, name).kernel[...], np.float64) for name in names}
    b = {name: np.asarray(getattr(layer, name).bias[...], np.float64) for name in w}

    def norm(rows):
        return (rows - rows.mean(-1, keepdims=True)) / np.sqrt(rows.var(-1, keepdims=True) + 1e-6)

    def gelu(v):
        return 0.5 * v * (1 + np.tanh(np.sqrt(2 / np.pi) * (v + 0.044715 * v**3)))

    d = x.shape[1]
    e = d // layer.heads
    query, key, value = np.split(norm(x) @ w["qkv"] + b["qkv"], 3, axis=1)
    seen = np.zeros_like(x)
    for h in range(layer.heads):
        at = slice(h * e, (h + 1) * e)
        for q in range(len(x)):
            power = np.exp(key[:, at] @ query[q, at] / np.sqrt(e)) * mask
            seen[q, at] = (power / power.sum()) @ value[:, at]
    x = x + seen @ w["out"] + b["out"]
    return x + gelu(norm(x) @ w["up"] + b["up"]) @ w["down"] + b["down"]


def test_a_transformer_layer_equals_the_formula():
    layer = TransformerLayer(8, 2, 12, 0.5, jnp.float32, rngs=nnx.Rngs(0))
    x = RNG.normal(size=(2, 5, 8))
    mask = np.array([[1, 1, 0, 1, 0], [1, 1, 1, 1, 1]], bool)
    y, weights = layer(jnp.asarray(x, jnp.float32), jnp.asarray(mask), None)
    for row in range(2):
        np.testing.assert_allclose(y[row], layer_formula(x[row], mask[row], layer), rtol=1e-4, atol=1e-4)
    assert weights.shape == (2, 2, 5, 5)
    np.testing.assert_allclose(weights.sum(-1), 1, atol=1e-5)
    assert np.all(np.asarray(weights[0])[:, :, ~mask[0]] == 0)


def test_time_features_follow_relative_time_alone():
    short, long = jnp.arange(4)[None], jnp.array([[1, 4, 7, 10]])  # the middles of four parts of 4 and of 12
    given = [Sequence(None, None, order, jnp.array([n])) for order, n in ((short, 4), (long, 12))]
    at = [time_features(sequence, jnp.float32) for sequence in given]
    np.testing.assert_allclose(*at, atol=1e-5)
    assert len(np.unique(np.asarray(at[0][0]).round(3), axis=0)) == 4


@pytest.mark.parametrize("layers", [1, 2])
def test_modalities_exchange_through_the_shared_tokens_alone(layers):
    """In one layer the shared tokens hear, in the next they tell: nothing passes in a single one."""
    fusion = build(BottleneckTransformer, "bottleneck", layers=layers, fusion_layer=0)
    given = sequences()
    louder = given._replace(video=given.video._replace(values=-given.video.values))
    width = small_config("bottleneck").fusion.width
    cls = [np.asarray(fusion(s, None).embedding)[:, :width] for s in (given, louder)]
    change = np.abs(cls[0] - cls[1]).max()
    assert change > 1e-6 if layers == 2 else change == 0


def test_an_absent_modality_has_no_say_in_the_bottleneck():
    fusion = build(BottleneckTransformer, "bottleneck")
    fused = fusion(sequences(absent=("video",)), None)
    width = small_config("bottleneck").fusion.width
    alone = fusion.audio.head(fused.embedding[:, :width], None)
    np.testing.assert_allclose(fused.logits, alone, atol=1e-6)
    assert np.all(np.asarray(fused.aux["bottleneck_video_attention"]) == 0)
    assert fused.aux["bottleneck_audio_attention"].shape == (3, 4, 6)
    total = np.asarray(fused.aux["bottleneck_audio_attention"]).sum(-1)
    assert np.all((total > 0.1) & (total < 1))  # the rest looks at CLS and the shared tokens


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"fusion_layer": 2}, r"fusion.fusion_layer: 2, expected at least 0 and below fusion.layers=2"),
        ({"heads": 3}, r"fusion.heads: 3 does not divide fusion.width=8"),
        ({"tokens": 0}, r"fusion.tokens: 0, expected at least 1"),
    ],
)
def test_the_bottleneck_checks_its_fields(fields, message):
    with pytest.raises(ValueError, match=message):
        build(BottleneckTransformer, "bottleneck", **fields)
