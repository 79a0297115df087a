"""What a frozen encoder or a detector takes and gives: the YAML beside its ONNX file.

`model.yaml` beside `model.onnx` holds every key of one of the layouts below, and no other:

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

from emofuse_jax.utils.errors import to_one_line

NORMALISATIONS = ("none", "zero_mean_unit_variance")


@dataclasses.dataclass(frozen=True)
class AudioLayout:
    """An audio encoder: one clip in, a vector every `hop_ms` out, [1 u d]."""

    input: str
    """Name of the graph's input, and of the output that holds the features."""
    output: str
    layout: str
    """`waveform`: [1 n], mono at the recipe's rate; `spectrogram`: [1 t f], the recipe's."""
    normalisation: str | dict
    """`none`; `zero_mean_unit_variance`, over the clip; or `{mean: m, std: s}`, numbers or one a bin."""
    hop_ms: float
    """Milliseconds between two vectors."""
    minimum_ms: float
    """Shortest sound that the encoder takes; a shorter one is followed by zeros, after normalisation."""


@dataclasses.dataclass(frozen=True)
class FaceLayout:
    """A face encoder: crops in, a vector each out, [n d]. A pixel is `(byte * scale - mean) / std`."""

    input: str
    output: str
    layout: str
    """`nchw` or `nhwc`."""
    size: int
    """Height and width in pixels; faces are cut at this size, whatever the size of the recipe's crops."""
    channels: str
    """`rgb` or `bgr`; `mean` and `std` stand in this order."""
    scale: float
    mean: list[float]
    std: list[float]


@dataclasses.dataclass(frozen=True)
class DetectorLayout:
    """A face detector: one frame in, its faces out. A pixel is as for `FaceLayout`.

    A frame is scaled to fit into `size` and stands at its top left; the rest is black.
    """

    input: str
    boxes: str
    """Names of the outputs: [n 4], x0 y0 x1 y1; [n]; [n 10] or [n 5 2], x y of the eye at the image's left,
    at its right, the nose, the mouth's left, its right. More axes of length 1 do no harm."""
    scores: str
    landmarks: str
    units: str
    """Of boxes and landmarks: `pixels` of the input, or `shares` of its width and height."""
    score: float
    """Lowest score of a face; of faces that overlap the best one stays."""
    layout: str
    size: list[int]
    """Height and width of the input in pixels."""
    channels: str
    scale: float
    mean: list[float]
    std: list[float]


def read_layout(kind: str, path: str) -> AudioLayout | FaceLayout | DetectorLayout:
    """The YAML beside an ONNX file; ValueError, one line naming file and key, where it is wrong."""
    import yaml

    yaml_path = layout_path(path)
    try:
        with open(yaml_path, encoding="utf-8") as file:
            values = yaml.safe_load(file)
    except FileNotFoundError:
        raise ValueError(
            f"{yaml_path}: not there; it states the layout of {os.path.basename(path)}"
        ) from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{yaml_path}: not YAML: {to_one_line(error)}") from error
    return parse_layout(kind, values, yaml_path)


def layout_path(path: str) -> str:
    """`model.yaml` of `model.onnx`."""
    return f"{os.path.splitext(path)[0]}.yaml"


def parse_layout(kind: str, values, source_name: str) -> AudioLayout | FaceLayout | DetectorLayout:
    """A layout from plain values; ValueError naming `source_name` and the first key that is wrong."""
    layout_class, rules = LAYOUTS[kind]
    if not isinstance(values, dict):
        raise ValueError(f"{source_name}: expected the keys {', '.join(rules)}, found {values!r}")
    for key in values:
        if key not in rules:
            raise ValueError(f"{source_name}: key {key!r} is unknown, expected {', '.join(rules)}")
    for key, (is_valid, expected) in rules.items():
        if key not in values:
            raise ValueError(f"{source_name}: key {key!r} is missing, expected {expected}")
        if not is_valid(values[key]):
            raise ValueError(f"{source_name}: key {key!r} is {values[key]!r}, expected {expected}")
    return layout_class(**values)


def _is_number(value) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_positive(value) -> bool:
    return _is_number(value) and value > 0


def _is_list_of(value, is_valid_item, length: int | None = None) -> bool:
    return isinstance(value, list) and len(value) == (length or len(value)) and all(map(is_valid_item, value))


def _is_normalisation(value) -> bool:
    if not isinstance(value, dict):
        return isinstance(value, str) and value in NORMALISATIONS
    item_checks = {"mean": _is_number, "std": _is_positive}
    return set(value) == set(item_checks) and all(
        item_checks[key](value[key]) or (_is_list_of(value[key], item_checks[key]) and value[key])
        for key in item_checks
    )


def _choice_rule(*choices: str):
    return lambda value: isinstance(value, str) and value in choices, f"one of {', '.join(choices)}"


_TEXT_RULE = (lambda value: isinstance(value, str) and bool(value), "a name")
_POSITIVE_RULE = (_is_positive, "a number above 0")
_POSITIVE_INTEGER_RULE = (
    lambda value: _is_positive(value) and isinstance(value, int),
    "a whole number above 0",
)
_PIXEL_RULES = {
    "channels": _choice_rule("rgb", "bgr"),
    "scale": _POSITIVE_RULE,
    "mean": (lambda value: _is_list_of(value, _is_number, 3), "three numbers"),
    "std": (lambda value: _is_list_of(value, _is_positive, 3), "three numbers above 0"),
}
LAYOUTS = {
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
                "height and width, whole numbers above 0",
            ),
            **_PIXEL_RULES,
        },
    ),
}
"""Layout class of each kind of ONNX file, and for each key a check and what is expected."""
