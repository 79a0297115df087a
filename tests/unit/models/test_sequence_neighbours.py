import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from emofuse_jax.models.fusions.bottleneck import BottleneckTransformer, time_encoding
from emofuse_jax.models.fusions.joint_cross_attention import JointCrossAttention
from emofuse_jax.models.interfaces import EncodedSequence, EncodedSequences
from emofuse_jax.models.layers.transformer import TransformerLayer
from tests.support.fusion_inputs import WIDTHS, build_fusion
from tests.support.small_models import small_config

RNG = np.random.default_rng(7)


def make_sequences(n=3, l_a=6, l_v=4, absent=()):
    encoded = {}
    for name, length in (("audio", l_a), ("video", l_v)):
        values = jnp.asarray(RNG.normal(size=(n, length, WIDTHS[name])), jnp.float32)
        mask = jnp.full((n, length), name not in absent)
        order = jnp.broadcast_to(jnp.arange(length), mask.shape)
        encoded[name] = EncodedSequence(values * mask[..., None], mask, order, jnp.full(n, length))
    return EncodedSequences(**encoded)


# Joint cross-attention


def test_an_absent_modality_gives_nothing_to_any_branch():
    fusion = build_fusion(JointCrossAttention, "joint_cross_attention", steps=3)
    fused = fusion(make_sequences(absent=("video",)), train=False, key=None)
    z, d_a, joint = np.asarray(fused.embedding), WIDTHS["audio"], sum(WIDTHS.values())
    assert np.all(z[:, d_a:joint] == 0)  # V'
    assert np.all(z[:, joint + d_a :] == 0)  # pooled V
    assert np.abs(z[:, :d_a]).min() > 0
    assert np.all(np.asarray(fused.aux["video_correlation"]) == 0)
    np.testing.assert_allclose(fused.aux["audio_attention"].sum(1), 1, atol=1e-5)
    assert np.all(np.asarray(fused.aux["video_attention"]) == 0)


def test_the_joint_branch_sees_the_other_modality():
    fusion = build_fusion(JointCrossAttention, "joint_cross_attention", steps=3)
    inputs = make_sequences()
    louder = inputs._replace(video=inputs.video._replace(values=inputs.video.values + 1.0))
    before, after = (np.asarray(fusion(s, train=False, key=None).embedding) for s in (inputs, louder))
    d_a, joint = WIDTHS["audio"], sum(WIDTHS.values())
    assert np.abs(before - after)[:, :d_a].max() > 1e-3  # A'
    np.testing.assert_allclose(before[:, joint : joint + d_a], after[:, joint : joint + d_a], atol=1e-6)


def test_joint_cross_attention_checks_its_steps():
    with pytest.raises(ValueError, match=r"fusion.steps: 0, expected at least 1"):
        build_fusion(JointCrossAttention, "joint_cross_attention", steps=0)


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
    attended = np.zeros_like(x)
    for h in range(layer.heads):
        columns = slice(h * e, (h + 1) * e)
        for q in range(len(x)):
            power = np.exp(key[:, columns] @ query[q, columns] / np.sqrt(e)) * mask
            attended[q, columns] = (power / power.sum()) @ value[:, columns]
    x = x + attended @ w["out"] + b["out"]
    return x + gelu(norm(x) @ w["up"] + b["up"]) @ w["down"] + b["down"]


def test_a_transformer_layer_equals_the_formula():
    layer = TransformerLayer(8, 2, 12, 0.5, jnp.float32, rngs=nnx.Rngs(0))
    x = RNG.normal(size=(2, 5, 8))
    mask = np.array([[1, 1, 0, 1, 0], [1, 1, 1, 1, 1]], bool)
    y, weights = layer(jnp.asarray(x, jnp.float32), jnp.asarray(mask), train=False, key=None)
    for row in range(2):
        np.testing.assert_allclose(y[row], layer_formula(x[row], mask[row], layer), rtol=1e-4, atol=1e-4)
    assert weights.shape == (2, 2, 5, 5)
    np.testing.assert_allclose(weights.sum(-1), 1, atol=1e-5)
    assert np.all(np.asarray(weights[0])[:, :, ~mask[0]] == 0)


def test_time_features_follow_relative_time_alone():
    short, long = jnp.arange(4)[None], jnp.array([[1, 4, 7, 10]])  # the middles of four parts of 4 and of 12
    encoded = [EncodedSequence(None, None, order, jnp.array([n])) for order, n in ((short, 4), (long, 12))]
    encodings = [time_encoding(sequence, jnp.float32) for sequence in encoded]
    np.testing.assert_allclose(*encodings, atol=1e-5)
    assert len(np.unique(np.asarray(encodings[0][0]).round(3), axis=0)) == 4


@pytest.mark.parametrize("layers", [1, 2])
def test_modalities_exchange_through_the_shared_tokens_alone(layers):
    """In one layer the shared tokens hear, in the next they tell: nothing passes in a single one."""
    fusion = build_fusion(BottleneckTransformer, "bottleneck", layers=layers, fusion_layer=0)
    inputs = make_sequences()
    louder = inputs._replace(video=inputs.video._replace(values=-inputs.video.values))
    width = small_config("bottleneck").fusion.width
    cls = [np.asarray(fusion(s, train=False, key=None).embedding)[:, :width] for s in (inputs, louder)]
    change = np.abs(cls[0] - cls[1]).max()
    assert change > 1e-6 if layers == 2 else change == 0


def test_an_absent_modality_has_no_say_in_the_bottleneck():
    fusion = build_fusion(BottleneckTransformer, "bottleneck")
    fused = fusion(make_sequences(absent=("video",)), train=False, key=None)
    width = small_config("bottleneck").fusion.width
    alone = fusion.audio.head(fused.embedding[:, :width], train=False, key=None)
    np.testing.assert_allclose(fused.logits, alone, atol=1e-6)
    assert np.all(np.asarray(fused.aux["bottleneck_video_attention"]) == 0)
    assert fused.aux["bottleneck_audio_attention"].shape == (3, 4, 6)
    total = np.asarray(fused.aux["bottleneck_audio_attention"]).sum(-1)
    assert np.all((total > 0.1) & (total < 1))  # the rest looks at CLS and the shared tokens


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"fusion_layer": 2}, r"fusion.fusion_layer: 2, expected at least 0 and below .*fusion.layers=2"),
        ({"heads": 3}, r"fusion.heads: 3 does not divide config.model.fusion.width=8"),
        ({"tokens": 0}, r"fusion.tokens: 0, expected at least 1"),
    ],
)
def test_the_bottleneck_checks_its_fields(fields, message):
    with pytest.raises(ValueError, match=message):
        build_fusion(BottleneckTransformer, "bottleneck", **fields)
