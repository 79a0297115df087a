"""Our modules under the names of the peers' cases, with torch's weights in our layouts."""

import jax
import jax.numpy as jnp
from flax import nnx
from ml_collections import ConfigDict

from emofuse_jax.models.encoders import audio_fcn, video_frame_resnet
from emofuse_jax.models.fusions.am_fbp import AdaptiveMultiLevelFBP
from emofuse_jax.models.interfaces import PooledVectors
from emofuse_jax.models.layers import resnet3d as r3d


def to_conv_kernel(weight):
    """[o i y x] or [o i t y x] -> [y x i o] or [t y x i o]."""
    return jnp.moveaxis(weight, (0, 1), (-1, -2))


def linear_params(a, name):
    """A linear layer or convolution, with its bias where it has one."""
    weight = a[f"{name}.weight"]
    params = {"kernel": weight.T if weight.ndim == 2 else to_conv_kernel(weight)}
    return params | ({"bias": a[f"{name}.bias"]} if f"{name}.bias" in a else {})


def norm_params(a, name):
    return {"scale": a[f"{name}.weight"], "bias": a[f"{name}.bias"]}


def running_statistics(a, name):
    return {"mean": a[f"{name}.running_mean"], "var": a[f"{name}.running_var"]}


def build_module(make, params, state=None):
    """The module that `make(rngs)` builds, with these numbers, which must be all that it has."""
    graphdef, module_params, module_state = nnx.split(
        nnx.eval_shape(lambda: make(nnx.Rngs(0))), nnx.Param, ...
    )
    for expected, actual in ((module_params, params), (module_state, state or {})):
        expected = jax.tree.map(jnp.shape, nnx.to_pure_dict(expected))
        assert expected == jax.tree.map(jnp.shape, actual)
    return nnx.merge(graphdef, params, state or {})


def fcn_params(a, prefix=""):
    """Widths and params of a torch.nn.Sequential."""
    names = (k.removesuffix(".weight") for k in a if k.startswith(prefix) and k.endswith(".weight"))
    names = sorted(names, key=lambda name: int(name.removeprefix(prefix)))
    widths = tuple(a[f"{name}.weight"].shape[0] for name in names)
    return widths, {f"conv{i}": linear_params(a, name) for i, name in enumerate(names, 1)}


def fcn(form):
    def ours(a):
        widths, params = fcn_params(a)
        config = ConfigDict(form | {"widths": widths, "lrn": audio_fcn.LRN_DEFAULTS})
        net = build_module(
            lambda r: audio_fcn.AudioFCN(config, a["audio"].shape[2], jnp.float32, rngs=r), params
        )
        return {"map": net(a["audio"], a["mask"], train=False)[0]}

    return ours


def conv_norm_params(a, conv_name, norm_name, make_params):
    """`make_params` is `norm_params` for the tree of params, or `running_statistics` for that of running
    statistics."""
    params = {"norm": make_params(a, norm_name)}
    if make_params is running_statistics:
        return params
    kernel = linear_params(a, conv_name)
    return params | ({"conv": kernel} if kernel["kernel"].ndim == 4 else kernel)


def block_params(a, name, make_params):
    layer_names = ("first", "second", "third")
    torch_names = {
        layer_name: (f"{name}.conv{i}", f"{name}.bn{i}") for i, layer_name in enumerate(layer_names, 1)
    }
    torch_names["shortcut"] = f"{name}.downsample.0", f"{name}.downsample.1"
    torch_names = {
        layer_name: torch_pair
        for layer_name, torch_pair in torch_names.items()
        if f"{torch_pair[0]}.weight" in a
    }
    return {
        layer_name: conv_norm_params(a, *torch_pair, make_params)
        for layer_name, torch_pair in torch_names.items()
    }


def resnet_params(a, make_params):
    params = {"stem": conv_norm_params(a, "conv1", "bn1", make_params)}
    for name in sorted({k.rpartition(".conv1")[0] for k in a if k.endswith(".conv1.weight")} - {""}):
        stage, i = name.removeprefix("layer").split(".")
        params[f"stage{stage}_block{int(i) + 1}"] = block_params(a, name, make_params)
    return params


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
        params_and_state = resnet_params(a, norm_params), resnet_params(a, running_statistics)
        net = build_module(
            lambda r: video_frame_resnet.ResNet(config, jnp.float32, rngs=r), *params_and_state
        )
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
        params_and_state = resnet_params(a, norm_params), resnet_params(a, running_statistics)
        net = build_module(lambda r: r3d.R3D(config, jnp.float32, rngs=r), *params_and_state)
        return {"map": net(a["snippets"], a["mask"], train=train)[jnp.array([0, 2])]}

    return ours


def trunk_params(a, level, gates):
    layers = {"scalar": ("hidden", "score"), "vector": ("gate",)}[gates]
    gate_params = {
        f"{m}_{k}": linear_params(a, f"{level}.{m}.{k}") for m in ("audio", "video") for k in layers
    }
    return {"gates": gate_params, "fbp": {k: a[f"{level}.{k}"] for k in ("u", "v", "bias_u", "bias_v")}}


def am_fbp_config(a, gates):
    """Config and params of the fusion."""
    config = ConfigDict(AdaptiveMultiLevelFBP.defaults | {"gates": gates, "factors": 4})
    config.width = a["global.u"].shape[1] // 4
    config.gate_width = a["global.audio.hidden.bias"].shape[0] if gates == "scalar" else 1
    params = {f"{level}_trunk": trunk_params(a, level, gates) for level in ("global", "part")}
    return config, params | {"head": {"linear": linear_params(a, "head")}}


def am_fbp(gates):
    def ours(a):
        config, params = am_fbp_config(a, gates)
        widths = a["audio"].shape[-1], a["video"].shape[-1]
        net = build_module(lambda r: AdaptiveMultiLevelFBP(*widths, 5, config, jnp.float32, rngs=r), params)
        out = net(
            PooledVectors(a["audio"], a["ok"][..., 0], a["video"], a["ok"][..., 1]), train=False, key=None
        )
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
