"""One clip as JSON: arrays by name, each a nested list, or base64 of its bytes beside its shape."""

import base64
import binascii
from collections.abc import Collection, Mapping, Sequence

import numpy as np

MASK_NAMES = {
    "audio": "audio_mask",
    "audio_features": "audio_features_mask",
    "faces": "face_mask",
    "face_features": "face_mask",
}
ARRAYS_BY_MODALITY = {"voice": ("audio", "audio_features"), "face": ("faces", "face_features")}
"""Which arrays a modality has."""


class FieldError(ValueError):
    """A field of a request that can't be used."""

    def __init__(self, field: str, detail: str):
        super().__init__(f"{field}: {detail}")
        self.field, self.detail = field, detail


def accepted_array_names(modalities: Sequence[str], inputs: Collection[str]) -> list[str]:
    """Names of the arrays that a caller can give to a model of these modalities."""
    return [name for modality in modalities for name in ARRAYS_BY_MODALITY[modality] if name in inputs]


def read_clip(
    arrays: Mapping[str, object], modalities: Sequence[str], inputs: Mapping[str, tuple[tuple, np.dtype]]
) -> dict[str, np.ndarray]:
    """A batch of one row from the arrays of a clip.

    Args:
      arrays: `audio` [t f], `faces` [s h w 3], `audio_features` [u d], `face_features` [s d], as far as the
        model reads them and the clip has them; fewer steps or faces than the model's are padded.
        `face_mask` [s] tells which faces there are; without it all that are given.
      modalities: of the model, `voice`, `face` or both.
      inputs: of the bundle.

    Raises:
      FieldError: an unknown name, another shape or dtype, numbers that are not finite, or nothing at all.
    """
    row = {name: np.zeros((1, *shape), dtype) for name, (shape, dtype) in inputs.items()}
    names = accepted_array_names(modalities, inputs)
    for name in arrays:
        if name not in names and (name != "face_mask" or "face" not in modalities):
            raise FieldError(f"inputs.{name}", f"the model reads {', '.join(names)}")
    for name in names:
        if arrays.get(name) is None:
            continue
        values = read_array(f"inputs.{name}", arrays[name], *inputs[name])
        row[name][0, : len(values)] = values
        row[MASK_NAMES[name]][0, : len(values)] = True
    if arrays.get("face_mask") is not None:
        mask = read_array("inputs.face_mask", arrays["face_mask"], *inputs["face_mask"])
        row["face_mask"][0, len(mask) :] = False
        row["face_mask"][0, : len(mask)] &= mask
    if not any(row[MASK_NAMES[name]].any() for name in names):
        raise FieldError("inputs", f"nothing to go by: give {' or '.join(names)}")
    return row


def read_array(field: str, json_value: object, shape: tuple, dtype: np.dtype) -> np.ndarray:
    """An array of at most `shape[0]` rows of `shape[1:]`; FieldError where it is none."""
    array = (
        _decode_base64(field, json_value, dtype)
        if isinstance(json_value, Mapping)
        else _convert_list(field, json_value, dtype)
    )
    expectation = f"expected [1 to {', '.join(map(str, shape))}]"
    if array.ndim != len(shape) or array.shape[1:] != shape[1:] or not 1 <= len(array) <= shape[0]:
        raise FieldError(field, f"shape {list(array.shape)}, {expectation}")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise FieldError(field, "has numbers that are not finite in float16")
    return array


def _decode_base64(field: str, json_value: Mapping, dtype: np.dtype) -> np.ndarray:
    shape, data = json_value.get("shape"), json_value.get("data")
    if not isinstance(data, str) or not isinstance(shape, list):
        raise FieldError(field, "expected a list, or an object of shape and data")
    if not all(type(length) is int and 0 <= length < 2**31 for length in shape):
        raise FieldError(f"{field}.shape", "expected whole numbers")
    try:
        raw_bytes = base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError) as error:
        raise FieldError(f"{field}.data", f"not base64: {error}") from error
    stored_dtype = np.dtype(np.uint8) if dtype == np.bool_ else dtype.newbyteorder("<")
    num_elements = 1
    for length in shape:
        num_elements *= length
    if len(raw_bytes) != num_elements * stored_dtype.itemsize:
        raise FieldError(
            f"{field}.data", f"{len(raw_bytes)} bytes, {shape} of {dtype} has {num_elements * dtype.itemsize}"
        )
    return np.frombuffer(raw_bytes, stored_dtype).reshape(shape).astype(dtype)


def _convert_list(field: str, json_value: object, dtype: np.dtype) -> np.ndarray:
    try:
        array = np.asarray(json_value)
    except ValueError as error:
        raise FieldError(field, "rows of different lengths") from error
    if array.dtype.kind not in ("b" if dtype == np.bool_ else "iu" if dtype.kind == "u" else "iuf"):
        raise FieldError(field, f"expected numbers of {dtype}")
    if dtype.kind == "u" and array.size and (array.min() < 0 or array.max() > np.iinfo(dtype).max):
        raise FieldError(field, f"numbers out of the range of {dtype}")
    with np.errstate(over="ignore"):
        return array.astype(dtype)
