"""Predicts clips that are arrays."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from emofuse_jax.data.array_clip import ARRAY_AXES, Clip, ClipShape, to_record
from emofuse_jax.serving.interfaces import LoadedBundle
from emofuse_jax.serving.predict import bundle_input_spec, predict_windows
from emofuse_jax.serving.predictions import FilePredictions, PreparedWindow, check_min_confidence


def predict_clips(bundle: LoadedBundle, clips: Sequence[Clip], *, min_confidence: float) -> FilePredictions:
    """Predicts clips that are arrays, in batches.

    Arrays that the model does not read are ignored. Longer audio is cut to its middle, as in training;
    shorter audio and missing frames are masked.

    Args:
      bundle: a loaded bundle.
      clips: each has a `clip_id` and the arrays that the model reads: `spectrogram` [t f] (steps, frequency
        bins; natural logarithms of magnitudes), `faces` uint8 RGB [s h w 3] (frames, height, width),
        `audio_features` [u d] or `face_features` [s d] (vectors of the encoders), and optionally `face_mask`
        bool [s], False for frames without a face. Except for `faces` and `face_mask`, they may have any
        numeric dtype, with values from -65504 to 65504. f, h, w and d are those of the training clips, and s
        is at most theirs; t and u may differ.
      min_confidence: predictions with a lower confidence get the label `unknown`.

    Returns:
      A list with one Prediction per clip, in order. It has `path` (the clip_id), `start` and `end` (0),
      `label` (the most probable class), `confidence` (its probability), `probabilities` (dict by class name),
      `voice_weight` and `face_weight` (None if the model has none), `audio_ok` and `video_ok` (False if the
      clip has no audio or no face) and `notes` (""). `to_pandas` of the list returns a table.

    Raises:
      ValueError: `min_confidence` is not a number from 0 to 1; an entry of `clips` is not an `ef.Clip`; an
        array has a wrong shape, dtype or value, or too many frames; a clip has nothing, or only one of two
        audio arrays, that the model reads; or the bundle cannot be run on this machine. The message is one
        line that names the argument, the clip and the field, or the bundle.
    """
    check_min_confidence(min_confidence)
    for clip in clips:
        if not isinstance(clip, Clip):
            raise ValueError(
                f"clips: {clip!r}, expected ef.Clip; to predict a media file, pass only its path, as a string"
            )
    shape = ClipShape.from_spec(bundle_input_spec(bundle))
    unread: dict[str, Any] = {name: None for name in ARRAY_AXES if not all(shape.trailing(name))}
    windows = (
        PreparedWindow(clip.clip_id, 0.0, 0.0, to_record(dataclasses.replace(clip, **unread), shape))
        for clip in clips
    )
    return FilePredictions(predict_windows(bundle, windows, min_confidence))
