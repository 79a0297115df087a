"""Cards: what they must say, of a network that was scored, of one that was not, of made data."""

import dataclasses
import json

import pytest

from emofuse_jax import settings
from emofuse_jax.data.dataset import open_dataset
from emofuse_jax.reporting.cards import (
    collect_cards,
    make_checkpoint_card,
    make_crossval_card,
    make_data_card,
)
from tests.support.report_inputs import make_results as make_evaluation_results
from tests.unit.reporting.test_crossval_report import make_results

SCORES = {"ua": 0.512, "wa": 0.498, "ua_interval": [0.45, 0.57]}


def make_metadata(**changes):
    """Metadata of a checkpoint, as far as a card reads it."""
    return {
        "config": settings.base("concat").to_dict() | {"name": "small"},
        "corpus": "ravdess",
        "protocol": "folds",
        "fold": 2,
        "classes": ["calm", "angry"],
        "settings": {"recipe": "fbp"},
        "training_speakers": ["01", "02"],
        "leaks": [],
        "progress": {"best_ua": 0.612},
        "temperature": 1.234,
        "versions": {"jax": "1.2.3"},
    } | changes


def test_a_scored_network():
    results = {"modalities": {"both": SCORES}, "clips": ["a"] * 40, "split": "test"}
    card = make_checkpoint_card(make_metadata(), results)
    for words in (
        "# Model card: small on ravdess",
        "Classes: calm, angry",
        "professional actors",
        "Speakers used for training or validation (2): 01, 02.",
        "40 test clips of unseen speakers",
        "| audio and video | 49.8 | 51.2 [45.0–57.0] |",
        "Temperature of the probabilities: 1.23.",
        "2024/1689",
        "at work and in education",
        "acted emotions",
        "lighting",
    ):
        assert words in card, words


def test_a_network_that_was_not_scored_says_so():
    card = make_checkpoint_card(make_metadata())
    assert "Not scored on test clips when this card was written; validation UA 61.2 %." in card


def test_a_network_that_was_trained_on_its_validation_clips_says_so():
    config = settings.base("concat").to_dict()
    card = make_checkpoint_card(
        make_metadata(config=config | {"data": {**config["data"], "hold_out": False}})
    )
    assert "validation UA unknown: no clips were held out." in card


def test_damaged_scores_are_named(tmp_path):
    path = tmp_path / "evaluation" / "test" / "results.json"
    path.parent.mkdir(parents=True)
    results = make_evaluation_results() | {"leaks": []}
    path.write_text(json.dumps(results))
    assert "audio and video" in collect_cards(str(tmp_path), make_metadata(step=540))["MODEL_CARD.md"]
    for change, message in (
        ({"checkpoint_step": None}, "checkpoint_step: expected int, found NoneType"),
        ({"modalities": {"smell": {}}}, "modalities: expected scores of both, audio, video"),
        ({"modalities": {"both": {"ua": "x"}}}, "modalities.both.ua: expected finite numbers"),
        ({"clips": None}, "clips: expected a list of strings"),
    ):
        path.write_text(json.dumps(results | change))
        with pytest.raises(
            ValueError, match=rf"results\.json: field {message}[^\n]*; run emofuse evaluate again"
        ):
            collect_cards(str(tmp_path), make_metadata(step=540))


def test_made_data_and_leaks_are_marked_first():
    for changes, mark in (({"corpus": "demo"}, "SYNTHETIC"), ({"leaks": ["speaker 3"]}, "LEAKY: speaker 3")):
        lines = make_checkpoint_card(make_metadata(**changes)).splitlines()
        assert lines[2].startswith(f"**{mark}")


def test_a_cross_validation():
    card = make_crossval_card(make_metadata(), make_results())
    assert "8 test clips, by 4 networks that were not trained on their speakers" in card
    assert "75.0 [60.0–90.0]" in card
    assert "Each fold has its own model" in card
    assert "Temperature" not in card


def test_the_data_card_counts(fake_dataset):
    dataset = open_dataset(fake_dataset)
    notes = ["short", "long " * 100]
    card = make_data_card(dataclasses.replace(dataset, prep=dataset.prep | {"notes": notes}))
    assert f"- Clips: {len(dataset.index)} " in card
    assert f"- {notes[1][:200]}...\n" in card
    for speaker in dataset.speakers:
        count = sum(name == speaker for name in dataset.speaker_of.values())
        assert f"| {speaker} | " in card
        assert f" | {count} |" in card
    for name in dataset.classes:
        assert f"| {name} | " in card


@pytest.mark.parametrize("corpus", ["folder", "unknown"])
def test_any_corpus_has_a_card(corpus):
    assert f"Corpus `{corpus}`" in make_checkpoint_card(make_metadata(corpus=corpus))
