"""Configs of experiments, by name, with changes."""

from collections.abc import Mapping, Sequence
from typing import Literal, get_args

from emofuse_jax.settings.experiment import default_fields
from emofuse_jax.settings.feature_variant import use_features
from emofuse_jax.settings.shipped import experiment_names, load_experiment
from emofuse_jax.settings.small_variant import shrink
from emofuse_jax.utils.config_dict import ConfigDict
from emofuse_jax.utils.validation import reject_unknown_fields

Setting = bool | int | float | str | Sequence["Setting"] | Mapping[str, "Setting"]
"""The value of a config field, or the fields of a part of the config."""
Form = Literal["full", "small", "features", "small_features"]
FORMS: tuple[Form, ...] = get_args(Form)


def configs() -> list[str]:
    """Returns the sorted names of the experiments that `config` accepts.

    They are those of emofuse, and one for each fusion that is registered or in an installed package.

    Example:
      >>> "am_fbp" in ef.configs()
      True
    """
    return experiment_names()


def config(name: str, *, form: Form = "full", **changes: Setting) -> ConfigDict:
    """Returns the config of an experiment, with changes.

    Its fields `name` and `seed` are values; `model`, `init` (sources of the initial parameters), `data`,
    `augment`, `loss`, `optimizer`, `train`, `crossval` and `mesh` (use of devices) are parts with fields of
    their own. Printing the config shows every field and its value.

    Args:
      name: an experiment that `configs` lists.
      form: `full`, the sizes of the paper; `small`, narrow encoders and a short schedule for two cores;
        `features`, encoders of precomputed features in place of spectrograms and faces; `small_features`,
        both.
      **changes: new values of fields, such as `seed=1`. A dict, such as `train={"epochs": 10}`, changes only
        the fields in it. Types and ranges are not checked.

    Raises:
      LookupError: there is no such experiment.
      ValueError: an unknown form, a field in `changes` that the config does not have, or an installed package
        provides the fusion, but it can't be imported.
      AttributeError: the new value of a part, such as `train`, is not a dict, or `name` is not a text.

    Example:
      >>> config = ef.config("am_fbp", form="small", train={"epochs": 3})
      >>> config.train.epochs, config.model.fusion.name
      (3, 'am_fbp')
    """
    if form not in FORMS:
        raise ValueError(f"form={form!r}: expected one of {', '.join(FORMS)}")
    experiment = load_experiment(name)
    if form.endswith("features"):
        use_features(experiment)
    if form.startswith("small"):
        shrink(experiment)
    reject_unknown_fields(changes, default_fields(experiment.model), "config")
    with experiment.ignore_type():
        experiment.update(changes)
    return experiment
