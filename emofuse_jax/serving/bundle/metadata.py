"""Types of the contents of `bundle.json`, for the code that writes it and the code that reads it."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, NotRequired, TypedDict

if TYPE_CHECKING:  # a bundle is loaded without the packages that these need
    from emofuse_jax.data.metadata import PrepSettingsDict
    from emofuse_jax.training.checkpoint.metadata import SpecFields, StatisticsFields
    from emofuse_jax.types import ConfigFields


class EncoderReference(TypedDict):
    """ONNX file that prepares inputs of the model; identified by its SHA-256."""

    file: str
    """Name of the file, for messages only."""
    sha256: str
    """SHA-256 of the file, in hexadecimal."""


class WindowLength(TypedDict):
    """Length of one window, which is one clip of the model."""

    steps: int
    """Number of audio steps (or steps of audio features)."""
    seconds: float
    """Length in seconds."""


class BundleConfig(TypedDict):
    """Parts of the training config that a bundle contains."""

    name: str
    """Name of the config; may be empty."""
    model: "ConfigFields"
    """The field `config.model`."""


class ModelDescription(TypedDict):
    """Fields of `bundle.json` that describe the model and its training (`export.make_manifest`)."""

    classes: list[str]
    """Class names in the order of the probabilities."""
    settings: "PrepSettingsDict"
    """Settings of the preparation, from prep.json."""
    spec: "SpecFields"
    """Sizes of the inputs."""
    statistics: "StatisticsFields"
    """Statistics of the audio over the training clips."""
    training_speakers: list[str]
    """Speakers of the training and validation clips."""
    corpus: str
    """Name of the corpus."""
    protocol: str
    """Name of the split protocol."""
    fold: int
    """Number of the fold."""
    window: WindowLength
    """Length of one window."""
    encoders: NotRequired[dict[str, EncoderReference]]
    """ONNX files that prepare the inputs, by kind (`onnx_files.FLAG_NAMES`); absent if there are none."""
    config: BundleConfig
    """Parts of the training config."""
    checkpoint: str
    """Kind of the exported checkpoint: `best` or `last`."""
    quantized: str
    """Format of the weights, one of `quantization.WEIGHT_FORMATS`; "" for float32."""
    progress: Mapping[str, object]
    """Best validation result of the run (`TrackerFields`); empty if the checkpoint has none."""
    temperature: float
    """Temperature of the probabilities."""
    intended_use: str
    """Statement on the intended use."""
    limits: str
    """Statement on limitations, with the legal notice."""
    platforms: list[str]
    """Platforms that the graph is compiled for."""
    created: str
    """Date of the export, as YYYY-MM-DD."""
    versions: dict[str, str]
    """Versions of the installed packages, by name."""
    modalities: list[str]
    """Modalities that the model uses: `voice`, `face` or both."""


class BundleMetadata(ModelDescription):
    """Contents of `bundle.json`."""

    kind: str
    """Always `format.BUNDLE_KIND`."""
    schema: int
    """Number of the schema (`format.SCHEMA_VERSION`)."""
    files: dict[str, str]
    """SHA-256 of every other file in the bundle, by file name."""
