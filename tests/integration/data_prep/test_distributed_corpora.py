"""The six corpora as distributed: counts, classes, speakers, and what is said of what differs."""

import collections
import os

import openpyxl
import pytest

from data_prep.corpora import iemocap, read_corpus
from emofuse_jax.data.writing.splits import list_protocols, make_fold
from tests.support import corpus_trees as trees

PUBLISHED_COUNTS = {
    "ravdess": (1440, 24, {"neutral": 96, "calm": 192, "surprised": 192}),
    "crema_d": (7438, 91, {"angry": 1271, "neutral": 1086}),  # four are known to be broken
    "iemocap": (5531, 10, {"angry": 1103, "happy": 1636, "sad": 1084, "neutral": 1708}),
    "afew": (1156, 1156, {}),
    "enterface05": (1263, 43, {}),
    "baum1s": (521, 31, {}),
}


def count_classes(corpus):
    return collections.Counter(corpus.classes[clip.label] for clip in corpus.clips)


@pytest.fixture(scope="module")
def corpus_folder(tmp_path_factory):
    """Each corpus with all its names and empty files, made when first asked for."""
    folders = {}

    def make(name):
        if name not in folders:
            folders[name] = tmp_path_factory.mktemp(name)
            getattr(trees, f"make_{name}")(folders[name])
        return str(folders[name])

    return make


@pytest.mark.parametrize("name", PUBLISHED_COUNTS)
def test_a_complete_corpus_has_the_published_numbers(corpus_folder, name):
    num_clips, num_speakers, class_counts = PUBLISHED_COUNTS[name]
    corpus = read_corpus(name, corpus_folder(name))
    assert len(corpus.clips) == num_clips
    assert len({clip.speaker for clip in corpus.clips}) == num_speakers
    assert {label: count_classes(corpus)[label] for label in class_counts} == class_counts
    notes_of_differences = [note for note in corpus.notes if "expected" in note or "missing" in note]
    assert not notes_of_differences
    assert set(corpus.class_map.values()) == set(corpus.classes)


@pytest.mark.parametrize("name", PUBLISHED_COUNTS)
def test_speakers_never_cross_in_any_protocol(corpus_folder, name):
    corpus = read_corpus(name, corpus_folder(name))
    speaker_by_clip = {clip.clip_id: clip.speaker for clip in corpus.clips}
    rows = [
        {"clip_id": c.clip_id, "speaker": c.speaker, "label": c.label, "status": "kept"} for c in corpus.clips
    ]
    for protocol in list_protocols(corpus):
        for fold in range(len(protocol.folds)):
            parts = make_fold(protocol, fold, rows, corpus.sex)
            part_speakers = [
                {speaker_by_clip[clip] for clip in parts[part]} for part in ("train", "validation", "test")
            ]
            assert all(part_speakers)
            assert sum(map(len, part_speakers)) == len(set().union(*part_speakers))
            assert part_speakers[2] == set(protocol.folds[fold])


@pytest.mark.parametrize(
    ("name", "names", "folds"),
    [
        ("crema_d", {"crema_d_5fold"}, 5),
        ("iemocap", {"iemocap_5fold", "iemocap_10fold"}, 10),
        ("afew", {"afew_official"}, 1),
        ("enterface05", {"grouped_5fold"}, 5),
        ("baum1s", {"grouped_5fold"}, 5),
    ],
)
def test_published_protocols(corpus_folder, name, names, folds):
    protocols = list_protocols(read_corpus(name, corpus_folder(name)))
    assert {protocol.name for protocol in protocols} == names
    assert max(len(protocol.folds) for protocol in protocols) == folds


def test_iemocap_by_speaker_validates_on_the_other_of_the_session(corpus_folder):
    corpus = read_corpus("iemocap", corpus_folder("iemocap"))
    by_speaker = next(p for p in list_protocols(corpus) if p.name == "iemocap_10fold")
    rows = [
        {"clip_id": c.clip_id, "speaker": c.speaker, "label": c.label, "status": "kept"} for c in corpus.clips
    ]
    parts = make_fold(by_speaker, 3, rows, corpus.sex)  # Ses02M
    assert {clip.split("_")[-1][0] + clip[:5] for clip in parts["test"]} == {"MSes02"}
    assert {clip.split("_")[-1][0] + clip[:5] for clip in parts["validation"]} == {"FSes02"}


@pytest.mark.parametrize(
    ("name", "chosen", "classes", "clips"),
    [
        ("ravdess", {"classes": "7"}, 7, 1440),
        ("ravdess", {"classes": "6"}, 6, 1248),
        ("ravdess", {"classes": "4"}, 4, 864),
        ("crema_d", {"classes": "4"}, 4, 4897),
        ("iemocap", {"classes": "4_without_excited", "subset": "improvised"}, 4, 2280),
        ("iemocap", {"classes": "6"}, 6, 7380),
        ("baum1s", {"classes": "7"}, 7, 1184),
    ],
)
def test_classes_are_merged_and_left_out_by_an_explicit_map(corpus_folder, name, chosen, classes, clips):
    corpus = read_corpus(name, corpus_folder(name), **chosen)
    assert len(corpus.classes) == classes
    assert len(corpus.clips) == clips
    assert {clip.label for clip in corpus.clips} == set(range(classes))


def test_calm_becomes_neutral_and_omitted_classes_are_noted(corpus_folder):
    corpus = read_corpus("ravdess", corpus_folder("ravdess"), classes="4")
    assert corpus.class_map == {
        "neutral": "neutral",
        "calm": "neutral",
        "happy": "happy",
        "sad": "sad",
        "angry": "angry",
    }
    assert count_classes(corpus)["neutral"] == 96 + 192
    assert "classes=4: 192 clips of class disgust left out" in corpus.notes


@pytest.mark.parametrize(
    ("name", "chosen", "message"),
    [
        ("ravdess", {"classes": "5"}, r"classes='5': corpus ravdess offers 8, 7, 6, 4"),
        ("ravdess", {"labels": "perceived"}, "corpus ravdess offers no choice"),
        ("crema_d", {"labels": "felt"}, "labels='felt': corpus crema_d offers intended, perceived"),
        ("iemocap", {"subset": "scripted"}, "subset='scripted': corpus iemocap offers all, improvised"),
    ],
)
def test_an_unknown_choice_is_an_error(corpus_folder, name, chosen, message):
    with pytest.raises(ValueError, match=message):
        read_corpus(name, corpus_folder(name), **chosen)


def test_what_is_missing_is_named(tmp_path):
    takes = sorted(trees.ravdess.EXPECTED_TAKES - {"01-03-01-01-01-24", "01-08-02-02-02-05"})
    trees.make_ravdess(tmp_path, takes=takes)
    notes = read_corpus("ravdess", str(tmp_path)).notes
    assert "clips: 1438, expected 1440" in notes
    assert "class happy: 191, expected 192" in notes
    assert "speaker 24: 59, expected 60" in notes
    assert "missing (2): 01-03-01-01-01-24, 01-08-02-02-02-05" in notes


def test_crema_d_by_what_raters_perceived(tmp_path):
    names = ["1001_DFA_ANG_XX", "1001_IEO_HAP_LO", "1002_TIE_SAD_XX", "1064_TIE_SAD_XX"]
    trees.make_crema_d(tmp_path, names=names, votes={"1001_DFA_ANG_XX": "D", "1002_TIE_SAD_XX": "N:S"})
    (tmp_path / "VideoFlash" / "1001_IEO_HAP_LO.flv").unlink()
    (tmp_path / "AudioWAV").mkdir()
    (tmp_path / "AudioWAV" / "1001_DFA_ANG_XX.wav").touch()  # a copy of the take
    corpus = read_corpus("crema_d", str(tmp_path), labels="perceived")
    (clip,) = corpus.clips
    assert (clip.clip_id, corpus.classes[clip.label], clip.speaker) == ("1001_DFA_ANG_XX", "disgust", "1001")
    assert clip.path.endswith(".flv")
    assert corpus.sex["1001"] == "m"
    for note in (
        "missing according to summaryTable.csv (1): 1001_IEO_HAP_LO",
        "known to be broken or mislabelled, left out (1): 1064_TIE_SAD_XX",
        "without a majority of raters, left out (1): 1002_TIE_SAD_XX",
    ):
        assert note in corpus.notes
    os.remove(tmp_path / "processedResults" / "summaryTable.csv")
    with pytest.raises(ValueError, match=r"expected summaryTable.csv of CREMA-D below the source"):
        read_corpus("crema_d", str(tmp_path), labels="perceived")


@pytest.mark.parametrize("data", [b"\xff\xfe\x00", b"FileName,MultiModalVote\n" + b"x" * 200_000])
@pytest.mark.parametrize("name", ["summaryTable.csv", "VideoDemographics.csv"])
def test_crema_d_tells_a_table_that_is_no_csv(tmp_path, name, data):
    trees.make_crema_d(tmp_path, names=["1001_DFA_ANG_XX"])
    (path,) = tmp_path.rglob(name)
    path.write_bytes(data)
    with pytest.raises(ValueError, match=rf"{name}: not a CSV file in UTF-8, download it again: "):
        read_corpus("crema_d", str(tmp_path))


def test_iemocap_cuts_dialogues_and_knows_who_sits_where(tmp_path):
    utterances = [
        ("Ses01F_impro01", "F", "neu"),
        ("Ses01F_impro01", "M", "ang"),
        ("Ses02M_script01_1", "M", "exc"),
    ]
    trees.make_iemocap(tmp_path, utterances=utterances, seconds=1.5)
    corpus = read_corpus("iemocap", str(tmp_path))
    clip_fields = {
        c.clip_id: (corpus.classes[c.label], c.speaker, c.start, c.end, c.half) for c in corpus.clips
    }
    assert clip_fields == {
        "Ses01F_impro01_F000": ("neutral", "Ses01F", 0.0, 1.5, "left"),
        "Ses01F_impro01_M001": ("angry", "Ses01M", 1.5, 3.0, "right"),
        "Ses02M_script01_1_M000": ("happy", "Ses02M", 0.0, 1.5, "left"),
    }
    assert corpus.sex == {"Ses01F": "f", "Ses01M": "m", "Ses02M": "m"}


def test_iemocap_tells_missing_media_and_strange_sheets(tmp_path):
    trees.make_iemocap(tmp_path, utterances=[("Ses01F_impro01", "F", "neu"), ("Ses01M_impro01", "F", "neu")])
    dialog = tmp_path / "Session1" / "dialog"
    (dialog / "avi" / "DivX" / "Ses01M_impro01.avi").unlink()
    corpus = read_corpus("iemocap", str(tmp_path))
    assert len(corpus.clips) == 1
    assert "dialogues without avi and wav file, left out (1): Ses01M_impro01 (1 utterances)" in corpus.notes
    sheet = dialog / "EmoEvaluation" / "Ses01F_impro01.txt"
    sheet.write_text(sheet.read_text().replace("\tneu\t", "\tjoy\t"))
    with pytest.raises(
        ValueError, match=r"Ses01F_impro01.txt: utterance Ses01F_impro01_F000: unknown label 'joy'"
    ):
        read_corpus("iemocap", str(tmp_path))
    sheet.write_text("nothing\n")
    with pytest.raises(ValueError, match=r"Ses01F_impro01.txt: no line of the form"):
        read_corpus("iemocap", str(tmp_path))


def test_iemocap_counts_are_those_of_all_utterances():
    assert sum(iemocap.CLASS_COUNTS) == 10039


def test_enterface05_takes_slips_of_names_and_tells_strange_ones(tmp_path):
    for name in ("subject 3/fear/sentence 1/s_3_fe_1.avi", "subject 16/surprise/sentence 3/s16_su_3avi.avi"):
        trees.write_files(tmp_path, [name], trees.write_empty_file)
    trees.write_files(
        tmp_path, ["subject 4/anger/sentence 1/s5_an_1.avi", "subject 4/film.avi"], trees.write_empty_file
    )
    corpus = read_corpus("enterface05", str(tmp_path))
    clip_fields = {c.clip_id: (corpus.classes[c.label], c.speaker) for c in corpus.clips}
    assert clip_fields == {
        "s03_fe_1": ("fearful", "03"),
        "s05_an_1": ("angry", "05"),
        "s16_su_3": ("surprised", "16"),
    }
    notes = " | ".join(corpus.notes)
    assert "left out (1): subject 4/film.avi" in notes
    assert "subject read from the file name (1): subject 4/anger/sentence 1/s5_an_1.avi" in notes


def test_baum1s_reads_an_excel_sheet_and_tells_mistakes(tmp_path):
    trees.make_baum1s(tmp_path, num_clips=8)
    sheet = tmp_path / "Annotations_BAUM1s.csv"
    workbook = openpyxl.Workbook()
    for line in sheet.read_text().splitlines():
        workbook.active.append(line.split(","))
    sheet.unlink()
    workbook.save(tmp_path / "Annotations_BAUM1s.xlsx")
    assert len(read_corpus("baum1s", str(tmp_path)).clips) == 8


def test_baum1s_tells_mistakes(tmp_path):
    trees.make_baum1s(tmp_path, num_clips=8)
    sheet = tmp_path / "Annotations_BAUM1s.csv"
    valid_text = sheet.read_text()
    (tmp_path / "BAUM1s_MP4 - All" / "s002" / "S002_001.mp4").unlink()
    trees.write_files(tmp_path, ["BAUM1s_MP4 - All/s002/S002_099.mp4"], trees.write_empty_file)
    notes = " | ".join(read_corpus("baum1s", str(tmp_path)).notes)
    assert "missing according to the sheet (1): S002_001" in notes
    assert "not in the sheet, left out (1): S002_099" in notes
    sheet.write_text(valid_text.replace("Anger", "Rage"))
    with pytest.raises(ValueError, match=r"row 2: emotion 'Rage' is unknown"):
        read_corpus("baum1s", str(tmp_path))
    sheet.write_text("a,b\n1,2\n")
    with pytest.raises(ValueError, match="no column contains names of clips"):
        read_corpus("baum1s", str(tmp_path))
    sheet.unlink()
    with pytest.raises(ValueError, match="contains no Annotations_BAUM1s"):
        read_corpus("baum1s", str(tmp_path))


def test_afew_says_what_it_does_not_know(corpus_folder):
    corpus = read_corpus("afew", corpus_folder("afew"))
    assert "actors and films of the clips are unknown" in corpus.notes[0]
