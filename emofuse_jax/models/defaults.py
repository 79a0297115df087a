"""Every field of a model's config, at the size of the papers."""

from ml_collections import ConfigDict

ALEXNET = {
    "widths": (96, 256, 384, 384, 256),
    "kernels": (11, 5, 3, 3, 3),
    "strides": (4, 1, 1, 1, 1),
    "paddings": (0, 2, 1, 1, 1),
    "norms": ("lrn", "lrn", "none", "none", "none"),
    "pools": (True, True, False, False, True),
}
"""The shape of 2012, 3,723,968 parameters for one input channel."""

TORCHVISION = ALEXNET | {
    "widths": (64, 192, 384, 256, 256),
    "paddings": (2, 2, 1, 1, 1),
    "norms": ("none",) * 5,
}
"""The narrower shape whose ImageNet weights are public, 2,454,208 parameters."""

AUDIO_SHAPES = {"alexnet": ALEXNET, "torchvision": TORCHVISION}

_FBP = {"width": 128, "factors": 4, "dropout": 0.3, "power_norm": False, "scale": 8.0, "head_dropout": 0.0}
_ADAPTIVE = _FBP | {"gates": "scalar", "gate_width": 128}
FUSION_DEFAULTS = {
    "audio_only": {"head_dropout": 0.3},
    "video_only": {"head_dropout": 0.3},
    "concat": {"head_dropout": 0.3},
    "late": {"head_dropout": 0.3, "auxiliary": False},
    "g_fbp": _FBP,
    "ag_fbp": _ADAPTIVE,
    "am_fbp": _ADAPTIVE | {"parts": 3, "auxiliary": False},
}
"""Fields of `config.fusion` for each fusion, beside `name`."""


def default_model_config(fusion: str = "am_fbp", *, audio: str = "alexnet") -> ConfigDict:
    """The config of a paper-size model.

    `dtype`: of activations, `float32` or `bfloat16`.
    `audio`: a row a layer (`widths` to `pools`; `norms` are `none`, `lrn` or `batch`), `attn_axes` (`2d`,
    `1d_concat`, `1d_mean`), and of the attention: `attention_width` and lambda, `temperature`.
    `video`: ResNet `width`, `blocks`, stem; `downsample`, pixels to a mean; `momentum` of the batch norm;
    `embedding` width; `attention` (`additive`, `self`, `relation`, `transformer`) with the fields of audio.
    `fusion`: `name` and the fields of FUSION_DEFAULTS; `parts` is N of AM-FBP, `gates` `scalar` or `vector`,
    `scale` the norm of a fused vector (a design choice; 1 is the papers' letter).

    Raises:
      ValueError: an unknown fusion or audio shape.
    """
    if fusion not in FUSION_DEFAULTS:
        raise ValueError(f"fusion: {fusion!r}, expected one of {', '.join(FUSION_DEFAULTS)}")
    if audio not in AUDIO_SHAPES:
        raise ValueError(f"audio: {audio!r}, expected one of {', '.join(AUDIO_SHAPES)}")
    adaptive = fusion in ("ag_fbp", "am_fbp")  # P2; the others follow P1
    attention = {"attention_width": 256, "temperature": 0.3}
    return ConfigDict(
        {
            "dtype": "float32",
            "audio": AUDIO_SHAPES[audio] | attention | {"attn_axes": "1d_concat" if adaptive else "2d"},
            "video": attention
            | {
                "width": 64,
                "blocks": (2, 2, 2, 2),
                "stem_kernel": 7,
                "stem_stride": 2,
                "stem_pool": True,
                "downsample": 1,
                "momentum": 0.9,
                "embedding": 256,
                "attention": "self" if adaptive else "additive",
            },
            "fusion": {"name": fusion} | FUSION_DEFAULTS[fusion],
        }
    )
