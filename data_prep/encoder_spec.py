"""What a frozen encoder takes and gives: the YAML beside its ONNX file, and what prep.json keeps of both.

`model.yaml` beside `model.onnx` holds every key of `AudioLayout` or of `FaceLayout`, and no other:

    input: input_values            |   input: images
    output: last_hidden_state      |   output: embedding
    layout: waveform               |   layout: nchw
    normalisation: zero_mean_unit_variance     channels: rgb, size: 112, scale: 0.00392157
    hop_ms: 20                     |   mean: [0.485, 0.456, 0.406]
    minimum_ms: 25                 |   std: [0.229, 0.224, 0.225]
"""

import dataclasses
import json
import math
import os

NORMALISATIONS = ("none", "zero_mean_unit_variance")
TENSORS = ("keep", "drop")


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
class EncoderSettings:
    """One encoder as prep.json, checkpoints and bundles name it."""

    file: str
    """Name of the ONNX file, for people; the hash decides."""
    sha256: str
    width: int
    """d of its output."""
    layout: AudioLayout | FaceLayout


@dataclasses.dataclass(frozen=True)
class FeatureSettings:
    """Which frozen encoders run, and whether the tensors that they read are stored beside their features."""

    tensors: str = "keep"
    """`drop`: spectrogram or crops of a modality that has an encoder are left out."""
    audio: EncoderSettings | None = None
    face: EncoderSettings | None = None

    def __post_init__(self):
        if self.tensors not in TENSORS:
            raise ValueError(f"tensors: {self.tensors!r}, expected one of {', '.join(TENSORS)}")

    @property
    def drops_sound(self) -> bool:
        """Records hold no spectrogram."""
        return self.tensors == "drop" and self.audio is not None

    @property
    def drops_faces(self) -> bool:
        """Records hold no crops."""
        return self.tensors == "drop" and self.face is not None

    def to_dict(self) -> dict:
        """Plain dicts and lists, ready for JSON."""
        return json.loads(json.dumps(dataclasses.asdict(self)))

    @classmethod
    def from_dict(cls, values: dict) -> "FeatureSettings":
        """The inverse of `to_dict`; raises ValueError on a wrong layout, TypeError on an unknown field."""
        encoders = {kind: values[kind] for kind in LAYOUTS if values.get(kind)}
        made = {
            kind: EncoderSettings(
                **{**given, "layout": parse_layout(kind, given.get("layout"), f"{kind} encoder")}
            )
            for kind, given in encoders.items()
        }
        return cls(**{**values, **made})


NO_ENCODERS = FeatureSettings()


def read_layout(kind: str, path: str) -> AudioLayout | FaceLayout:
    """The YAML beside an ONNX file; ValueError, one line naming file and key, where it is wrong."""
    import yaml

    name = layout_path(path)
    try:
        with open(name, encoding="utf-8") as file:
            values = yaml.safe_load(file)
    except FileNotFoundError:
        raise ValueError(f"{name}: not there; it states the layout of {os.path.basename(path)}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{name}: not YAML: {' '.join(str(error).split())}") from error
    return parse_layout(kind, values, name)


def layout_path(path: str) -> str:
    """`model.yaml` of `model.onnx`."""
    return f"{os.path.splitext(path)[0]}.yaml"


def parse_layout(kind: str, values, where: str) -> AudioLayout | FaceLayout:
    """A layout from plain values; ValueError naming `where` and the first key that is wrong."""
    layout, checks = LAYOUTS[kind]
    if not isinstance(values, dict):
        raise ValueError(f"{where}: expected the keys {', '.join(checks)}, found {values!r}")
    for key in values:
        if key not in checks:
            raise ValueError(f"{where}: key {key!r} is unknown, expected {', '.join(checks)}")
    for key, (fits, expected) in checks.items():
        if key not in values:
            raise ValueError(f"{where}: key {key!r} is missing, expected {expected}")
        if not fits(values[key]):
            raise ValueError(f"{where}: key {key!r} is {values[key]!r}, expected {expected}")
    return layout(**values)


def _number(value) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _positive(value) -> bool:
    return _number(value) and value > 0


def _listed(value, fits, length: int | None = None) -> bool:
    return isinstance(value, list) and len(value) == (length or len(value)) and all(map(fits, value))


def _normalisation(value) -> bool:
    if not isinstance(value, dict):
        return isinstance(value, str) and value in NORMALISATIONS
    fits = {"mean": _number, "std": _positive}
    return set(value) == set(fits) and all(
        fits[key](value[key]) or (_listed(value[key], fits[key]) and value[key]) for key in fits
    )


def _choice(*names: str):
    return lambda value: isinstance(value, str) and value in names, f"one of {', '.join(names)}"


_TEXT = (lambda value: isinstance(value, str) and bool(value), "a name")
_RATE = (_positive, "a number above 0")
LAYOUTS = {
    "audio": (
        AudioLayout,
        {
            "input": _TEXT,
            "output": _TEXT,
            "layout": _choice("waveform", "spectrogram"),
            "normalisation": (
                _normalisation,
                "none, zero_mean_unit_variance or {mean: m, std: s}, s above 0",
            ),
            "hop_ms": _RATE,
            "minimum_ms": _RATE,
        },
    ),
    "face": (
        FaceLayout,
        {
            "input": _TEXT,
            "output": _TEXT,
            "layout": _choice("nchw", "nhwc"),
            "size": (lambda value: _positive(value) and isinstance(value, int), "a whole number above 0"),
            "channels": _choice("rgb", "bgr"),
            "scale": _RATE,
            "mean": (lambda value: _listed(value, _number, 3), "three numbers"),
            "std": (lambda value: _listed(value, _positive, 3), "three numbers above 0"),
        },
    ),
}
"""Layout class of each kind of encoder, and for each key a check and what is expected."""
