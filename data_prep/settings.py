"""Defines the settings of a preparation, and the named recipes, which are fixed settings."""

import dataclasses
import json
import math

from data_prep.onnx_models.encoder_settings import NO_ENCODERS, FeatureSettings
from emofuse_jax.data import records
from emofuse_jax.data.metadata import PrepSettingsDict
from emofuse_jax.utils.validation import require_fields

SAMPLE_RATE = 16_000
DEVICES = ("cpu", "accelerator")


@dataclasses.dataclass(frozen=True)
class AudioSettings:
    """Settings of an audio frontend (data_prep/spectrogram.py), which computes logarithmic spectrograms."""

    frontend: str = "log_spectrogram_v1"
    """Name of the computation; a changed computation gets a new name."""
    sample_rate: int = SAMPLE_RATE
    window_ms: float = 40.0
    hop_ms: float = 10.0
    window: str = "hamming"
    dft: int = 800
    bins: int = 200
    """Number of lowest DFT bins that are stored; for `log_mel_v1`, the number of mel filters."""
    floor: float = 1e-5
    """Constant added before the logarithm: to the magnitude; for `log_mel_v1`, to the energy."""
    waveform: bool = False
    """Whether the samples are stored too, next to the spectrogram."""
    trim_db: float = 0.0
    """Level in dB below the loudest frame; quieter audio at both ends of a clip is cut off, with the video,
    except for 0.1 s before and after. 0: nothing is cut."""

    def __post_init__(self) -> None:
        if not 0 <= self.trim_db < math.inf:
            raise ValueError(f"audio settings: trim_db {self.trim_db:g}: expected decibels, 0 or more")


@dataclasses.dataclass(frozen=True)
class FaceSettings:
    """Settings of frame sampling, face detection and alignment."""

    detector: str = "mtcnn_v2"
    """Name of the computation; a changed computation gets a new name."""
    frames: int = 16
    """Number of sampled frames of a clip."""
    sampling: str = "even"
    """`even`: frames at the centres of equal parts of the clip; `snippets`: runs of consecutive frames."""
    size: int = 112
    """Height and width of a face crop in pixels."""
    margin: float = 0.3
    """Fraction of its size by which the face box is enlarged before cropping."""
    min_face: float = 0.12
    """Smallest detectable face, as a fraction of the frame's shorter side."""
    min_score: float = 0.8
    """Lowest detector score of a face."""
    snippet: int = 1
    """Number of consecutive frames in a snippet; `frames` is the total of all snippets."""
    device: str = "cpu"
    """Device that runs MTCNN during preparation; `accelerator`, a GPU or TPU, may change the last bits."""

    def __post_init__(self) -> None:
        if self.size < 1 or self.snippet < 1 or self.frames < 1 or self.frames % self.snippet:
            raise ValueError(
                f"face settings: size {self.size}, frames {self.frames}, snippet {self.snippet}: expected at"
                " least 1 each, and frames a multiple of snippet"
            )
        if self.device not in DEVICES:
            raise ValueError(f"face settings: device {self.device!r}: expected one of {', '.join(DEVICES)}")
        if self.snippet > 1 and self.sampling != "snippets":
            raise ValueError(
                f"face settings: snippet {self.snippet}: expected 1 if sampling={self.sampling}; only"
                " sampling=snippets has more"
            )


@dataclasses.dataclass(frozen=True)
class PrepSettings:
    """All settings of a preparation, which are stored in prep.json, checkpoints and bundles."""

    recipe: str = "fbp"
    audio: AudioSettings = AudioSettings()
    face: FaceSettings = FaceSettings()
    features: FeatureSettings = NO_ENCODERS
    """Settings of frozen encoders."""

    def to_dict(self) -> PrepSettingsDict:
        """Returns all fields as plain dicts and lists, ready for JSON.

        The keys are `recipe`, a text, and three dicts: `audio` with `frontend`, `sample_rate` (Hz),
        `window_ms`, `hop_ms`, `window`, `dft`, `bins`, `floor`, `waveform` and `trim_db`; `face` with
        `detector`, `frames`, `sampling`, `size`, `margin`, `min_face`, `min_score`, `snippet` and `device`;
        and `features` with `tensors` (`keep` or `drop`) and `audio`, `face` and `detector`, each None or a
        dict of `file`, `sha256`, `width` and `layout` (the content of its YAML file).
        """
        return json.loads(json.dumps(dataclasses.asdict(self)))

    @classmethod
    def from_dict(cls, values: PrepSettingsDict) -> "PrepSettings":
        """Builds settings from the dict that `to_dict` returned.

        All keys must be there, in `audio`, `face` and `features` no others. Raises ValueError if they are
        not, if `trim_db` is below 0 or not finite, `size`, `frames` or `snippet` is below 1, `frames` is no
        multiple of `snippet`, `snippet` is above 1 although `sampling` is not `snippets`, `device` is not
        `cpu` or `accelerator`, `tensors` is not `keep` or `drop`, or an encoder lacks a field or has a wrong
        layout. Other values are not checked.
        """
        require_fields(values, cls().to_dict(), "preparation settings")
        try:
            features = FeatureSettings.from_dict(values["features"])
            parts = AudioSettings(**values["audio"]), FaceSettings(**values["face"])
            return cls(values["recipe"], *parts, features)
        except (AttributeError, KeyError, TypeError) as error:
            raise ValueError(
                "preparation settings, stored in prep.json, a checkpoint or a bundle: a field is unknown or"
                f" of a wrong type: {error}; prepare the clips again"
            ) from error


RECIPES = {
    "fbp": PrepSettings(),
    "hgr": PrepSettings(
        "hgr",
        AudioSettings("log_mel_v1", window="hann", dft=1024, bins=94, floor=1e-10),
        FaceSettings(frames=30, size=64),  # our size: the full text of the paper was not available
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
"""Settings of each recipe, by name (docs/recipes.md).

`fbp` is for Deep Fusion (Zhang et al., 2019, arXiv 1901.04889). `hgr` is for Common Information (Ma et al.,
2020, Appl. Sci. 10(20), 7239), with one face for each of 30 segments. `cross_attention` is for
cross-attention with emotional metric loss (Mocanu et al., 2023, Image and Vision Computing 133), with 6
snippets of 16 frames. `features` samples frames and audio as `fbp` does, and stores the features of frozen
encoders instead of tensors (data_prep/onnx_models/encoders.py). `speech` has log-mel energies as used in
speech recognition and the faces of `fbp`, with silence cut off at both ends; `voice` is the same with windows
long enough to resolve the harmonics of a voice.
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
    """Returns the settings of a recipe with some fields changed: `recipe`, `audio`, `face` and `features`.

    The name of the recipe stays the same, so that configs for the recipe accept the records; prep.json has
    the changed values.

    Args:
      name: a key of RECIPES: `fbp`, `hgr`, `cross_attention`, `features`, `speech` or `voice`.
      frames: number of sampled frames; None, here and below: the value of the recipe.
      snippet: number of consecutive frames in a snippet.
      face_size: height and width of a crop in pixels.
      device: `cpu` or `accelerator`, on which MTCNN runs.
      waveform: True if the samples are stored too; also False replaces the value of the recipe.
      trim_db: level in dB below the loudest frame; quieter ends are cut off; 0: nothing is cut.

    Raises:
      ValueError: no recipe has this name, `frames`, `snippet` or `face_size` is below 1, `frames` is not a
        multiple of `snippet`, `snippet` is above 1 in a recipe without snippets, `device` is unknown, or
        `trim_db` is negative or not finite.
    """
    if name not in RECIPES:
        raise ValueError(f"recipe {name!r}: expected one of {', '.join(RECIPES)}; choose one of them")
    settings = RECIPES[name]
    audio, face = settings.audio, settings.face
    audio = dataclasses.replace(
        audio, waveform=waveform, trim_db=audio.trim_db if trim_db is None else trim_db
    )
    face = dataclasses.replace(
        face,
        frames=face.frames if frames is None else frames,
        snippet=face.snippet if snippet is None else snippet,
        size=face.size if face_size is None else face_size,
        device=face.device if device is None else device,
    )
    return dataclasses.replace(settings, audio=audio, face=face)


def record_shape(settings: PrepSettings) -> records.RecordShape:
    """Returns the dimensions that all records with these settings have in common.

    These are the number of bins `f`, height `h` and width `w` of face crops in pixels (0 if the crops are
    dropped), the widths `audio_features` and `face_features` (0 without an encoder), and `waveform`, True if
    waveforms are stored.
    """
    features = settings.features
    face_size = 0 if features.drops_faces else settings.face.size
    return records.RecordShape(
        f=settings.audio.bins,
        h=face_size,
        w=face_size,
        audio_features=0 if features.audio is None else features.audio.width,
        face_features=0 if features.face is None else features.face.width,
        waveform=settings.audio.waveform,
    )
