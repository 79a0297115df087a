"""Defines every field of `config.model` with its default, at the sizes of the papers."""

from ml_collections import ConfigDict

from emofuse_jax.models.layers.attention_pooling import ATTENTION_DEFAULTS
from emofuse_jax.models.layers.margins import MARGIN_DEFAULTS
from emofuse_jax.models.registry import ENCODERS, FUSIONS
from emofuse_jax.types import ConfigFields


def default_model_config(fusion: str = "am_fbp", *, audio: str = "fcn", video: str = "frames") -> ConfigDict:
    """Returns the config of a model at the sizes of the papers.

    Args:
      fusion: Name of the fusion, such as `am_fbp`, `concat` or one that was registered.
      audio: Name of the audio encoder: `fcn`, `mel_cnn`, `ecapa`, `segments`, `resnet`, `features` or one
        that was registered.
      video: Name of the video encoder: `frames`, `snippets`, `features` or one that was registered.

    Returns:
      `dtype` of the activations, `float32` or `bfloat16`; `audio` and `video`: name of the `encoder`, the
      `defaults` of its class and, for fusions of pooled vectors, its attention (`encoder_config`); `fusion`:
      `name` and the `defaults` of its class; `margins` between classes: their `kind` ("none", "triplet" or
      "hierarchical"), their `mean`, and the factor `across` for classes of different polarity; `polarity`: -1
      (negative), 0 (neutral) or 1 (positive) for each class, or empty, to derive it from the class names if
      it is needed.

    Raises:
      ValueError: The name of the fusion or of an encoder is unknown, or an installed package provides it but
        it cannot be imported or used.
    """
    fusion_class = FUSIONS.require(fusion, "fusion")
    return ConfigDict(
        {
            "dtype": "float32",
            "audio": encoder_config("audio", audio, fusion),
            "video": encoder_config("video", video, fusion),
            "fusion": {"name": fusion} | dict(fusion_class.defaults),
            "margins": dict(MARGIN_DEFAULTS),
            "polarity": (),
        }
    )


def encoder_config(modality: str, name: str, fusion: str) -> ConfigFields:
    """Returns the default fields of an encoder and, for a fusion of vectors, of the attention after it.

    `modality` is `audio` or `video`; `name` and `fusion` are names of an encoder and a fusion. The result is
    a dict: `encoder`, the name; the fields in `defaults` of its class; and, for a fusion of pooled vectors,
    `attention`, the name of its kind, `attention_width`, the width of its hidden layer, and `temperature`, a
    factor on its scores.

    Raises:
      ValueError: there is no encoder `name` of this modality, or an installed package provides it or the
        fusion but it cannot be imported or used.
      KeyError: there is no fusion of this name, or the modality is another one.
    """
    attention = ATTENTION_DEFAULTS if FUSIONS[fusion].takes == "vectors" else {}
    return {"encoder": name} | dict(ENCODERS[modality].require(name, modality).defaults) | attention
