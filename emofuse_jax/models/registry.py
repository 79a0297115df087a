"""Encoders and fusions by name, and what their classes declare.

An encoder is built with `(config, spec, dtype, rngs)` and called with `(batch, train) -> EncoderOutput`. Its
class has `defaults`, the fields of its part of the config. It may have `small`, the fields that the small
variant changes, `small_limits`, the largest values of fields there, `small_augment`, the fields of
`config.augment` that it changes, and `reads`, the fields of the batch that it reads. `width` of the built
encoder is the width of its positions. The spectrograms of the batch are standardised per bin, zero at
padding, in the dtype of the activations. An encoder may have `attention_map(weights)`, which reshapes
attention over its positions for a figure.

A fusion is built with `(d_a, d_v, classes, config, dtype, rngs)` and called with `(pooled, *, train, key) ->
FusionOutput`; dropout uses `key`, and acts only if `train`. Its class has

* `modalities`: the encoders that the network builds, a subset of `("audio", "video")`;
* `takes`: its first argument, `"vectors"` (PooledVectors) or `"sequences"` (EncodedSequences);
* `defaults`: the fields of `config.fusion` besides `name`;

and may have

* `small`: the fields that the small variant changes, and `small_epochs`, its number of epochs;
* static `count_trunks(config) -> int`: the equal parts in time, besides the whole clip, that it takes vectors
  of;
* static `calibrate(state, level_probabilities, labels) -> state`: the part of the model state that it
  computes from the validation clips at the end of each epoch (training/fusion_state.py);
* static `check_training(config)`: raises ValueError, or warns, if an experiment does not suit it.
"""

from collections.abc import Callable, Mapping
from typing import cast

import numpy as np
from jaxtyping import Float, Int
from ml_collections import ConfigDict

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
from emofuse_jax.models.interfaces import EncoderClass, FusionClass
from emofuse_jax.models.layers.attention_pooling import ATTENTION_DEFAULTS
from emofuse_jax.types import InputSpec, Params
from emofuse_jax.utils.registry import Registry

Calibrator = Callable[[Params, Float[np.ndarray, "n l c"], Int[np.ndarray, " n"]], Params]
"""Function `(state, level_probabilities, labels) -> state`; see `calibrate` above."""

MODALITIES = ("audio", "video")
INPUT_KINDS = ("vectors", "sequences")


def check_encoder_class(encoder: object) -> None:
    """Raises ValueError if `encoder` is not a class that declares what an encoder must.

    It must be a class with `defaults`, a mapping of its config fields to default values. `small` (the values
    of the small variant) and `small_limits` (the largest values there), if present, may only have fields that
    are in `defaults` or are "attention", "attention_width" or "temperature".
    """
    _check_class(encoder, {"defaults": Mapping})
    encoder_class = cast(EncoderClass, encoder)
    _check_small(encoder_class, {*encoder_class.defaults, *ATTENTION_DEFAULTS})


def check_fusion_class(candidate: object) -> None:
    """Raises ValueError if `candidate` is not a class that declares what a fusion must.

    It must be a class with `modalities` (a tuple of "audio" and/or "video"), `takes` ("vectors" or
    "sequences") and `defaults` (a mapping of its config fields to default values), and `small` (the values of
    the small variant) and `small_limits` (the largest values there), if present, must not have a field that
    `defaults` lacks.
    """
    _check_class(candidate, {"modalities": tuple, "takes": str, "defaults": Mapping})
    fusion, name = cast(FusionClass, candidate), getattr(candidate, "__name__", candidate)
    if not fusion.modalities or not set(fusion.modalities) <= set(MODALITIES):
        raise ValueError(
            f"class {name}: modalities = {fusion.modalities!r}, expected a tuple of one or both of"
            f" {', '.join(MODALITIES)}"
        )
    if fusion.takes not in INPUT_KINDS:
        raise ValueError(f"class {name}: takes = {fusion.takes!r}, expected one of {', '.join(INPUT_KINDS)}")
    _check_small(fusion, set(fusion.defaults))


def _check_class(value: object, attributes: Mapping[str, type]) -> None:
    if not isinstance(value, type):
        raise ValueError(f"{value!r} is not a class; register a subclass of flax.nnx.Module")
    for name, expected_type in attributes.items():
        if not isinstance(getattr(value, name, None), expected_type):
            raise ValueError(
                f"class {value.__name__} has no class attribute {name} of type {expected_type.__name__};"
                " add it"
            )


def _check_small(value: EncoderClass | FusionClass, allowed: set[str]) -> None:
    for source in ("small", "small_limits"):
        unknown = sorted({*getattr(value, source, {})} - allowed)
        if unknown:
            name = getattr(value, "__name__", value)
            raise ValueError(
                f"class {name}: {source} has {unknown[0]!r}, which defaults lacks; add it to defaults, or"
                f" remove it from {source}"
            )


AUDIO_ENCODERS: Registry[EncoderClass] = Registry(
    "audio encoder",
    "emofuse.audio_encoders",
    {
        "fcn": FCNEncoder,
        "mel_cnn": MelCNN,
        "ecapa": Ecapa,
        "segments": SegmentEncoder,
        "resnet": PartResNet,
        "features": AudioFeatureEncoder,
    },
    check_encoder_class,
)
VIDEO_ENCODERS: Registry[EncoderClass] = Registry(
    "video encoder",
    "emofuse.video_encoders",
    {"frames": FrameEncoder, "snippets": SnippetEncoder, "features": VideoFeatureEncoder},
    check_encoder_class,
)
FUSIONS: Registry[FusionClass] = Registry(
    "fusion",
    "emofuse.fusions",
    {
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
    },
    check_fusion_class,
)

ENCODERS = {"audio": AUDIO_ENCODERS, "video": VIDEO_ENCODERS}

INPUT_FIELDS = {"audio": ("audio", "audio_mask"), "video": ("faces", "face_mask")}
"""Fields of the batch that an encoder of a modality reads, unless its class names others in `reads`."""


def encoder_input_fields(encoder: EncoderClass, modality: str, spec: InputSpec) -> tuple[str, ...]:
    """Returns the names of the batch's fields that an encoder reads.

    These are its attribute `reads`, or by default `("audio", "audio_mask")` if `modality` is "audio" and
    `("faces", "face_mask")` if it is "video".

    Raises:
      KeyError: `modality` is neither "audio" nor "video".
      ValueError: the encoder reads `audio` but the records have no spectrograms (`spec.t` is 0), or `faces`
        but they have none (`spec.h` is 0).
    """
    fields = getattr(encoder, "reads", INPUT_FIELDS[modality])
    for field, size in (("audio", spec.t), ("faces", spec.h)):
        if field in fields and not size:
            raise ValueError(
                f"config.model.{modality}.encoder: reads {field}, which the records do not hold; set it to"
                " 'features', which reads the features in the records"
            )
    return fields


def get_calibrator(fusion: str) -> Calibrator | None:
    """Returns the function `calibrate` of the fusion with the name `fusion`, or None if the fusion has none.

    The function takes `(state, level_probabilities, labels)`: the fusion's part of the model state (a dict of
    arrays), the posteriors [n l c] of n validation clips on each of the l levels (zeros if a clip does not
    have the level), and their classes [n], -1 if unknown. It returns the new state.

    Raises:
      KeyError: if there is no fusion of that name.
      ValueError: if an installed package provides it, but it can't be imported or is not a valid class.
    """
    return getattr(FUSIONS[fusion], "calibrate", None)


def count_trunks(fusion_config: ConfigDict) -> int:
    """Returns the number of equal parts in time that a fusion takes vectors of, besides the entire clip.

    It is 0 for fusions that do not declare `count_trunks`. `fusion_config` is `config.model.fusion`.

    Raises:
      KeyError: if there is no fusion with the name `fusion_config.name`.
      ValueError: if an installed package provides it, but it can't be imported or is not a valid class.
    """
    count = getattr(FUSIONS[fusion_config.name], "count_trunks", None)
    return 0 if count is None else count(fusion_config)


def check_training(config: ConfigDict) -> None:
    """Runs the check that the fusion of an experiment declares; does nothing if there is none.

    `config` is the complete config of the experiment; `config.model.fusion.name` names the fusion. The check
    warns (UserWarning) if the experiment does not suit the fusion: `hgr` warns of batches with too few
    labelled segments.

    Raises:
      KeyError: if there is no fusion of that name.
      ValueError: if the check raises it, or an installed package provides the fusion, but it can't be
        imported or is not a valid class.
    """
    check = getattr(FUSIONS[config.model.fusion.name], "check_training", None)
    if check is not None:
        check(config)
