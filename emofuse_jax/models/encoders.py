"""Encoders by name: `(config, spec, dtype, rngs)`, then `(batch, train) -> Encoded`.

`defaults` of a class are the fields of its part of the config, `small` those that its small variant changes
(settings/small.py), `width` is that of a position. The audio of
the batch comes standardised per bin, zero at padding, in the dtype of the activations. An encoder may have
`attention_map(weights)`, which gives attention over its positions the shape that a picture needs.
"""

from emofuse_jax.models.audio import AudioEncoder
from emofuse_jax.models.ecapa import Ecapa
from emofuse_jax.models.features import AudioFeatures, VideoFeatures
from emofuse_jax.models.mel_cnn import MelCNN
from emofuse_jax.models.part_resnet import PartResNet
from emofuse_jax.models.segment_cnn import SegmentEncoder
from emofuse_jax.models.snippets import SnippetEncoder
from emofuse_jax.models.video import VideoEncoder
from emofuse_jax.types import InputSpec

AUDIO_ENCODERS = {
    "fcn": AudioEncoder,
    "mel_cnn": MelCNN,
    "ecapa": Ecapa,
    "segments": SegmentEncoder,
    "resnet": PartResNet,
    "features": AudioFeatures,
}
VIDEO_ENCODERS = {"frames": VideoEncoder, "snippets": SnippetEncoder, "features": VideoFeatures}
TENSORS = {"audio": ("audio", "audio_mask"), "video": ("faces", "face_mask")}
"""Fields of the batch that an encoder of a modality reads, unless its class names others in `reads`."""


def reads(encoder: type, modality: str, spec: InputSpec) -> tuple[str, ...]:
    """Fields of the batch that an encoder reads; ValueError where the records hold features instead."""
    names = getattr(encoder, "reads", TENSORS[modality])
    for name, held in (("audio", spec.t), ("faces", spec.h)):
        if name in names and not held:
            raise ValueError(
                f"{modality}.encoder: reads {name}, which the records do not hold; expected 'features'"
            )
    return names


def encoder_class(registry: dict, name: str, field: str) -> type:
    """The encoder of that name; raises ValueError naming the config field."""
    if name not in registry:
        raise ValueError(f"{field}: {name!r}, expected one of {', '.join(registry)}")
    return registry[name]
