"""Our modules under the names of the peers' cases, with torch's weights in our layouts."""

import jax
import jax.numpy as jnp
from flax import nnx
from ml_collections import ConfigDict

from emofuse_jax.models.encoders import audio_fcn, video_frame_resnet
from emofuse_jax.models.fusions.am_fbp import AdaptiveMultiLevelFBP
from emofuse_jax.models.interfaces import PooledVectors
from emofuse_jax.models.layers import resnet3d as r3d


def conv(weight):
    """[o i y x] or [o i t y x] -> [y x i o] or [t y x i o]."""
    return jnp.moveaxis(weight, (0, 1), (-1, -2))


def linear(a, name):
    """A linear layer or convolution, with its bias where it has one."""
    weight = a[f"{name}.weight"]
    found = {"kernel": weight.T if weight.ndim == 2 else conv(weight)}
    return found | ({"bias": a[f"{name}.bias"]} if f"{name}.bias" in a else {})


def norm(a, name):
    return {"scale": a[f"{name}.weight"], "bias": a[f"{name}.bias"]}


def running(a, name):
    return {"mean": a[f"{name}.running_mean"], "var": a[f"{name}.running_var"]}


def module(make, params, state=None):
    """The module that `make(rngs)` builds, with these numbers, which must be all that it has."""
    graphdef, own, rest = nnx.split(nnx.eval_shape(lambda: make(nnx.Rngs(0))), nnx.Param, ...)
    for theirs, given in ((own, params), (rest, state or {})):
        theirs = jax.tree.map(jnp.shape, nnx.to_pure_dict(theirs))
        assert theirs == jax.tree.map(jnp.shape, given)
    return nnx.merge(graphdef, params, state or {})


def fcn_numbers(a, prefix=""):
    """Widths and params of a torch.nn.Sequential."""
    names = (k.removesuffix(".weight") for k in a if k.startswith(prefix) and k.endswith(".weight"))
    names = sorted(names, key=lambda name: int(name.removeprefix(prefix)))
    widths = tuple(a[f"{name}.weight"].shape[0] for name in names)
    return widths, {f"conv{i}": linear(a, name) for i, name in enumerate(names, 1)}


def fcn(form):
    def ours(a):
        widths, params = fcn_numbers(a)
        config = ConfigDict(form | {"widths": widths, "lrn": audio_fcn.LRN_DEFAULTS})
        net = module(lambda r: audio_fcn.AudioFCN(config, a["audio"].shape[2], jnp.float32, rngs=r), params)
        return {"map": net(a["audio"], a["mask"], train=False)[0]}

    return ours


def conv_norm(a, conv_name, norm_name, make):
    """`make` is `norm` for the tree of params, or `running` for that of running statistics."""
    found = {"norm": make(a, norm_name)}
    if make is running:
        return found
    kernel = linear(a, conv_name)
    return found | ({"conv": kernel} if kernel["kernel"].ndim == 4 else kernel)


def block(a, name, make):
    places = ("first", "second", "third")
    rows = {place: (f"{name}.conv{i}", f"{name}.bn{i}") for i, place in enumerate(places, 1)}
    rows["shortcut"] = f"{name}.downsample.0", f"{name}.downsample.1"
    rows = {place: row for place, row in rows.items() if f"{row[0]}.weight" in a}
    return {place: conv_norm(a, *row, make) for place, row in rows.items()}


def resnet_numbers(a, make):
    found = {"stem": conv_norm(a, "conv1", "bn1", make)}
    for name in sorted({k.rpartition(".conv1")[0] for k in a if k.endswith(".conv1.weight")} - {""}):
        stage, i = name.removeprefix("layer").split(".")
        found[f"stage{stage}_block{int(i) + 1}"] = block(a, name, make)
    return found


def resnet(*, train):
    def ours(a):
        small = a["conv1.weight"].shape[-1] == 3
        config = ConfigDict(
            {
                "width": a["bn1.weight"].shape[0],
                "blocks": (1, 2),
                "stem_kernel": 3 if small else 7,
                "stem_stride": 1 if small else 2,
                "stem_pool": not small,
                "momentum": 0.9,
            }
        )
        numbers = resnet_numbers(a, norm), resnet_numbers(a, running)
        net = module(lambda r: video_frame_resnet.ResNet(config, jnp.float32, rngs=r), *numbers)
        y = net(a["images"], a["mask"], train=train)
        if not train:
            return {"y": y}
        return {"y": y[jnp.array([0, 2, 3])], "mean": net.stem.norm.mean[...], "var": net.stem.norm.var[...]}

    return ours


def resnet3d(form, *, train):
    def ours(a):
        blocks = tuple(sum(k.startswith(f"layer{i}") and "conv1" in k for k in a) for i in (1, 2))
        config = ConfigDict(form | {"width": a["bn1.weight"].shape[0], "blocks": blocks})
        config.stem_kernel = a["conv1.weight"].shape[2:]
        numbers = resnet_numbers(a, norm), resnet_numbers(a, running)
        net = module(lambda r: r3d.R3D(config, jnp.float32, rngs=r), *numbers)
        return {"map": net(a["snippets"], a["mask"], train=train)[jnp.array([0, 2])]}

    return ours


def trunk(a, level, gates):
    layers = {"scalar": ("hidden", "score"), "vector": ("gate",)}[gates]
    found = {f"{m}_{k}": linear(a, f"{level}.{m}.{k}") for m in ("audio", "video") for k in layers}
    return {"gates": found, "fbp": {k: a[f"{level}.{k}"] for k in ("u", "v", "bias_u", "bias_v")}}


def am_fbp_setting(a, gates):
    """Config and params of the fusion."""
    config = ConfigDict(AdaptiveMultiLevelFBP.defaults | {"gates": gates, "factors": 4})
    config.width = a["global.u"].shape[1] // 4
    config.gate_width = a["global.audio.hidden.bias"].shape[0] if gates == "scalar" else 1
    params = {f"{level}_trunk": trunk(a, level, gates) for level in ("global", "part")}
    return config, params | {"head": {"linear": linear(a, "head")}}


def am_fbp(gates):
    def ours(a):
        config, params = am_fbp_setting(a, gates)
        widths = a["audio"].shape[-1], a["video"].shape[-1]
        net = module(lambda r: AdaptiveMultiLevelFBP(*widths, 5, config, jnp.float32, rngs=r), params)
        out = net(PooledVectors(a["audio"], a["ok"][..., 0], a["video"], a["ok"][..., 1]), None)
        return {"embedding": out.embedding, "weights": out.aux["modality_weights"], "logits": out.logits}

    return ours


OURS = {
    "fcn_original": fcn(audio_fcn.ALEXNET),
    "fcn_torchvision": fcn(audio_fcn.TORCHVISION_ALEXNET),
    "resnet": resnet(train=False),
    "resnet_train": resnet(train=True),
    "r3d_train": resnet3d(r3d.R3D18, train=True),
    "r3d_bottleneck": resnet3d(r3d.R3D50, train=False),
    "am_fbp_scalar": am_fbp("scalar"),
    "am_fbp_vector": am_fbp("vector"),
}
