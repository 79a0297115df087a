"""Records from arrays: a data set without media files."""

import itertools
import os
from collections.abc import Iterable, Mapping, Sequence

from emofuse_jax.api.records import Records, open_records
from emofuse_jax.data.array_clip import Clip, ClipShape, common_shape, to_record
from emofuse_jax.data.metadata import PrepSettingsDict
from emofuse_jax.data.records import ARRAYS_RECIPE, RecordShape
from emofuse_jax.data.writing.array_records import write_array_records


def write_records(
    path: str | os.PathLike[str],
    clips: Iterable[Clip],
    *,
    classes: Sequence[str],
    name: str = "arrays",
    folds: Sequence[Sequence[str]] = (),
    hop_ms: float = 10.0,
    feature_hop_ms: float = 20.0,
) -> Records:
    """Writes clips that are arrays as records, with folds that never share a speaker, and opens them.

    The directory holds what `prepare` writes from media: shards, manifest, splits, statistics, and metadata
    with which TFDS reads it. It appears when all clips are written, or not at all. Spectrograms and features
    are stored as float16.

    Args:
      path: directory to write; it must be new or empty.
      clips: the clips. A Clip has `clip_id`, `speaker`, `label` (name of the class, or None), and arrays:
        `spectrogram` [t f] (natural logarithms of magnitudes), `faces` uint8 [s h w 3] (RGB),
        `audio_features` [u d_a], `face_features` [s d_v] and `face_mask` bool [s] (True: the frame has a
        face), each None if there is none. t, s and u may differ between clips; frames are padded. A list may
        mix clips with audio, with video and with both. Of another iterable, which is read once, the first
        clip must have all arrays that occur and the most frames.
      classes: class names; their order is that of the labels.
      name: name of the data set.
      folds: names of the test speakers of each fold; without it speakers form up to five folds, one for each
        if there are fewer than five, none for a single one. A fifth of the other speakers is for validation.
      hop_ms: milliseconds between two steps of a spectrogram.
      feature_hop_ms: milliseconds between two vectors of `audio_features`.

    Returns:
      The records in `path`, a mapping of the clips by clip_id: `records[clip_id]` reads a Record, with
      `label` (index into `records.classes`, -1 without a label), `speaker`, and arrays such as `spectrogram`
      [t f] and `faces` uint8 [s h w 3]; `open_records` lists all.

    Raises:
      ValueError: there are no clips, a clip_id occurs twice, an array has a wrong shape, dtype or value, a
        label is not in `classes`, a clip has neither audio nor a face, `classes` does not have two different
        names, a hop is not a number above 0, a fold is empty or names an unknown speaker, or a shard is
        damaged after it was written. One line that names the clip, argument or file.
      FileExistsError: `path` exists and is not empty.
      OSError: a file cannot be written, or `path` is a file.
      AttributeError, TypeError: an entry of `clips` is not a Clip, a clip_id or speaker is not a text, or a
        hop is not a number.
      ImportError: a package whose version is stored is not installed.

    Example:
      >>> import numpy as np
      >>> rng = np.random.default_rng(0)
      >>> clips = [
      ...     ef.Clip(
      ...         clip_id=f"clip{i}",
      ...         speaker=f"speaker{i % 6}",
      ...         label=("sad", "happy")[i % 2],
      ...         audio_features=rng.normal(size=(50, 8)),
      ...         face_features=rng.normal(size=(4, 8)),
      ...     )
      ...     for i in range(24)
      ... ]
      >>> records = ef.write_records("records", clips, classes=("sad", "happy"))
      >>> len(records), records.folds
      (24, {'grouped_5fold': [0, 1, 2, 3, 4]})
    """
    _check_arguments(classes, {"hop_ms": hop_ms, "feature_hop_ms": feature_hop_ms})
    if isinstance(clips, Sequence):
        shape = common_shape(clips)
    else:
        clips = iter(clips)
        first = list(itertools.islice(clips, 1))
        shape, clips = common_shape(first), itertools.chain(first, clips)
    settings = _array_settings(shape, hop_ms, feature_hop_ms)
    record_shape = RecordShape(shape.record_bins, shape.h, shape.w, shape.audio_features, shape.face_features)
    write_array_records(
        os.fspath(path),
        (to_record(clip, shape, corpus=name, classes=classes) for clip in clips),
        name=name,
        classes=classes,
        shape=record_shape,
        settings=settings,
        folds=folds,
    )
    return open_records(path)


def _check_arguments(classes: Sequence[str], hops: Mapping[str, float]) -> None:
    if isinstance(classes, str) or len(set(classes)) != len(classes) or len(classes) < 2:
        raise ValueError(f"classes={classes!r}: expected at least two different names in a list")
    for argument, hop in hops.items():
        if not 0 < hop < float("inf"):
            raise ValueError(f"{argument}={hop!r}: expected milliseconds, a finite number above 0")


def _array_settings(shape: ClipShape, hop_ms: float, feature_hop_ms: float) -> PrepSettingsDict:
    """Returns the settings for prep.json as nested dicts: those of a preparation with the recipe `arrays`.

    The keys are `recipe`, which is `arrays`, and `audio`, `face` and `features`, dicts with all fields that
    `PrepSettings.to_dict` in data_prep/settings.py lists. Set from the arguments are `hop_ms`, `window_ms`,
    `bins` and `dft` of the audio, `frames` and `size` of the face, and `tensors`, `width` and `hop_ms` of the
    features. Fields that say nothing about arrays, such as the frontend and the detector, have their defaults
    or are `arrays`, empty or constant.

    Args:
      shape: sizes of the clips: `f` bins, `s` frames, `h` and `w` pixels of a face, widths `audio_features`
        and `face_features`; 0 for what they do not have.
      hop_ms: milliseconds between two steps of a spectrogram.
      feature_hop_ms: milliseconds between two vectors of audio features.
    """
    from data_prep.onnx_models.encoder_settings import EncoderSettings, FeatureSettings
    from data_prep.onnx_models.layouts import AudioLayout, FaceLayout
    from data_prep.settings import AudioSettings, FaceSettings, PrepSettings

    names = (ARRAYS_RECIPE, ARRAYS_RECIPE)
    audio_encoder: EncoderSettings[AudioLayout] | None = None
    face_encoder: EncoderSettings[FaceLayout] | None = None
    if shape.audio_features:
        audio_layout = AudioLayout(
            *names, "spectrogram", "none", float(feature_hop_ms), float(feature_hop_ms)
        )
        audio_encoder = EncoderSettings(ARRAYS_RECIPE, "", shape.audio_features, audio_layout)
    if shape.face_features:
        face_layout = FaceLayout(*names, "nhwc", 1, "rgb", 1.0, [0.0, 0.0, 0.0], [1.0, 1.0, 1.0])
        face_encoder = EncoderSettings(ARRAYS_RECIPE, "", shape.face_features, face_layout)
    bins = shape.record_bins
    audio = AudioSettings(
        ARRAYS_RECIPE, window_ms=float(hop_ms), hop_ms=float(hop_ms), window="", dft=2 * bins, bins=bins
    )
    face = FaceSettings(ARRAYS_RECIPE, frames=max(shape.s, 1), sampling=ARRAYS_RECIPE, size=max(shape.h, 1))
    tensors = "drop" if shape.has_only_audio_features else "keep"
    features = FeatureSettings(tensors, audio_encoder, face_encoder)
    return PrepSettings(ARRAYS_RECIPE, audio, face, features).to_dict()
