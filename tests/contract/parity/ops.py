"""Our ops under the names of the peers' cases: a dict of arrays to a dict of arrays."""

import jax.numpy as jnp

from emofuse_jax.ops import attention, metric_learning
from emofuse_jax.ops.bilinear import factorized_bilinear_pooling
from emofuse_jax.ops.conv3d import conv3d
from emofuse_jax.ops.cross_attention import cross_attention
from emofuse_jax.ops.hgr import moving_covariance, soft_hgr
from emofuse_jax.ops.joint_attention import joint_correlation, reweight
from emofuse_jax.ops.lmf import low_rank_fusion
from emofuse_jax.ops.lrn import local_response_norm
from emofuse_jax.ops.mfb import mfb, mfh
from emofuse_jax.ops.multi_head import multi_head_attention


def count_factors(a):
    return {"factors": a["u"].shape[1] // 3}


def fbp(**options):
    return lambda a: {"z": factorized_bilinear_pooling(**a, **count_factors(a), **options)}


def mfh_cascade(a):
    us, vs = ([a[f"{k}{i}"] for i in ("", 2, 3)] for k in "uv")
    return {"z": mfh(a["x"], a["y"], us, vs, **count_factors(a))}


def low_rank_from_arrays(a):
    xs, ws = (tuple(a[f"{k}_{m}"] for m in "avt") for k in "xw")
    return {"h": low_rank_fusion(xs, ws, a["weights"], a["bias"])}


def attention_pool(frames, scores, mask):
    c, alpha = attention.attention_pool(frames, scores, mask)
    return {"c": c, "alpha": alpha}


def additive_attention(frames, mask, w, b, u):
    return attention_pool(frames, jnp.tanh(frames @ w + b) @ u, mask)


def output_and_weights(function):
    return lambda a: dict(zip(("f", "weights"), function(**a), strict=True))


def joint_attention(features, joint, kernel, mask):
    c = joint_correlation(features, joint, kernel)
    return {"c": c, "x": reweight(c, features, mask)}


def moving_soft_hgr(f, g, s_f, s_g):
    """After two earlier batches, at a decay of .9."""
    c_f, s_f, _ = moving_covariance(f, None, s_f, jnp.float32(2), decay=0.9)
    c_g, s_g, _ = moving_covariance(g, None, s_g, jnp.float32(2), decay=0.9)
    return {"h": soft_hgr(f, g, covariances=(c_f, c_g)), "s_f": s_f, "s_g": s_g}


def multi_head_from_arrays(x, mask, qkv, qkv_bias, out, out_bias):
    query, key, value = jnp.split(x @ qkv.T + qkv_bias, 3, axis=-1)
    y, weights = multi_head_attention(query, key, value, mask, heads=2)
    return {"y": y @ out.T + out_bias, "weights": weights}


def sum_and_weight(function):
    return lambda a: dict(zip(("sum", "weight"), function(**a), strict=True))


OURS = {
    "fbp": fbp(),
    "fbp_power": fbp(power_norm=True),
    "fbp_biased": fbp(),
    "fbp_biased_power": fbp(power_norm=True),
    "fbp_unnormalised": fbp(normalize=False),
    "mfb": lambda a: {"z": mfb(**a, **count_factors(a))},
    "mfh": mfh_cascade,
    "lmf": low_rank_from_arrays,
    "lrn": lambda a: {"y": local_response_norm(a["x"])},
    "lrn_wide": lambda a: {"y": local_response_norm(a["x"], size=7, kappa=1.0, alpha=0.01, beta=0.5)},
    "soft_hgr": lambda a: {"h": soft_hgr(**a)},
    "soft_hgr_padded": lambda a: {"h": soft_hgr(**a)},
    "attention_pool": lambda a: attention_pool(**a),
    "additive_attention": lambda a: additive_attention(**a),
    "self_frames": output_and_weights(attention.self_frame_attention),
    "relation_frames": output_and_weights(attention.relation_frame_attention),
    "transformer_frames": lambda a: {"f": attention.transformer_frame_attention(**a)[0]},
    "soft_hgr_moving": lambda a: moving_soft_hgr(**a),
    "multi_head": lambda a: multi_head_from_arrays(**a),
    "cross_attention": lambda a: cross_attention(**a)._asdict(),
    "batch_hard_triplet": sum_and_weight(metric_learning.batch_hard_triplet),
    "adaptive_margin_triplet": sum_and_weight(metric_learning.adaptive_margin_triplet),
    "polarity_cross_entropy": sum_and_weight(metric_learning.polarity_cross_entropy),
    "conv3d": lambda a: {"y": conv3d(**a, stride=(1, 2, 2))},
    "joint_attention": lambda a: joint_attention(*(a[k] for k in ("own", "joint", "kernel", "mask"))),
}
