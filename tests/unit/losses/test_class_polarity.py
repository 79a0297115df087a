import json

import pytest

from data_prep.corpora import ravdess
from emofuse_jax import settings
from emofuse_jax.losses.class_polarity import class_polarities, fill_polarity
from emofuse_jax.training.experiment import check_same_config, make_metadata, open_experiment
from tests.support.fakes import tiny_config


def make_config(**fields):
    config = settings.base("concat")
    config.update_from_flattened_dict({name.replace("__", "."): value for name, value in fields.items()})
    return config


def test_polarity_of_the_corpora():
    assert class_polarities(ravdess.CLASSES) == (0, 0, 1, -1, -1, -1, -1, 1)
    assert class_polarities(("Anger", "Happiness", "Neutral")) == (-1, 1, 0)


@pytest.mark.parametrize(
    ("field", "value"), [("model__margins__kind", "hierarchical"), ("loss__objectives__polarity", 1.0)]
)
def test_it_is_filled_in_where_it_is_needed(field, value):
    config = make_config(**{field: value})
    filled = fill_polarity(config, ("sad", "happy"))
    assert tuple(filled.model.polarity) == (-1, 1)
    assert tuple(config.model.polarity) == ()  # the given config stays as it is
    filled_again = fill_polarity(filled, ("sad", "happy"))
    assert filled_again.to_dict() == filled.to_dict()


def test_it_stays_empty_or_as_given():
    assert tuple(fill_polarity(make_config(model__margins__kind="triplet"), ("odd",)).model.polarity) == ()
    config = make_config(model__margins__kind="hierarchical", model__polarity=(1, -1))
    assert tuple(fill_polarity(config, ("odd", "even")).model.polarity) == (1, -1)


def test_an_unknown_class():
    with pytest.raises(
        ValueError, match=r"config.model.polarity: the polarity of class 'bliss' is not known"
    ):
        fill_polarity(make_config(model__margins__kind="hierarchical"), ("happy", "bliss"))


def test_an_experiment_keeps_what_was_filled_in_and_a_resumed_one_accepts_it(fake_dataset):
    config = tiny_config(fake_dataset, "concat", **{"model.margins.kind": "hierarchical"})
    first, second = open_experiment(config), open_experiment(config)
    assert tuple(first.config.model.polarity) == (-1, 1, -1)  # angry, happy, sad
    assert first.model.config.polarity == first.config.model.polarity
    saved = json.loads(json.dumps(make_metadata(first)))["config"]
    check_same_config("run", saved, second.config.to_dict())
    other = tiny_config(
        fake_dataset, "concat", **{"model.margins.kind": "hierarchical", "model.polarity": (0, 1, 0)}
    )
    with pytest.raises(ValueError, match=r"config.model.polarity=\[-1, 1, -1\]"):
        check_same_config("run", saved, open_experiment(other).config.to_dict())
