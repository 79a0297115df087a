"""Settings of a sweep: ranges, draws, files, and what is refused."""

import json

import numpy as np
import pytest

from emofuse_jax import settings
from emofuse_jax.training.crossval.search_space import apply_trial, draw_trials, read_trials

SPACE = ["optimizer.learning_rate=log:1e-4:1e-1", "augment.gain=0.0:2.0", "train.epochs=3:6", "name=a,b,true"]


@pytest.mark.parametrize("method", ["sobol", "random"])
def test_draws_stay_in_their_ranges_and_are_the_same_again(method):
    trials = draw_trials(SPACE, 64, method=method, seed=1)
    assert trials == draw_trials(SPACE, 64, method=method, seed=1)
    assert trials != draw_trials(SPACE, 64, method=method, seed=2)
    rates = np.array([trial["optimizer.learning_rate"] for trial in trials])
    assert 1e-4 <= rates.min() < 2e-4
    assert 5e-2 < rates.max() < 1e-1
    assert 0.35 < (rates < 10**-2.5).mean() < 0.65
    assert {trial["train.epochs"] for trial in trials} == {3, 4, 5, 6}
    assert {trial["name"] for trial in trials} == {"a", "b", True}


def test_sobol_covers_better_than_chance():
    """Every sixteenth of the line has one of sixteen points."""
    trials = draw_trials(["augment.gain=0.0:16.0"], 16, method="sobol", seed=3)
    assert sorted(int(trial["augment.gain"]) for trial in trials) == list(range(16))


@pytest.mark.parametrize(
    "text",
    [
        "augment.gain",
        "augment.gain=",
        "augment.gain=2:1",
        "augment.gain=1:2:3",
        "x=log:0:1",
        "x=a:b",
        "x=true:2",
    ],
)
def test_a_range_that_cannot_be_read_is_named(text):
    with pytest.raises(ValueError, match=f"space '{text}'"):
        draw_trials([text], 2, method="random", seed=0)


def test_a_field_twice_or_none_is_refused():
    for space in ([], ["a=1,2", "a=1,2"]):
        with pytest.raises(ValueError, match="expected at least one field, each once"):
            draw_trials(space, 2, method="random", seed=0)


def test_fields_are_set_with_their_types():
    config = settings.base()
    changed = apply_trial(config, {"optimizer.learning_rate": 1, "model.audio.widths": [1, 2], "seed": 3})
    assert changed.optimizer.learning_rate == 1.0
    assert changed.model.audio.widths == (1, 2)
    assert (changed.seed, config.seed) == (3, 0)
    for name in ("nothing", "optimizer.nothing", "nothing.rate", "seed.rate"):
        with pytest.raises(ValueError, match=rf"config\.{name}: there is no such field"):
            apply_trial(config, {name: 1})
    with pytest.raises(ValueError, match=r"config\.seed: 'x', expected a int"):
        apply_trial(config, {"seed": "x"})


def test_a_file_of_trials(tmp_path):
    path = tmp_path / "trials.json"
    path.write_text(json.dumps([{}, {"augment.mixup": 0.2}]))
    assert read_trials(str(path)) == [{}, {"augment.mixup": 0.2}]
    for text in ("{}", "[]", "[1]", "["):
        path.write_text(text)
        with pytest.raises(ValueError, match=r"trials\.json: "):
            read_trials(str(path))
