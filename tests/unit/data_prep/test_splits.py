"""Folds: the published speakers, never one speaker in two parts, the same for ever."""

import pytest

from data_prep.corpora import Corpus, MediaClip
from emofuse_jax.data.writing.splits import choose_validation_speakers, list_protocols, make_fold

ACTORS = [f"{i:02d}" for i in range(1, 25)]
SEX_BY_ACTOR = {actor: "m" if int(actor) % 2 else "f" for actor in ACTORS}


def make_protocols(name, speakers, sex):
    clips = tuple(MediaClip(speaker, "", 0, speaker) for speaker in speakers)
    return list_protocols(Corpus(name, ("one",), clips, sex, ()))


def make_rows(speakers, labels=(0, 1)):
    return [
        {"clip_id": f"{speaker}-{label}", "speaker": speaker, "label": label, "status": "kept"}
        for speaker in speakers
        for label in labels
    ]


def test_published_protocols():
    folds_by_name = {p.name: p.folds for p in make_protocols("ravdess", set(ACTORS), SEX_BY_ACTOR)}
    assert sorted(folds_by_name) == ["ravdess20_5fold", "ravdess_5fold", "ravdess_6fold"]
    assert folds_by_name["ravdess_6fold"][4] == ("17", "18", "19", "20")
    assert set(folds_by_name["ravdess_5fold"][0]) == {"02", "05", "14", "15", "16"}
    for name in ("ravdess_5fold", "ravdess_6fold"):
        assert sorted(sum(folds_by_name[name], ())) == ACTORS  # everyone is tested once
    assert [p.name for p in make_protocols("ravdess", set(ACTORS[:20]), SEX_BY_ACTOR)] == ["ravdess20_5fold"]
    assert make_protocols("demo", set(ACTORS), SEX_BY_ACTOR)[0].folds == (
        ("19", "20", "21", "22", "23", "24"),
    )


@pytest.mark.parametrize("corpus", ["ravdess", "demo"])
def test_speakers_never_cross(corpus):
    table = make_rows(ACTORS)
    for protocol in make_protocols(corpus, set(ACTORS), SEX_BY_ACTOR):
        for fold in range(len(protocol.folds)):
            parts = make_fold(protocol, fold, table, SEX_BY_ACTOR)
            speakers = {part: {clip[:2] for clip in clips} for part, clips in parts.items()}
            assert speakers["test"] == set(protocol.folds[fold])
            assert sum(map(len, speakers.values())) == len(set().union(*speakers.values()))
            assert set().union(*speakers.values()) == set(protocol.speakers)
            validation_sexes = [SEX_BY_ACTOR[speaker] for speaker in speakers["validation"]]
            assert abs(validation_sexes.count("m") - validation_sexes.count("f")) <= 1
            assert len(validation_sexes) == round(0.2 * (len(protocol.speakers) - len(protocol.folds[fold])))


def test_validation_is_the_same_for_ever():
    """These speakers stand in users' results: a change of the rule is a change of protocol."""
    assert choose_validation_speakers(set(ACTORS[:18]), SEX_BY_ACTOR, "demo_1fold/0") == [
        "01",
        "05",
        "06",
        "08",
    ]


def test_groups_without_a_protocol():
    names = {f"person {i}" for i in range(7)}
    (protocol,) = make_protocols("folder", names, {})
    assert protocol.name == "grouped_5fold"
    assert sorted(sum(protocol.folds, ())) == sorted(names)
    assert all(protocol.folds)
    assert [p.name for p in make_protocols("folder", {"ann", "bob"}, {})] == ["grouped_2fold"]
    assert make_protocols("folder", {"ann"}, {}) == []
    protocols = make_protocols(
        "ravdess", set(ACTORS[:3]), SEX_BY_ACTOR
    )  # no protocol has all its speakers here
    assert [p.name for p in protocols] == ["grouped_3fold"]


def test_failed_clips_are_nowhere_and_unlabelled_ones_only_train():
    table = make_rows(["a", "b", "c", "d", "e"], labels=(0, -1))
    table[0]["status"] = "failed"
    (protocol,) = make_protocols("folder", set("abcde"), {})
    used_clips = set()
    for fold in range(5):
        parts = make_fold(protocol, fold, table, {})
        assert not any(clip.endswith("--1") for clip in parts["validation"] + parts["test"])
        assert any(clip.endswith("--1") for clip in parts["train"])
        used_clips.update(*parts.values())
    assert "a-0" not in used_clips
