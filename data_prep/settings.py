"""Every setting that decides what a record holds, and the named recipes that pin them."""

import dataclasses
import json
import math

from data_prep.onnx_models.encoder_settings import NO_ENCODERS, FeatureSettings
from emofuse_jax.data import records
from emofuse_jax.utils.validation import require_fields

SAMPLE_RATE = 16_000
DEVICES = ("cpu", "accelerator")


@dataclasses.dataclass(frozen=True)
class AudioSettings:
    """A frontend of data_prep/spectrogram.py: sound to a spectrogram on a logarithmic scale."""

    frontend: str = "log_spectrogram_v1"
    """Names the computation; a change of computation is a new name."""
    sample_rate: int = SAMPLE_RATE
    window_ms: float = 40.0
    hop_ms: float = 10.0
    window: str = "hamming"
    dft: int = 800
    bins: int = 200
    """The lowest bins of the DFT that are kept; of `log_mel_v1` the number of mel filters."""
    floor: float = 1e-5
    """Added before the logarithm: to the magnitude, of `log_mel_v1` to the energy."""
    waveform: bool = False
    """The sound itself is kept beside its spectrogram."""
    trim_db: float = 0.0
    """The clip, picture too, is cut to where its sound is at most this far below its loudest frame, and 0.1 s
    before and after; 0: nothing is cut."""

    def __post_init__(self):
        if not 0 <= self.trim_db < math.inf:
            raise ValueError(f"audio settings: trim_db {self.trim_db:g}: expected decibels, 0 or more")


@dataclasses.dataclass(frozen=True)
class FaceSettings:
    """Frame sampling, detection and alignment."""

    detector: str = "mtcnn_v2"
    """Names the computation; a change of computation is a new name."""
    frames: int = 16
    sampling: str = "even"
    """`even`: frames at the centres of equal parts of the clip; `snippets`: runs of consecutive frames."""
    size: int = 112
    margin: float = 0.3
    """The face box is enlarged by this share of its size before cropping."""
    min_face: float = 0.12
    """Smallest face searched for, as a share of the frame's shorter side."""
    min_score: float = 0.8
    snippet: int = 1
    """Consecutive frames of a snippet; `frames` counts those of all snippets together."""
    device: str = "cpu"
    """Where MTCNN runs while records are prepared: `accelerator`, a GPU or TPU, may change the last bits."""

    def __post_init__(self):
        if self.size < 1 or self.snippet < 1 or self.frames < 1 or self.frames % self.snippet:
            raise ValueError(
                f"face settings: size {self.size}, frames {self.frames}, snippet {self.snippet}: expected at"
                " least 1 each, and frames a multiple of snippet"
            )
        if self.device not in DEVICES:
            raise ValueError(f"face settings: device {self.device!r}: expected one of {', '.join(DEVICES)}")
        if self.snippet > 1 and self.sampling != "snippets":
            raise ValueError(f"face settings: snippet {self.snippet}: expected 1 for {self.sampling!r}")


@dataclasses.dataclass(frozen=True)
class PrepSettings:
    """All settings of a preparation; stored in prep.json, checkpoints and bundles."""

    recipe: str = "fbp"
    audio: AudioSettings = AudioSettings()
    face: FaceSettings = FaceSettings()
    features: FeatureSettings = NO_ENCODERS
    """Frozen encoders."""

    def to_dict(self) -> dict:
        """Returns all fields as plain dicts and lists, ready for JSON."""
        return json.loads(json.dumps(dataclasses.asdict(self)))

    @classmethod
    def from_dict(cls, values: dict) -> "PrepSettings":
        """Inverts `to_dict`; raises ValueError where a field is missing or unknown."""
        require_fields(values, cls().to_dict(), "preparation settings")
        try:
            features = FeatureSettings.from_dict(values["features"])
            parts = AudioSettings(**values["audio"]), FaceSettings(**values["face"])
            return cls(values["recipe"], *parts, features)
        except (AttributeError, KeyError, TypeError) as error:
            raise ValueError(f"preparation settings: {error}") from error


RECIPES = {
    "fbp": PrepSettings(),
    "hgr": PrepSettings(
        "hgr",
        AudioSettings("log_mel_v1", window="hann", dft=1024, bins=94, floor=1e-10),
        FaceSettings(frames=30, size=64),  # the size is a design choice: the paper's body was not at hand
    ),
    "cross_attention": PrepSettings(
        "cross_attention",
        AudioSettings("db_spectrogram_v1", window_ms=32.0, dft=512, bins=256),
        FaceSettings(frames=96, sampling="snippets", snippet=16),
    ),
    "features": PrepSettings("features", features=FeatureSettings("drop")),
    "speech": PrepSettings(
        "speech",
        AudioSettings(
            "log_mel_v1", window_ms=25.0, window="hann", dft=512, bins=64, floor=1e-10, trim_db=35.0
        ),
    ),
    "voice": PrepSettings(
        "voice",
        AudioSettings(
            "log_mel_v1",
            window_ms=50.0,
            hop_ms=16.0,
            window="hann",
            dft=1024,
            bins=96,
            floor=1e-10,
            trim_db=35.0,
        ),
    ),
}
"""Settings of each recipe.

`fbp` is for Deep Fusion (arXiv 1901.04889), `hgr` for Ma et al. (Appl. Sci. 2020, 10(20), 7239), with one
face for each of 30 segments, and `cross_attention` for Mocanu et al. (2023), with 6 snippets of 16 frames.
`features` samples as `fbp` does and stores what frozen encoders make of it instead
(data_prep/onnx_models/encoders.py). `speech` has the log-mel energies that speech recognisers read, and the
faces of `fbp`, without the silence before and after; `voice` the same of windows long enough to tell the
harmonics of a voice.
"""


def recipe_settings(
    name: str,
    *,
    frames: int | None = None,
    snippet: int | None = None,
    face_size: int | None = None,
    device: str | None = None,
    waveform: bool = False,
    trim_db: float | None = None,
) -> PrepSettings:
    """A recipe with other fields than it pins; ValueError where they don't fit together.

    The name stays, so that configs of the recipe open the records; prep.json holds the numbers.
    """
    settings = RECIPES[name]
    face_options = {"frames": frames, "snippet": snippet, "size": face_size, "device": device}
    face_changes = {field: value for field, value in face_options.items() if value is not None}
    trim_db = settings.audio.trim_db if trim_db is None else trim_db
    audio = dataclasses.replace(settings.audio, waveform=waveform, trim_db=trim_db)
    return dataclasses.replace(settings, audio=audio, face=dataclasses.replace(settings.face, **face_changes))


def record_shape(settings: PrepSettings) -> records.RecordShape:
    """The dimensions that all records of these settings share."""
    features = settings.features
    face_size = 0 if features.drops_faces else settings.face.size
    feature_widths = (0 if encoder is None else encoder.width for encoder in (features.audio, features.face))
    return records.RecordShape(
        settings.audio.bins, face_size, face_size, *feature_widths, waveform=settings.audio.waveform
    )
