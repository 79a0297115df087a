"""Defines the inputs and outputs of frozen encoders and detectors, and reads them from YAML files.

`model.yaml` next to `model.onnx` has exactly the keys of one of the layouts below:

    input: input_values            |   input: images
    output: last_hidden_state      |   output: embedding
    layout: waveform               |   layout: nchw
    normalisation: zero_mean_unit_variance     channels: rgb, size: 112, scale: 0.00392157
    hop_ms: 20                     |   mean: [0.485, 0.456, 0.406]
    minimum_ms: 25                 |   std: [0.229, 0.224, 0.225]
"""

import dataclasses
import math
import os
from collections.abc import Callable
from typing import TypeGuard

from emofuse_jax.data.metadata import NormalisationDict
from emofuse_jax.utils.errors import to_one_line

NORMALISATIONS = ("none", "zero_mean_unit_variance")


@dataclasses.dataclass(frozen=True)
class AudioLayout:
    """Layout of an audio encoder, which computes a vector every `hop_ms` for one clip, [1 u d]."""

    input: str
    """Name of the input of the model."""
    output: str
    """Name of the output with the features."""
    layout: str
    """`waveform`: [1 n], mono at the recipe's sample rate; `spectrogram`: [1 t f], as in the recipe."""
    normalisation: str | NormalisationDict
    """`none`; `zero_mean_unit_variance`, over the clip; or `{mean: m, std: s}`, numbers or lists by bin."""
    hop_ms: float
    """Milliseconds between two vectors."""
    minimum_ms: float
    """Shortest accepted audio in ms; shorter audio is padded with zeros after normalisation."""


@dataclasses.dataclass(frozen=True)
class FaceLayout:
    """Layout of a face encoder, which computes a vector for each crop, [n d].

    The input pixels are `(byte * scale - mean) / std`.
    """

    input: str
    """Name of the input of the model."""
    output: str
    """Name of the output with the features."""
    layout: str
    """`nchw` or `nhwc`."""
    size: int
    """Height and width in pixels; faces are cut at this size, independent of the recipe's crops."""
    channels: str
    """`rgb` or `bgr`; also the order of `mean` and `std`."""
    scale: float
    mean: list[float]
    std: list[float]


@dataclasses.dataclass(frozen=True)
class DetectorLayout:
    """Layout of a face detector, which finds the faces of one frame. Pixels are as for `FaceLayout`.

    A frame is scaled to fit into `size` and placed at the top left; the rest is black.
    """

    input: str
    """Name of the input of the model."""
    boxes: str
    """Name of the output with boxes, [n 4]: x0 y0 x1 y1. All outputs may have more axes of length 1."""
    scores: str
    """Name of the output with scores, [n]."""
    landmarks: str
    """Name of the output with landmarks, [n 10] or [n 5 2]: x y of the eye at the image's left, the eye at
    its right, the nose, the left and the right corner of the mouth."""
    units: str
    """Units of boxes and landmarks: `pixels` of the input, or `shares`: fractions of its width and height."""
    score: float
    """Lowest score of a face; of overlapping faces, only the best one is used."""
    layout: str
    """`nchw` or `nhwc`."""
    size: list[int]
    """Height and width of the input in pixels."""
    channels: str
    scale: float
    mean: list[float]
    std: list[float]


Layout = AudioLayout | FaceLayout | DetectorLayout
ValueCheck = Callable[[object], bool]
"""Returns True if a value of a YAML file is valid."""
KeyRule = tuple[ValueCheck, str]
"""The check of a key's value, and the expected value as text."""


def read_layout(kind: str, path: str) -> Layout:
    """Reads the YAML file next to an ONNX file and returns its values as the layout class of `kind`.

    The keys of the file are the fields of the result, an AudioLayout, FaceLayout or DetectorLayout;
    `parse_layout` lists them with their values.

    Args:
      kind: `audio`, `face` or `detector`.
      path: the ONNX file.

    Raises:
      ValueError: the YAML file does not exist, is not YAML, or a key is missing, unknown or has a wrong
        value; the message is one line that names the file and the key.
      KeyError: `kind` is unknown.
      OSError: the YAML file exists but can't be read.
      ModuleNotFoundError: PyYAML is not installed.
    """
    import yaml

    yaml_path = layout_path(path)
    try:
        with open(yaml_path, encoding="utf-8") as file:
            values = yaml.safe_load(file)
    except FileNotFoundError:
        raise ValueError(
            f"{yaml_path}: does not exist; write it, with the layout of {os.path.basename(path)}"
        ) from None
    except (yaml.YAMLError, ValueError) as error:  # ValueError: not UTF-8, or a date that does not exist
        raise ValueError(f"{yaml_path}: not YAML, correct it: {to_one_line(error)}") from error
    return parse_layout(kind, values, yaml_path)


def layout_path(path: str) -> str:
    """Returns the path of the YAML file of an ONNX file: `model.yaml` for `model.onnx` or `model.bin`."""
    return f"{os.path.splitext(path)[0]}.yaml"


def parse_layout(kind: str, values: object, source_name: str) -> Layout:
    """Builds the AudioLayout, FaceLayout or DetectorLayout of `kind` from values of a YAML or JSON file.

    The keys of `values` are the fields of the result:

    - AudioLayout: `input` and `output`, names in the model; `layout`, `waveform` or `spectrogram`;
      `normalisation`, `none`, `zero_mean_unit_variance` or a dict with `mean` and `std`, each a number or a
      list of numbers; `hop_ms`, the time between two vectors, and `minimum_ms`, the shortest audio, above 0.
    - FaceLayout: `input` and `output`; `layout`, `nchw` or `nhwc`; `size`, height and width in pixels, an
      integer above 0; `channels`, `rgb` or `bgr`; `scale`, above 0; `mean` and `std`, lists of three numbers.
    - DetectorLayout: the keys of FaceLayout, but `size` is a list, height and width, and instead of `output`
      there are `boxes`, `scores` and `landmarks`, names of outputs; `units`, `pixels` or `shares` (fractions
      of the input's sides); and `score`, the lowest score of a face.

    Numbers of `std` are above 0.

    Args:
      kind: `audio`, `face` or `detector`.
      values: the values; a dict if they are valid.
      source_name: the file that messages name.

    Raises:
      ValueError: the values are not a dict, or a key is missing, unknown or has a wrong value; one line that
        names `source_name` and the first such key.
      KeyError: `kind` is unknown.
    """
    layout_class, rules = LAYOUTS[kind]
    if not isinstance(values, dict):
        raise ValueError(
            f"{source_name}: expected the keys {', '.join(rules)}, found {values!r}; write them, each"
            " with a value"
        )
    for key in values:
        if key not in rules:
            raise ValueError(
                f"{source_name}: key {key!r} is unknown, expected {', '.join(rules)}; rename or remove it"
            )
    for key, (is_valid, expected) in rules.items():
        if key not in values:
            raise ValueError(f"{source_name}: key {key!r} is missing, expected {expected}")
        if not is_valid(values[key]):
            raise ValueError(f"{source_name}: key {key!r} is {values[key]!r}, expected {expected}")
    return layout_class(**values)


def _is_number(value: object) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_positive(value: object) -> bool:
    return _is_number(value) and value > 0


def _is_list_of(value: object, is_valid_item: ValueCheck, length: int | None = None) -> bool:
    return isinstance(value, list) and len(value) == (length or len(value)) and all(map(is_valid_item, value))


def _is_normalisation(value: object) -> bool:
    if not isinstance(value, dict):
        return isinstance(value, str) and value in NORMALISATIONS
    item_checks = {"mean": _is_number, "std": _is_positive}
    return set(value) == set(item_checks) and all(
        item_checks[key](value[key]) or (_is_list_of(value[key], item_checks[key]) and bool(value[key]))
        for key in item_checks
    )


def _choice_rule(*choices: str) -> KeyRule:
    return lambda value: isinstance(value, str) and value in choices, f"one of {', '.join(choices)}"


_TEXT_RULE: KeyRule = (lambda value: isinstance(value, str) and bool(value), "a name")
_POSITIVE_RULE: KeyRule = (_is_positive, "a number above 0")
_POSITIVE_INTEGER_RULE: KeyRule = (
    lambda value: _is_positive(value) and isinstance(value, int),
    "an integer above 0",
)
_PIXEL_RULES: dict[str, KeyRule] = {
    "channels": _choice_rule("rgb", "bgr"),
    "scale": _POSITIVE_RULE,
    "mean": (lambda value: _is_list_of(value, _is_number, 3), "three numbers"),
    "std": (lambda value: _is_list_of(value, _is_positive, 3), "three numbers above 0"),
}
LAYOUTS: dict[str, tuple[type[Layout], dict[str, KeyRule]]] = {
    "audio": (
        AudioLayout,
        {
            "input": _TEXT_RULE,
            "output": _TEXT_RULE,
            "layout": _choice_rule("waveform", "spectrogram"),
            "normalisation": (
                _is_normalisation,
                "none, zero_mean_unit_variance or {mean: m, std: s}, s above 0",
            ),
            "hop_ms": _POSITIVE_RULE,
            "minimum_ms": _POSITIVE_RULE,
        },
    ),
    "face": (
        FaceLayout,
        {
            "input": _TEXT_RULE,
            "output": _TEXT_RULE,
            "layout": _choice_rule("nchw", "nhwc"),
            "size": _POSITIVE_INTEGER_RULE,
            **_PIXEL_RULES,
        },
    ),
    "detector": (
        DetectorLayout,
        {
            "input": _TEXT_RULE,
            "boxes": _TEXT_RULE,
            "scores": _TEXT_RULE,
            "landmarks": _TEXT_RULE,
            "units": _choice_rule("pixels", "shares"),
            "score": (_is_number, "a number"),
            "layout": _choice_rule("nchw", "nhwc"),
            "size": (
                lambda value: _is_list_of(value, _POSITIVE_INTEGER_RULE[0], 2),
                "height and width, integers above 0",
            ),
            **_PIXEL_RULES,
        },
    ),
}
"""For each kind of ONNX file: the layout class, and for each key a check and the expected value as text."""
