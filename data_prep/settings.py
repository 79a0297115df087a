"""Every setting that decides what a record holds, and the named recipes that pin them."""

import dataclasses

SAMPLE_RATE = 16_000


@dataclasses.dataclass(frozen=True)
class AudioSettings:
    """A log-magnitude spectrogram frontend."""

    frontend: str = "log_spectrogram_v1"
    """Names the computation; a change of computation is a new name."""
    sample_rate: int = SAMPLE_RATE
    window_ms: float = 40.0
    hop_ms: float = 10.0
    window: str = "hamming"
    dft: int = 800
    bins: int = 200
    """The lowest bins of the DFT that are kept."""
    floor: float = 1e-5
    """Added to the magnitude before the logarithm."""


@dataclasses.dataclass(frozen=True)
class FaceSettings:
    """Frame sampling, detection and alignment."""

    detector: str = "mtcnn_v1"
    frames: int = 16
    sampling: str = "even"
    """`even`: frames at the centres of equal parts of the clip."""
    size: int = 112
    margin: float = 0.3
    """The face box is enlarged by this share of its size before cropping."""
    min_face: float = 0.12
    """Smallest face searched for, as a share of the frame's shorter side."""
    min_score: float = 0.8


@dataclasses.dataclass(frozen=True)
class PrepSettings:
    """All settings of a preparation; stored in prep.json, checkpoints and bundles."""

    recipe: str = "fbp"
    audio: AudioSettings = AudioSettings()
    face: FaceSettings = FaceSettings()

    def to_dict(self) -> dict:
        """Plain dicts, ready for JSON."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: dict) -> "PrepSettings":
        """The inverse of `to_dict`; raises ValueError on an unknown or missing field."""
        try:
            return cls(values["recipe"], AudioSettings(**values["audio"]), FaceSettings(**values["face"]))
        except (KeyError, TypeError) as error:
            raise ValueError(f"preparation settings: {error}") from error


RECIPES = {"fbp": PrepSettings()}
