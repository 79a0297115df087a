"""Encoders by name: `(config, spec, dtype, rngs)`, then `(batch, train) -> Encoded`.

`defaults` of a class are the fields of its part of the config, `width` is that of a position. The audio of
the batch comes standardised per bin, zero at padding, in the dtype of the activations. An encoder may have
`attention_map(weights)`, which gives attention over its positions the shape that a picture needs.
"""

from emofuse_jax.models.audio import AudioEncoder
from emofuse_jax.models.video import VideoEncoder

AUDIO_ENCODERS = {"fcn": AudioEncoder}
VIDEO_ENCODERS = {"frames": VideoEncoder}


def encoder_class(registry: dict, name: str, field: str) -> type:
    """The encoder of that name; raises ValueError naming the config field."""
    if name not in registry:
        raise ValueError(f"{field}: {name!r}, expected one of {', '.join(registry)}")
    return registry[name]
