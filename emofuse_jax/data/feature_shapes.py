"""Derives the shapes of frozen encoders' features in a batch from the settings of the records."""

from typing import TypedDict

from jaxtyping import Array, Bool

from emofuse_jax.data.metadata import PrepSettingsDict
from emofuse_jax.data.prepared_files import feature_hop_ms
from emofuse_jax.data.records import RecordShape
from emofuse_jax.types import Batch


class FeatureSpecFields(TypedDict):
    """The fields of InputSpec for the features of frozen encoders; 0 if there are none."""

    feature_steps: int
    audio_features: int
    face_features: int


def audio_step_mask(batch: Batch) -> Bool[Array, "b u"]:
    """Returns the mask of the audio features if the batch has them, otherwise that of the spectrogram.

    Shape: b clips, u steps of the audio features (or of the spectrogram); True inside the clip.
    """
    return batch.audio_mask if batch.audio_features_mask is None else batch.audio_features_mask


def spectrogram_steps(settings: PrepSettingsDict, audio_steps: int) -> int:
    """Returns `audio_steps`, or 0 if the records store audio features instead of spectrograms.

    `settings` are those of prep.json. They say so if they have an audio encoder and `features.tensors` is
    `drop`.
    """
    features = settings["features"]
    return 0 if features["audio"] and features["tensors"] == "drop" else audio_steps


def feature_spec_fields(
    settings: PrepSettingsDict, shape: RecordShape, audio_steps: int
) -> FeatureSpecFields:
    """Returns the InputSpec fields `feature_steps`, `audio_features` and `face_features`.

    They are a dict. `feature_steps = audio_steps * hop / hop of the encoder`, rounded and at least 1, so that
    features and spectrogram cover the same duration; 0 if the records have no audio features. The other two
    are the widths of the features, 0 if there are none.

    Args:
      settings: Settings of prep.json.
      shape: Dimensions of the records.
      audio_steps: Spectrogram steps of a clip in a batch.

    Raises:
      ValueError: The records have audio features, but the settings no audio encoder.
    """
    steps = 0
    if shape.audio_features:
        steps = max(1, round(audio_steps * settings["audio"]["hop_ms"] / feature_hop_ms(settings)))
    return {
        "feature_steps": steps,
        "audio_features": shape.audio_features,
        "face_features": shape.face_features,
    }


def window_seconds(settings: PrepSettingsDict, t: int, feature_steps: int) -> float:
    """Returns the duration in seconds of the audio of each clip in a batch.

    This is the duration of `t` spectrogram steps, or of `feature_steps` feature steps if `t` is 0. `settings`
    are those of prep.json.

    Raises:
      ValueError: `t` is 0 and the settings have no audio encoder.
    """
    if t:
        return t * settings["audio"]["hop_ms"] / 1000
    return feature_steps * feature_hop_ms(settings) / 1000
