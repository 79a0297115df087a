"""The feature variant of an experiment: both encoders are replaced by a projection of frozen features.

Each vector of features passes a layer norm, a linear layer and tanh. Fusion, attention, losses and optimizer
of the experiment stay.
"""

import ml_collections

from emofuse_jax.models.layers.attention_pooling import ATTENTION_DEFAULTS
from emofuse_jax.models.registry import MODALITIES
from emofuse_jax.settings.model import encoder_config
from emofuse_jax.settings.shipped import load_experiment


def with_features(experiment: str = "am_fbp") -> ml_collections.ConfigDict:
    """Returns the config of an experiment for records that hold features of frozen encoders.

    It is the config of the experiment with both encoders replaced, no initial parameters and the recipe
    `features`; its name is `features` for am_fbp, otherwise `features_<experiment>`. `experiment` is the name
    of a shipped experiment or of a registered fusion.

    Raises:
      LookupError: there is neither a shipped experiment nor a fusion of that name, or it is `features`.
      ValueError: an installed package provides the fusion, but it cannot be imported or used.
    """
    if experiment == "features":
        raise LookupError(
            "experiment 'features': no such shipped experiment, since it is a feature variant itself;"
            " expected another one, such as am_fbp"
        )
    config = load_experiment(experiment)
    use_features(config)
    config.name = "features" if experiment == "am_fbp" else f"features_{experiment}"
    return config


def use_features(config: ml_collections.ConfigDict) -> None:
    """Changes the config of an experiment into its feature variant, in place.

    Both encoders become `features` with its default fields; the fields of the attention after them stay.
    `init` becomes empty, and `data.recipe` becomes `features`; the name does not change.

    Raises:
      KeyError: there is no fusion with the name `config.model.fusion.name`.
      ValueError: an installed package provides the fusion, but it cannot be imported or used.
    """
    for modality in MODALITIES:
        attention = {k: v for k, v in config.model[modality].items() if k in ATTENTION_DEFAULTS}
        fields = encoder_config(modality, "features", config.model.fusion.name)
        config.model[modality] = ml_collections.ConfigDict(fields | attention)
    config.init.update(audio="", video="")
    config.data.recipe = "features"
