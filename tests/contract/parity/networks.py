"""Our fusions of sequences and a whole network under the names of the peers' cases."""

import dataclasses

import jax.numpy as jnp
from ml_collections import ConfigDict

from emofuse_jax.models.build import build_model
from emofuse_jax.models.fusions.bottleneck import BottleneckTransformer
from emofuse_jax.models.fusions.cross_attention import CrossAttention
from emofuse_jax.models.interfaces import EncodedSequence, EncodedSequences
from emofuse_jax.models.layers.token_attention import TokenAttention
from emofuse_jax.settings.model import default_model_config
from emofuse_jax.types import Batch, InputSpec
from tests.contract.parity.layers import (
    am_fbp_config,
    build_module,
    fcn_params,
    linear_params,
    norm_params,
    resnet_params,
    running_statistics,
)

MODALITIES = ("audio", "video")


def select_prefix(a, prefix):
    return {k.removeprefix(prefix): v for k, v in a.items() if k.startswith(prefix)}


def make_sequence(a, name):
    """Positions in order; the length in time is given, or is the number of positions."""
    b, l, _ = a[name].shape
    length = a.get(f"{name}_length", jnp.full(b, l))
    return EncodedSequence(a[name], a[f"{name}_mask"], jnp.broadcast_to(jnp.arange(l), (b, l)), length)


def make_sequences(a):
    return EncodedSequences(*(make_sequence(a, name) for name in MODALITIES))


def cross_attention_fusion(a):
    config = ConfigDict(CrossAttention.defaults | {"positions": a["audio"].shape[1]})
    config.common_width = a["w"].shape[0]
    params = {f"{m}_projection": linear_params(a, m) for m in MODALITIES}
    params |= {f"{m}_norm": norm_params(a, f"{m}_norm") for m in MODALITIES}
    params |= {"w": a["w"], "head": {"linear": linear_params(a, "head")}}
    widths = (a[m].shape[-1] for m in MODALITIES)
    net = build_module(lambda r: CrossAttention(*widths, 4, config, jnp.float32, rngs=r), params)
    out = net(make_sequences(a), train=False, key=None)
    return {"embedding": out.embedding, "logits": out.logits}


def token_attention(a):
    d = a["x"].shape[-1]
    columns, biases = jnp.split(a["qkv"].T, 3, axis=1), jnp.split(a["qkv_bias"], 3)
    params = {k: {"kernel": c} for k, c in zip(("query", "key", "value"), columns, strict=True)}
    params["query"]["bias"], params["value"]["bias"] = biases[0], biases[2]
    params["out"] = {"kernel": a["out"].T, "bias": a["out_bias"]}
    net = build_module(lambda r: TokenAttention(d, 2, jnp.float32, rngs=r), params)
    return dict(zip(("y", "weights"), net(a["x"], a["mask"]), strict=True))


def transformer_layer_params(a, name):
    qkv = {
        "kernel": a[f"{name}.self_attn.in_proj_weight"].T,
        "bias": a[f"{name}.self_attn.in_proj_bias"],
    }
    return {
        "attention_norm": norm_params(a, f"{name}.norm1"),
        "qkv": qkv,
        "out": linear_params(a, f"{name}.self_attn.out_proj"),
        "mlp_norm": norm_params(a, f"{name}.norm2"),
        "up": linear_params(a, f"{name}.linear1"),
        "down": linear_params(a, f"{name}.linear2"),
    }


def stream_params(a, m):
    params = {name: norm_params(a, f"{m}.{name}") for name in ("enter", "norm")}
    params |= {name: linear_params(a, f"{m}.{name}") for name in ("project", "place")}
    params |= {name: transformer_layer_params(a, f"{m}.{name}") for name in ("layer1", "layer2")}
    return params | {"first": a[f"{m}.first"], "head": {"linear": linear_params(a, f"{m}.head")}}


def bottleneck(a):
    tokens, width = a["shared"].shape
    hidden = a["audio.layer1.linear1.weight"].shape[0]
    sizes = {"width": width, "layers": 2, "fusion_layer": 1, "heads": 2, "hidden": hidden, "tokens": tokens}
    config = ConfigDict(BottleneckTransformer.defaults | sizes)
    params = {m: stream_params(a, m) for m in MODALITIES} | {"shared": a["shared"]}
    widths = (a[m].shape[-1] for m in MODALITIES)
    net = build_module(lambda r: BottleneckTransformer(*widths, 3, config, jnp.float32, rngs=r), params)
    return {"logits": net(make_sequences(a), train=False, key=None).logits}


def network_config(a, widths):
    config = default_model_config("am_fbp")
    config.audio.update({"widths": widths, "attn_axes": "1d_concat"})
    config.audio.attention_width = a["audio_attention.w"].shape[1]
    config.video.update({"width": a["resnet.bn1.weight"].shape[0], "blocks": (1, 1), "stem_kernel": 3})
    config.video.update({"embedding": a["q0"].shape[0], "attention": "self"})
    fusion, params = am_fbp_config(select_prefix(a, "fusion."), "scalar")
    config.fusion.update(fusion)
    return config, params


def network(a):
    """All of it through `Model.apply`, from stored spectrograms and bytes."""
    widths, fcn = fcn_params(a, "fcn.")
    config, fusion = network_config(a, widths)
    (b, t, f), (_, s, h, w, _) = a["audio"].shape, a["faces"].shape
    resnet, additive = select_prefix(a, "resnet."), select_prefix(a, "audio_attention.")
    params = {
        "audio": {"fcn": fcn},
        "audio_attention": {
            "hidden": {"kernel": additive["w"], "bias": additive["b"]},
            "score": {"kernel": additive["u"][:, None]},
        },
        "video": {"resnet": resnet_params(resnet, norm_params), "linear": linear_params(a, "embedding")},
        "video_attention": {"q0": a["q0"]},
        "fusion": fusion,
    }
    state = {
        "video": {"resnet": resnet_params(resnet, running_statistics)},
        "input": {k: a[k] for k in ("mean", "std")},
    }
    model = build_model(config, InputSpec(t=t, f=f, s=s, h=h, w=w, classes=5))
    fields = {k: a[k] for k in ("audio", "audio_mask", "faces", "face_mask")}
    out, _ = model.apply(params, state, dataclasses.replace(other_batch_fields(b), **fields))
    return {"embedding": out.embedding, "weights": out.aux["modality_weights"], "logits": out.logits}


def other_batch_fields(b):
    row, ones = jnp.zeros(b, jnp.int32), jnp.ones(b)
    return Batch(None, None, None, None, row, ones > 0, ones, row, row)


OURS = {
    "cross_attention_fusion": cross_attention_fusion,
    "token_attention": token_attention,
    "bottleneck": bottleneck,
    "network_am_fbp": network,
}
