"""One clip as JSON: arrays by name, each a nested list, or base64 of its bytes beside its shape."""

import base64
import binascii
from collections.abc import Collection, Mapping, Sequence

import numpy as np

MASKS = {
    "audio": "audio_mask",
    "audio_features": "audio_features_mask",
    "faces": "face_mask",
    "face_features": "face_mask",
}
READ = {"voice": ("audio", "audio_features"), "face": ("faces", "face_features")}
"""Which arrays a modality has."""


class FieldError(ValueError):
    """A field of a request that can't be used."""

    def __init__(self, field: str, detail: str):
        super().__init__(f"{field}: {detail}")
        self.field, self.detail = field, detail


def readable(modalities: Sequence[str], inputs: Collection[str]) -> list[str]:
    """Names of the arrays that a caller can give to a model of these modalities."""
    return [name for modality in modalities for name in READ[modality] if name in inputs]


def read_clip(
    given: Mapping[str, object], modalities: Sequence[str], inputs: Mapping[str, tuple[tuple, np.dtype]]
) -> dict[str, np.ndarray]:
    """A batch of one row from the arrays of a clip.

    Args:
      given: `audio` [t f], `faces` [s h w 3], `audio_features` [u d], `face_features` [s d], as far as the
        model reads them and the clip has them; fewer steps or faces than the model's are padded.
        `face_mask` [s] tells which faces there are; without it all that are given.
      modalities: of the model, `voice`, `face` or both.
      inputs: of the bundle.

    Raises:
      FieldError: an unknown name, another shape or dtype, numbers that are not finite, or nothing at all.
    """
    row = {name: np.zeros((1, *shape), dtype) for name, (shape, dtype) in inputs.items()}
    names = readable(modalities, inputs)
    for name in given:
        if name not in names and (name != "face_mask" or "face" not in modalities):
            raise FieldError(f"inputs.{name}", f"the model reads {', '.join(names)}")
    for name in names:
        if given.get(name) is None:
            continue
        values = read_array(f"inputs.{name}", given[name], *inputs[name])
        row[name][0, : len(values)] = values
        row[MASKS[name]][0, : len(values)] = True
    if given.get("face_mask") is not None:
        mask = read_array("inputs.face_mask", given["face_mask"], *inputs["face_mask"])
        row["face_mask"][0, len(mask) :] = False
        row["face_mask"][0, : len(mask)] &= mask
    if not any(row[MASKS[name]].any() for name in names):
        raise FieldError("inputs", f"nothing to go by: give {' or '.join(names)}")
    return row


def read_array(field: str, given: object, shape: tuple, dtype: np.dtype) -> np.ndarray:
    """An array of at most `shape[0]` rows of `shape[1:]`; FieldError where it is none."""
    array = _decoded(field, given, dtype) if isinstance(given, Mapping) else _listed(field, given, dtype)
    wanted = f"expected [1 to {', '.join(map(str, shape))}]"
    if array.ndim != len(shape) or array.shape[1:] != shape[1:] or not 1 <= len(array) <= shape[0]:
        raise FieldError(field, f"shape {list(array.shape)}, {wanted}")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise FieldError(field, "has numbers that are not finite in float16")
    return array


def _decoded(field: str, given: Mapping, dtype: np.dtype) -> np.ndarray:
    shape, data = given.get("shape"), given.get("data")
    if not isinstance(data, str) or not isinstance(shape, list):
        raise FieldError(field, "expected a list, or an object of shape and data")
    if not all(type(n) is int and 0 <= n < 2**31 for n in shape):
        raise FieldError(f"{field}.shape", "expected whole numbers")
    try:
        found = base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError) as error:
        raise FieldError(f"{field}.data", f"not base64: {error}") from error
    stored = np.dtype(np.uint8) if dtype == np.bool_ else dtype.newbyteorder("<")
    count = 1
    for n in shape:
        count *= n
    if len(found) != count * stored.itemsize:
        raise FieldError(
            f"{field}.data", f"{len(found)} bytes, {shape} of {dtype} has {count * dtype.itemsize}"
        )
    return np.frombuffer(found, stored).reshape(shape).astype(dtype)


def _listed(field: str, given: object, dtype: np.dtype) -> np.ndarray:
    try:
        array = np.asarray(given)
    except ValueError as error:
        raise FieldError(field, "rows of different lengths") from error
    if array.dtype.kind not in ("b" if dtype == np.bool_ else "iu" if dtype.kind == "u" else "iuf"):
        raise FieldError(field, f"expected numbers of {dtype}")
    if dtype.kind == "u" and array.size and (array.min() < 0 or array.max() > np.iinfo(dtype).max):
        raise FieldError(field, f"numbers out of the range of {dtype}")
    with np.errstate(over="ignore"):
        return array.astype(dtype)
