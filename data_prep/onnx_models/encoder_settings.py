"""What prep.json, checkpoints and bundles keep of frozen encoders and of one's own face detector."""

import dataclasses

from data_prep.onnx_models.layouts import LAYOUTS, AudioLayout, DetectorLayout, FaceLayout, parse_layout
from emofuse_jax.utils import onnx_files

TENSOR_CHOICES = ("keep", "drop")


@dataclasses.dataclass(frozen=True)
class EncoderSettings:
    """One encoder or detector as prep.json, checkpoints and bundles name it."""

    file: str
    """Name of the ONNX file, for people; the hash decides."""
    sha256: str
    width: int
    """d of its output; of a detector 0."""
    layout: AudioLayout | FaceLayout | DetectorLayout


@dataclasses.dataclass(frozen=True)
class FeatureSettings:
    """Which frozen encoders run, and whether the tensors that they read are stored beside their features."""

    tensors: str = "keep"
    """`drop`: spectrogram or crops of a modality that has an encoder are left out."""
    audio: EncoderSettings | None = None
    face: EncoderSettings | None = None
    detector: EncoderSettings | None = None
    """The user's own face detector, in place of MTCNN."""

    def __post_init__(self):
        if self.tensors not in TENSOR_CHOICES:
            raise ValueError(f"tensors: {self.tensors!r}, expected one of {', '.join(TENSOR_CHOICES)}")

    @property
    def drops_audio(self) -> bool:
        """Records hold no spectrogram."""
        return self.tensors == "drop" and self.audio is not None

    @property
    def drops_faces(self) -> bool:
        """Records hold no crops."""
        return self.tensors == "drop" and self.face is not None

    @classmethod
    def from_dict(cls, values: dict) -> "FeatureSettings":
        """Reads the fields of a dict; raises ValueError on a wrong layout, TypeError on an unknown field."""
        encoders = {kind: values[kind] for kind in LAYOUTS if values.get(kind)}
        encoder_settings = {
            kind: EncoderSettings(
                **{
                    **fields,
                    "layout": parse_layout(kind, fields.get("layout"), onnx_files.DISPLAY_NAMES[kind]),
                }
            )
            for kind, fields in encoders.items()
        }
        return cls(**{**values, **encoder_settings})


NO_ENCODERS = FeatureSettings()
