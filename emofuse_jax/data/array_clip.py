"""Clips as arrays: what `write_records` stores and what a bundle predicts without media files."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike

from emofuse_jax.data.records import Record
from emofuse_jax.types import InputSpec

MAX_FLOAT16 = 65504.0


@dataclasses.dataclass(frozen=True)
class Clip:
    """One clip as arrays. A clip without audio, or without video, leaves out those arrays.

    Letters of shapes: `t` time steps of `f` frequency bins, `s` video frames with face crops of `h` x `w`
    pixels, `u` feature vectors in time, `d` the width of a feature vector.
    """

    clip_id: str
    """Unique name."""
    speaker: str
    """Name of the person; training, validation and test clips never share a speaker."""
    label: str | None = None
    """Name of the class; None if it is unknown."""
    spectrogram: ArrayLike | None = None
    """float [t f], natural logarithms of magnitudes; augmentation assumes this unit."""
    faces: ArrayLike | None = None
    """uint8 [s h w 3], RGB face crops at equal distances in time."""
    audio_features: ArrayLike | None = None
    """float [u d], vectors of a frozen audio encoder."""
    face_features: ArrayLike | None = None
    """float [s d], vectors of a frozen face encoder, one for each frame."""
    face_mask: ArrayLike | None = None
    """bool [s], False for frames without a face; None: every frame has one."""


@dataclasses.dataclass(frozen=True)
class ClipShape:
    """The dimensions that all clips of a data set share; 0 for arrays that they do not have.

    `f` frequency bins, `s` video frames, `h` x `w` pixels of a face crop, and the widths of the vectors in
    `audio_features` and `face_features`.
    """

    f: int = 0
    s: int = 0
    h: int = 0
    w: int = 0
    audio_features: int = 0
    face_features: int = 0

    @property
    def has_only_audio_features(self) -> bool:
        """True if audio is stored as features without a spectrogram."""
        return bool(self.audio_features) and not self.f

    @property
    def record_bins(self) -> int:
        """Number of frequency bins of a record; 1 if there are no spectrograms."""
        return self.f or 1

    def trailing(self, name: str) -> tuple[int, ...]:
        """Returns the shape of one step or frame of the array `name`.

        It is (f,) for `spectrogram`, (h, w, 3) for `faces`, and (width of a vector,) for `audio_features` and
        `face_features`. Raises KeyError for any other name.
        """
        sizes = {**vars(self), "channels": 3}
        return tuple(sizes[axis] for axis in ARRAY_AXES[name][1:])

    @classmethod
    def from_spec(cls, spec: InputSpec) -> "ClipShape":
        """Returns the dimensions of the clips that a model with the input `spec` reads.

        `s` (video frames), `h`, `w` (pixels of a face crop) and the widths `audio_features` and
        `face_features` are those of `spec`; so is `f` (frequency bins), which is 0 if `spec.t` is 0.
        """
        return cls(spec.f if spec.t else 0, spec.s, spec.h, spec.w, spec.audio_features, spec.face_features)


ARRAY_AXES = {
    "spectrogram": ("t", "f"),
    "faces": ("s", "h", "w", "channels"),
    "audio_features": ("u", "audio_features"),
    "face_features": ("s", "face_features"),
}
"""Names of the axes of each array of a clip; those that ClipShape has are the same for all clips."""


def common_shape(clips: Iterable[Clip]) -> ClipShape:
    """Returns the dimensions of all clips together.

    `f` (bins), `h`, `w` (pixels of a face crop) and the widths `audio_features` and `face_features` are those
    of the first clip that has the array; `s` is the largest number of frames of faces or face features.
    Dimensions of arrays that no clip has are 0.

    Raises:
      ValueError: an array has a wrong number of dimensions (spectrogram and features 2, faces 4), or is a
        list with rows of different lengths; names the clip and the array.
    """
    sizes: dict[str, int] = {}
    for clip in clips:
        for name, axes in ARRAY_AXES.items():
            array = _as_array(clip, name)
            if array is None:
                continue
            for axis, size in zip(axes, array.shape, strict=True):
                sizes[axis] = max(size, sizes.get(axis, 0)) if axis == "s" else sizes.setdefault(axis, size)
    return ClipShape(**{field.name: sizes.get(field.name, 0) for field in dataclasses.fields(ClipShape)})


def to_record(clip: Clip, shape: ClipShape, *, corpus: str = "", classes: Sequence[str] = ()) -> Record:
    """Validates a clip and returns its `Record`, which `encode` turns into bytes.

    Spectrogram and features become float16. Missing audio is at most one step of zeros, and `audio_ok` is
    False. All frame arrays have `shape.s` frames, at least 1: a frame that is missing or has no face is zero
    in `faces` and `face_features`, and False in `face_valid`; `video_ok` is False if all are.
    `audio_features` or `face_features` is None if `shape` has width 0 for it. `votes` [c], for c classes, is
    1 for the class of the label, else 0; without a label, all are 0. Times [s], boxes [s 4] and landmarks
    [s 5 2] of faces are zero; their score [s] is 1 for a frame with a face, else 0.

    Args:
      clip: the names and arrays; `face_mask` None means a face in every frame of the clip.
      shape: the dimensions that all clips share.
      corpus: name of the data set.
      classes: class names, whose index becomes the label; empty: the label is not read and becomes -1.

    Raises:
      ValueError: an array has a wrong shape, dtype or value; the clip has more frames than `shape.s`, or
        `faces`, `face_features` and `face_mask` have different numbers of frames; it has only one of
        `spectrogram` and `audio_features` although `shape` has both; the label is not in `classes`; or it has
        neither audio nor a frame with a face. The message is one line that names the clip and the field.
    """
    expected = {name: shape.trailing(name) for name in ARRAY_AXES}
    arrays = {name: _checked_array(clip, name, trailing) for name, trailing in expected.items()}
    face_valid = _frame_mask(clip, arrays, shape.s)
    audio_ok, video_ok = _has_audio(clip, arrays, shape), bool(face_valid.any())
    if not (audio_ok or video_ok):
        raise ValueError(
            f"clip {clip.clip_id!r}: has neither audio nor a frame with a face; pass one of them"
        )
    label, num_frames = _label_index(clip, classes), len(face_valid)
    spectrogram, audio_features = arrays["spectrogram"], arrays["audio_features"]
    if spectrogram is None:
        spectrogram = np.zeros((0 if shape.has_only_audio_features else 1, shape.record_bins), np.float16)
    if audio_features is None:
        audio_features = np.zeros((1, shape.audio_features), np.float16)
    return Record(
        clip_id=clip.clip_id,
        speaker=clip.speaker,
        corpus=corpus,
        label=label,
        votes=(np.arange(len(classes)) == label).astype(np.float32),
        spectrogram=spectrogram,
        faces=_pad_frames(arrays["faces"], face_valid, expected["faces"], np.uint8),
        face_valid=face_valid,
        face_time=np.zeros(num_frames, np.float32),
        face_box=np.zeros((num_frames, 4), np.float32),
        face_landmarks=np.zeros((num_frames, 5, 2), np.float32),
        face_score=face_valid.astype(np.float32),
        audio_ok=audio_ok,
        video_ok=video_ok,
        audio_features=audio_features if shape.audio_features else None,
        face_features=_pad_frames(arrays["face_features"], face_valid, expected["face_features"], np.float16)
        if shape.face_features
        else None,
    )


def _as_array(clip: Clip, name: str) -> np.ndarray | None:
    value = getattr(clip, name)
    if value is None:
        return None
    try:
        array = np.asarray(value)
    except ValueError as error:
        raise ValueError(f"clip {clip.clip_id!r}: {name} needs rows of equal length: {error}") from error
    if array.ndim != len(ARRAY_AXES[name]):
        raise ValueError(
            f"clip {clip.clip_id!r}: {name} has shape {list(array.shape)}, expected"
            f" {len(ARRAY_AXES[name])} dimensions: {', '.join(ARRAY_AXES[name])}"
        )
    return array


def _checked_array(clip: Clip, name: str, trailing: tuple[int, ...]) -> np.ndarray | None:
    """Returns an array of a clip as it is stored: faces in uint8, others in float16; None if it is missing.

    Raises ValueError if the array is empty or has another shape than `[any, *trailing]`, if faces are not
    uint8, or if another array has no numeric dtype or has values that are not finite or whose absolute value
    is above 65504.
    """
    array = _as_array(clip, name)
    if array is None:
        return None
    clip_and_array = f"clip {clip.clip_id!r}: {name}"
    if array.shape[1:] != trailing or not len(array):
        raise ValueError(
            f"{clip_and_array} has shape {list(array.shape)}, expected {['1 or more', *trailing]}"
        )
    if name == "faces":
        if array.dtype != np.uint8:
            raise ValueError(f"{clip_and_array} is {array.dtype}, expected uint8 (0 to 255)")
        return array
    if array.dtype.kind not in "fiu":
        raise ValueError(f"{clip_and_array} is {array.dtype}, expected numbers")
    if not np.all(np.abs(array) <= MAX_FLOAT16):  # NaN fails too
        raise ValueError(
            f"{clip_and_array} has values that are not finite or do not fit float16, expected numbers from"
            f" -{MAX_FLOAT16:g} to {MAX_FLOAT16:g}"
        )
    return array.astype(np.float16)


def _frame_mask(clip: Clip, arrays: Mapping[str, np.ndarray | None], num_frames: int) -> np.ndarray:
    """Returns bool [s]: True for frames with a face, padded with False to s = max(`num_frames`, 1).

    Every frame of the clip has a face if `clip.face_mask` is None; no frame has one if `faces` and
    `face_features` in `arrays`, the validated arrays by name, are both None. Raises ValueError if the clip
    has more than `num_frames` frames, these arrays have different numbers of frames, or `face_mask` has
    another length or another dtype than bool.
    """
    face_valid = np.zeros(max(num_frames, 1), bool)
    counts = {name: len(array) for name in ("faces", "face_features") if (array := arrays[name]) is not None}
    if not counts:
        return face_valid
    if len({*counts.values()}) > 1:
        raise ValueError(
            f"clip {clip.clip_id!r}: faces has {counts['faces']} frames and face_features"
            f" {counts['face_features']}, expected the same number"
        )
    count = next(iter(counts.values()))
    if count > num_frames:
        raise ValueError(
            f"clip {clip.clip_id!r}: has {count} video frames, expected at most {num_frames}; leave out"
            " frames, or, for write_records, pass all clips in one list"
        )
    mask = np.ones(count, bool) if clip.face_mask is None else np.asarray(clip.face_mask)
    if mask.shape != (count,) or mask.dtype != bool:
        raise ValueError(
            f"clip {clip.clip_id!r}: face_mask is {mask.dtype}{list(mask.shape)}, expected bool[{count}], one"
            " value for each frame"
        )
    face_valid[:count] = mask
    return face_valid


def _pad_frames(
    array: np.ndarray | None, face_valid: np.ndarray, trailing: tuple[int, ...], dtype: type[np.generic]
) -> np.ndarray:
    """Returns `array` padded with zeros to the length of `face_valid`, and zero at frames without a face.

    All frames are zero if `array` is None. `trailing` is the shape of a frame, `dtype` that of the result.
    """
    padded: np.ndarray = np.zeros((len(face_valid), *trailing), dtype)
    if array is not None:
        padded[: len(array)] = array
        padded[~face_valid] = 0
    return padded


def _has_audio(clip: Clip, arrays: Mapping[str, np.ndarray | None], shape: ClipShape) -> bool:
    """Returns True if a clip has all audio arrays for which `shape` has a width, False if it has none.

    The audio arrays are `spectrogram` and `audio_features`; False too if `shape` has neither. Raises
    ValueError if `shape` has both, but the clip only one.
    """
    widths = {"spectrogram": shape.f, "audio_features": shape.audio_features}
    names = [name for name, width in widths.items() if width]
    missing = [name for name in names if arrays[name] is None]
    if missing and len(missing) < len(names):
        raise ValueError(
            f"clip {clip.clip_id!r}: {missing[0]} is missing; pass both spectrogram"
            " and audio_features, or neither"
        )
    return bool(names) and not missing


def _label_index(clip: Clip, classes: Sequence[str]) -> int:
    if clip.label is None or not classes:
        return -1
    if clip.label not in classes:
        raise ValueError(f"clip {clip.clip_id!r}: label {clip.label!r}, expected one of {', '.join(classes)}")
    return list(classes).index(clip.label)
