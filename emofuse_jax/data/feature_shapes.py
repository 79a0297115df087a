"""The features of frozen encoders in a dataset's records: which there are, and how long in a batch."""

from jaxtyping import Array, Bool

from emofuse_jax.data.records import RecordShape
from emofuse_jax.types import Batch


def audio_step_mask(batch: Batch) -> Bool[Array, "b u"]:
    """Valid steps of the sound: of its features where the batch has them, else of the spectrogram."""
    return batch.audio_mask if batch.audio_features_mask is None else batch.audio_features_mask


def spectrogram_steps(settings: dict, audio_steps: int) -> int:
    """Spectrogram steps of a batch: 0 where the records hold features instead (`settings` of prep.json)."""
    features = settings["features"]
    return 0 if features["audio"] and features["tensors"] == "drop" else audio_steps


def feature_spec_fields(settings: dict, shape: RecordShape, audio_steps: int) -> dict[str, int]:
    """The fields of an InputSpec that tell of features, for `audio_steps` steps of the spectrogram.

    `feature_steps = audio_steps * hop / hop of the encoder`, so that both cover the same seconds.
    """
    steps = 0
    if shape.audio_features:
        feature_hop_ms = settings["features"]["audio"]["layout"]["hop_ms"]
        steps = max(1, round(audio_steps * settings["audio"]["hop_ms"] / feature_hop_ms))
    return {
        "feature_steps": steps,
        "audio_features": shape.audio_features,
        "face_features": shape.face_features,
    }


def window_seconds(settings: dict, t: int, feature_steps: int) -> float:
    """Seconds of sound that a batch holds: of its spectrogram, or of features where there are only these."""
    if t:
        return t * settings["audio"]["hop_ms"] / 1000
    return feature_steps * settings["features"]["audio"]["layout"]["hop_ms"] / 1000
