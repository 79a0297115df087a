"""Reads one clip from JSON: arrays by name, each a nested list, or base64 of its bytes with its shape."""

import base64
import binascii
from collections.abc import Collection, Mapping, Sequence

import numpy as np

from emofuse_jax.serving.interfaces import InputShapes

MASK_NAMES = {
    "audio": "audio_mask",
    "audio_features": "audio_features_mask",
    "faces": "face_mask",
    "face_features": "face_mask",
}
"""Name of the mask of each array."""
ARRAYS_BY_MODALITY = {"voice": ("audio", "audio_features"), "face": ("faces", "face_features")}
"""Arrays that belong to each modality."""


class FieldError(ValueError):
    """Raised if a field of a request is invalid; has the attributes `field` and `detail`."""

    def __init__(self, field: str, detail: str) -> None:
        super().__init__(f"{field}: {detail}")
        self.field, self.detail = field, detail


def accepted_array_names(modalities: Sequence[str], inputs: Collection[str]) -> list[str]:
    """Returns the names of the arrays that a caller can send to a model with these modalities and inputs.

    For `voice`, these are `audio` and `audio_features`; for `face`, `faces` and `face_features`; each only if
    it is in `inputs`. They are in the order of `modalities`; masks are not included. Raises KeyError for
    another modality.
    """
    return [name for modality in modalities for name in ARRAYS_BY_MODALITY[modality] if name in inputs]


def read_clip(
    arrays: Mapping[str, object], modalities: Sequence[str], inputs: InputShapes
) -> dict[str, np.ndarray]:
    """Returns one array [1 ...] for each name in `inputs`, masks included: a batch of one clip, padded.

    Masks are True where a step or face was sent. A modality that was not sent is zero and masked.

    Args:
      arrays: `audio` [t f] (steps, frequency bins), `faces` [s h w 3] (frames, height, width),
        `audio_features` [u d] (steps, width) and `face_features` [s d], by name. Each is a nested list, or
        {"shape": list, "data": base64 of the little-endian values in C order, in the dtype of the input};
        None counts as missing. t, s and u may be less than the model's, but not more. `face_mask` [s], bool,
        is False for frames without a face, as are frames after its end; by default all that are sent have
        one.
      modalities: modalities of the model, `voice`, `face` or both.
      inputs: shape without the batch axis, and dtype, of each input of the model.

    Raises:
      FieldError: an array is unknown, has another form, shape or dtype, more steps or frames than the model's
        or values that are not finite; or no usable voice or face is sent. Its `field` names the array, such
        as `inputs.audio`, and `detail` says what is wrong.
      KeyError: a modality is neither `voice` nor `face`.
    """
    row = {name: np.zeros((1, *shape), dtype) for name, (shape, dtype) in inputs.items()}
    names = accepted_array_names(modalities, inputs)
    for name in arrays:
        if name not in names and (name != "face_mask" or "face" not in modalities):
            raise FieldError(f"inputs.{name}", f"unknown input; the model reads {', '.join(names)}")
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
        raise FieldError("inputs", f"no usable voice or face: send {' or '.join(names)}")
    return row


def read_array(field: str, json_value: object, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """Returns the array in `json_value` with 1 to `shape[0]` rows of shape `shape[1:]`, as `dtype`.

    Args:
      field: name of the field, for errors.
      json_value: nested list (of numbers; whole numbers for uint8, booleans for bool), or dict of `shape` and
        `data`, the base64 of the values as `dtype`, little-endian, in C order.
      shape: expected shape; the first axis is a maximum.
      dtype: dtype of the result: float16, uint8 or bool.

    Raises:
      FieldError: the value has another form, shape or type of numbers, or a number is not finite in `dtype`
        or out of its range. The error has `field` and `detail`, a text.
    """
    array = (
        _decode_base64(field, json_value, dtype)
        if isinstance(json_value, Mapping)
        else _convert_list(field, json_value, dtype)
    )
    if array.ndim != len(shape) or array.shape[1:] != shape[1:] or not 1 <= len(array) <= shape[0]:
        raise FieldError(field, f"shape {list(array.shape)}: expected [1 to {', '.join(map(str, shape))}]")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise FieldError(field, "contains numbers that are not finite in float16; expected -65504 to 65504")
    return array


def _decode_base64(field: str, json_value: Mapping[str, object], dtype: np.dtype) -> np.ndarray:
    """Returns the array of a base64 object {"shape", "data"}, with this shape and `dtype`.

    `data` is the base64 of little-endian values in C order (the last axis changes fastest), one byte each for
    bool. Raises FieldError if one of the two is missing or invalid, or the number of bytes does not fit shape
    and dtype.
    """
    shape, data = json_value.get("shape"), json_value.get("data")
    if not isinstance(data, str) or not isinstance(shape, list):
        raise FieldError(
            field, "expected a nested list, or an object with shape and data, the base64 of its values"
        )
    if not all(type(length) is int and 0 <= length < 2**31 for length in shape):
        raise FieldError(f"{field}.shape", "expected a list of whole numbers from 0")
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
            f"{field}.data",
            f"{len(raw_bytes)} bytes: expected {num_elements * dtype.itemsize} for {dtype}{shape}",
        )
    try:
        return np.frombuffer(raw_bytes, stored_dtype).reshape(shape).astype(dtype)
    except ValueError as error:  # more axes or elements than NumPy supports
        raise FieldError(
            f"{field}.shape", f"NumPy cannot make an array of this shape: {error}; send another shape"
        ) from error


def _convert_list(field: str, json_value: object, dtype: np.dtype) -> np.ndarray:
    """Returns the array of a nested list, as `dtype`; `field` is the name of the field, for the error.

    Raises FieldError if its rows have different lengths or its values are not numbers that fit `dtype`.
    Numbers that are too large for a float dtype become infinite.
    """
    try:
        array = np.asarray(json_value)
    except ValueError as error:
        raise FieldError(field, "expected rows of equal length") from error
    if array.dtype.kind not in ("b" if dtype == np.bool_ else "iu" if dtype.kind == "u" else "iuf"):
        kind = "true or false" if dtype == np.bool_ else "whole numbers" if dtype.kind == "u" else "numbers"
        raise FieldError(field, f"expected a nested list of {kind}, or an object with shape and data")
    if dtype.kind == "u" and array.size and (array.min() < 0 or array.max() > np.iinfo(dtype).max):
        raise FieldError(field, f"expected whole numbers from 0 to {np.iinfo(dtype).max}")
    with np.errstate(over="ignore"):
        return array.astype(dtype)
