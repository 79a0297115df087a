"""Encoders and fusions by name.

Encoders are built with `(config, spec, dtype, rngs)` and called with `(batch, train) -> EncoderOutput`.
`defaults` of a class are the fields of its part of the config, `small` those that its small variant changes
(settings/small_variant.py), `width` is that of a position. The audio of the batch comes standardised per bin,
zero at padding, in the dtype of the activations. An encoder may have `attention_map(weights)`, which gives
attention over its positions the shape that a picture needs.

Fusions are built with `(d_a, d_v, classes, config, dtype, rngs)` and called with `(pooled, key) ->
FusionOutput`. `modalities` of a class says which encoders the network builds, `takes` what it is called with
(`vectors`: PooledVectors, `sequences`: EncodedSequences), `defaults` and `small` are fields of
`config.fusion` beside `name`. A class may have a static `calibrate(state, level_probabilities, labels) ->
state`: its own part of the model state, set from the validation clips at each epoch's end
(training/fusion_state.py).
"""

from collections.abc import Callable

from emofuse_jax.models.encoders.audio_ecapa import Ecapa
from emofuse_jax.models.encoders.audio_fcn import FCNEncoder
from emofuse_jax.models.encoders.audio_mel_cnn import MelCNN
from emofuse_jax.models.encoders.audio_part_resnet import PartResNet
from emofuse_jax.models.encoders.audio_segment_cnn import SegmentEncoder
from emofuse_jax.models.encoders.frozen_features import AudioFeatureEncoder, VideoFeatureEncoder
from emofuse_jax.models.encoders.video_frame_resnet import FrameEncoder
from emofuse_jax.models.encoders.video_snippets import SnippetEncoder
from emofuse_jax.models.fusions.ag_fbp import AdaptiveGlobalFBP
from emofuse_jax.models.fusions.am_fbp import AdaptiveMultiLevelFBP
from emofuse_jax.models.fusions.audio_only import AudioOnly
from emofuse_jax.models.fusions.avef import DeepFusion
from emofuse_jax.models.fusions.bottleneck import BottleneckTransformer
from emofuse_jax.models.fusions.concat import Concat
from emofuse_jax.models.fusions.cross_attention import CrossAttention
from emofuse_jax.models.fusions.emodal import CommonAndPrivate
from emofuse_jax.models.fusions.f_score import FScore
from emofuse_jax.models.fusions.g_fbp import GlobalFBP
from emofuse_jax.models.fusions.hgr import CommonInformation
from emofuse_jax.models.fusions.joint_cross_attention import JointCrossAttention
from emofuse_jax.models.fusions.late import Late
from emofuse_jax.models.fusions.lmf import LMF
from emofuse_jax.models.fusions.mfb import MFB
from emofuse_jax.models.fusions.mfh import MFH
from emofuse_jax.models.fusions.video_only import VideoOnly
from emofuse_jax.types import InputSpec

AUDIO_ENCODERS = {
    "fcn": FCNEncoder,
    "mel_cnn": MelCNN,
    "ecapa": Ecapa,
    "segments": SegmentEncoder,
    "resnet": PartResNet,
    "features": AudioFeatureEncoder,
}
VIDEO_ENCODERS = {"frames": FrameEncoder, "snippets": SnippetEncoder, "features": VideoFeatureEncoder}
INPUT_FIELDS = {"audio": ("audio", "audio_mask"), "video": ("faces", "face_mask")}
"""Fields of the batch that an encoder of a modality reads, unless its class names others in `reads`."""


def encoder_input_fields(encoder: type, modality: str, spec: InputSpec) -> tuple[str, ...]:
    """Fields of the batch that an encoder reads; ValueError where the records hold features instead."""
    fields = getattr(encoder, "reads", INPUT_FIELDS[modality])
    for field, size in (("audio", spec.t), ("faces", spec.h)):
        if field in fields and not size:
            raise ValueError(
                f"{modality}.encoder: reads {field}, which the records do not hold; expected 'features'"
            )
    return fields


def get_encoder_class(registry: dict, name: str, field: str) -> type:
    """The encoder of that name; raises ValueError naming the config field."""
    if name not in registry:
        raise ValueError(f"{field}: {name!r}, expected one of {', '.join(registry)}")
    return registry[name]


FUSIONS = {
    "audio_only": AudioOnly,
    "video_only": VideoOnly,
    "concat": Concat,
    "late": Late,
    "g_fbp": GlobalFBP,
    "ag_fbp": AdaptiveGlobalFBP,
    "am_fbp": AdaptiveMultiLevelFBP,
    "hgr": CommonInformation,
    "emodal": CommonAndPrivate,
    "f_score": FScore,
    "lmf": LMF,
    "mfb": MFB,
    "mfh": MFH,
    "joint_cross_attention": JointCrossAttention,
    "bottleneck": BottleneckTransformer,
    "cross_attention": CrossAttention,
    "avef": DeepFusion,
}


def get_calibrator(fusion: str) -> Callable | None:
    """The `calibrate` of a fusion; None where it has none."""
    return getattr(FUSIONS[fusion], "calibrate", None)
