"""Every field of a model's config, at the size of the papers."""

from ml_collections import ConfigDict

from emofuse_jax.models.layers.margins import MARGIN_DEFAULTS
from emofuse_jax.models.registry import AUDIO_ENCODERS, FUSIONS, VIDEO_ENCODERS, get_encoder_class

ATTENTION_DEFAULTS = {"attention": "additive", "attention_width": 256, "temperature": 0.3}
"""Pooling of an encoder's positions (`attention_pooling.ATTENTION_TYPES`); `temperature` is lambda."""


def default_model_config(fusion: str = "am_fbp", *, audio: str = "fcn", video: str = "frames") -> ConfigDict:
    """The config of a paper-size model: `dtype`, `audio`, `video`, `fusion`, `margins`, `polarity`.

    `dtype`: of activations, `float32` or `bfloat16`. `audio` and `video`: `encoder` with the `defaults` of
    its class (models/registry.py), and the attention that pools its positions for fusions of vectors.
    `fusion`: `name` with the `defaults` of its class (models/registry.py). `margins`: those between
    classes (models/layers/margins.py). `polarity`: -1, 0 or 1 for each class; empty: by the classes' names,
    where something needs it (emofuse_jax/losses/class_polarity.py).

    Raises:
      ValueError: an unknown fusion or encoder.
    """
    if fusion not in FUSIONS:
        raise ValueError(f"fusion: {fusion!r}, expected one of {', '.join(FUSIONS)}")
    return ConfigDict(
        {
            "dtype": "float32",
            "audio": encoder_config(AUDIO_ENCODERS, audio, "audio", fusion),
            "video": encoder_config(VIDEO_ENCODERS, video, "video", fusion),
            "fusion": {"name": fusion} | FUSIONS[fusion].defaults,
            "margins": dict(MARGIN_DEFAULTS),
            "polarity": (),
        }
    )


def encoder_config(registry: dict, name: str, field: str, fusion: str) -> dict:
    """The fields of one encoder and, before a fusion of vectors, of the attention after it."""
    attention = ATTENTION_DEFAULTS if FUSIONS[fusion].takes == "vectors" else {}
    return {"encoder": name} | get_encoder_class(registry, name, field).defaults | attention
