"""Defines the settings of frozen encoders and detectors, stored in prep.json, checkpoints and bundles."""

import dataclasses
from collections.abc import Mapping
from typing import Any, Generic, TypeVar

from data_prep.onnx_models.layouts import (
    LAYOUTS,
    AudioLayout,
    DetectorLayout,
    FaceLayout,
    Layout,
    parse_layout,
)
from emofuse_jax.data.metadata import FeatureSettingsDict
from emofuse_jax.utils import onnx_files

TENSOR_CHOICES = ("keep", "drop")
LayoutT = TypeVar("LayoutT", bound=Layout, covariant=True)


@dataclasses.dataclass(frozen=True)
class EncoderSettings(Generic[LayoutT]):
    """Settings of one encoder or detector."""

    file: str
    """Name of the ONNX file, for messages only; the file is identified by its hash."""
    sha256: str
    width: int
    """Width d of the output; 0 for a detector."""
    layout: LayoutT


@dataclasses.dataclass(frozen=True)
class FeatureSettings:
    """The frozen encoders to run, and whether the tensors that they read are stored too."""

    tensors: str = "keep"
    """`keep`, or `drop`: records have no spectrogram or crops if their modality has an encoder."""
    audio: EncoderSettings[AudioLayout] | None = None
    face: EncoderSettings[FaceLayout] | None = None
    detector: EncoderSettings[DetectorLayout] | None = None
    """A custom face detector, used instead of MTCNN."""

    def __post_init__(self) -> None:
        if self.tensors not in TENSOR_CHOICES:
            raise ValueError(
                f"tensors: {self.tensors!r}, expected one of {', '.join(TENSOR_CHOICES)}; correct it in the"
                " feature settings"
            )

    @property
    def drops_audio(self) -> bool:
        """True if records have no spectrogram: tensors are dropped and there is an audio encoder."""
        return self.tensors == "drop" and self.audio is not None

    @property
    def drops_faces(self) -> bool:
        """True if records have no face crops: tensors are dropped and there is a face encoder."""
        return self.tensors == "drop" and self.face is not None

    @classmethod
    def from_dict(cls, values: FeatureSettingsDict) -> "FeatureSettings":
        """Builds the settings from JSON values with the keys `tensors`, `audio`, `face` and `detector`.

        `tensors` is `keep` or `drop`; the others are None or a dict with the keys `file` (name of the ONNX
        file), `sha256` (its hash), `width` (of the output vectors; 0 for a detector) and `layout` (a dict
        with the content of its YAML file). A missing key gets its default, `keep` or None. The result has the
        same four fields, in which the dicts are `EncoderSettings` with the same names.

        Raises:
          ValueError: the layout of an encoder is wrong, or `tensors` is neither `keep` nor `drop`.
          TypeError: a field is unknown, or a field of an encoder is missing.
          AttributeError: an encoder is neither None nor a dict.
        """
        unchecked_fields: dict[str, Any] = {**values}
        for kind in LAYOUTS:
            if unchecked_fields.get(kind):
                unchecked_fields[kind] = _encoder_from_dict(kind, unchecked_fields[kind])
        return cls(**unchecked_fields)


def _encoder_from_dict(kind: str, fields: Mapping[str, Any]) -> EncoderSettings[Layout]:
    layout = parse_layout(kind, fields.get("layout"), onnx_files.DISPLAY_NAMES[kind])
    return EncoderSettings(**{**fields, "layout": layout})


NO_ENCODERS = FeatureSettings()
