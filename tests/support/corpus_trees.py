"""Corpora as distributed: all names and sheets, with media that `put(path)` writes."""

import itertools
import pathlib

from data_prep.corpora import baum1s, iemocap, ravdess

CREMA_CODES = ("ANG", "DIS", "FEA", "HAP", "NEU", "SAD")
SENTENCES = ("IEO", "TIE", "IOM", "IWW", "TAI", "MTI", "IWL", "ITH", "DFA", "ITS", "TSI", "WSI")


def write_empty_file(path):
    path.touch()


def write_files(folder, paths, write_file):
    for path in paths:
        path = folder / path
        path.parent.mkdir(parents=True, exist_ok=True)
        write_file(path)


def make_ravdess(folder, write_file=write_empty_file, takes=ravdess.EXPECTED_TAKES):
    write_files(folder, (f"Actor_{take[-2:]}/01-{take}.mp4" for take in sorted(takes)), write_file)


def crema_d_names():
    """The 7442: of 91 x 82 that could be there, three of each emotion and five of neutral are not."""
    sentence_levels = {"IEO": ("LO", "MD", "HI")}
    for code in CREMA_CODES:
        all_names = (
            f"{actor}_{sentence}_{code}_{level}"
            for actor, sentence in itertools.product(range(1001, 1092), SENTENCES)
            for level in (sentence_levels.get(sentence, ("XX",)) if code != "NEU" else ("XX",))
        )
        yield from itertools.islice(all_names, 5 if code == "NEU" else 3, None)


def make_crema_d(folder, write_file=write_empty_file, names=None, votes=None):
    """`votes`: the raters' letter by name; by default that of the actor's emotion."""
    names = list(crema_d_names() if names is None else names)
    write_files(folder, (f"VideoFlash/{name}.flv" for name in names), write_file)
    rows = [f"{i},{name},A,50,A,50,{(votes or {}).get(name, name[9])},50" for i, name in enumerate(names, 1)]
    header = '"",FileName,VoiceVote,VoiceLevel,FaceVote,FaceLevel,MultiModalVote,MultiModalLevel'
    (folder / "processedResults").mkdir()
    (folder / "processedResults" / "summaryTable.csv").write_text("\n".join([header, *rows]) + "\n")
    speaker_rows = [f"{actor},30,{'Male' if actor % 2 else 'Female'},X,Y" for actor in range(1001, 1092)]
    (folder / "VideoDemographics.csv").write_text(
        "\n".join(["ActorID,Age,Sex,Race,Ethnicity", *speaker_rows])
    )


def iemocap_utterances():
    """(dialogue, speaker's letter, label) of 10039 utterances, spread over five sessions."""
    num_improvised = {"angry": 289, "happy": 284, "sad": 608, "neutral": 1099}
    class_codes = {name: code for code, name in iemocap.CODE_TO_CLASS.items()}
    for name, count in zip(iemocap.CLASSES, iemocap.CLASS_COUNTS, strict=True):
        for i in range(count):
            part = "impro" if i < num_improvised.get(name, 0) else "script"
            leading_sex, speaker = "FM"[i // 5 % 2], "FM"[i // 10 % 2]
            yield f"Ses0{i % 5 + 1}{leading_sex}_{part}01", speaker, class_codes[name]


def make_iemocap(folder, write_file=write_empty_file, utterances=None, seconds=1.0):
    """Utterance i of a dialogue lasts from `seconds` i to `seconds` (i + 1)."""
    sheets = {}
    for dialogue, speaker, label in utterances or iemocap_utterances():
        lines = sheets.setdefault(dialogue, [])
        start = seconds * len(lines)
        times = f"[{start:.4f} - {start + seconds:.4f}]"
        lines += [f"{times}\t{dialogue}_{speaker}{len(lines):03d}\t{label}\t[2.5000, 2.5000, 2.5000]"]
    for dialogue, lines in sheets.items():
        dialog_folder = pathlib.Path(f"Session{dialogue[4]}", "dialog")
        write_files(folder, [dialog_folder / "avi" / "DivX" / f"{dialogue}.avi"], write_file)
        sheet = folder / dialog_folder / "EmoEvaluation" / f"{dialogue}.txt"
        sheet.parent.mkdir(exist_ok=True)
        header = "% [START_TIME - END_TIME] TURN_NAME EMOTION [V, A, D]\n\n"
        sheet.write_text(header + "".join(f"{line}\nC-E1:\tNeutral;\t()\n\n" for line in lines))


def make_afew(folder, write_file=write_empty_file, counts=(773, 383)):
    classes = ("Angry", "Disgust", "Fear", "Happy", "Neutral", "Sad", "Surprise")
    for part, count in zip(("Train", "Val"), counts, strict=True):
        write_files(folder, (f"{part}/{classes[i % 7]}/{i:09d}.avi" for i in range(count)), write_file)


def make_enterface05(folder, write_file=write_empty_file, subjects=range(1, 44)):
    """Of 43 x 30 clips, 27 less: subject 6 has 6, subject 7 has 27."""
    emotions = {
        "an": "anger",
        "di": "disgust",
        "fe": "fear",
        "ha": "happiness",
        "sa": "sadness",
        "su": "surprise",
    }
    for subject in subjects:
        for (code, name), i in itertools.product(emotions.items(), range(1, 6)):
            if (subject, i > 1) != (6, True) and (subject, code, i > 2) != (7, "an", True):
                write_files(
                    folder, [f"subject {subject}/{name}/sentence {i}/s{subject}_{code}_{i}.avi"], write_file
                )


def make_baum1s(folder, write_file=write_empty_file, num_clips=1184):
    """521 of the six basic emotions, in turn; the others neutral."""
    basic_emotions = [
        name for name, class_name in baum1s.EMOTION_TO_CLASS.items() if class_name in baum1s.BASIC_EMOTIONS
    ]
    rows = ["No,Subject,Gender,Clip Name,Emotion,Emotion Code"]
    for i in range(num_clips):
        subject, emotion = i % 31 + 1, basic_emotions[i % 6] if i < 521 else "neutral"
        name = f"S{subject:03d}_{i // 31 + 1:03d}"
        rows.append(
            f"{i + 1},{subject},F,{name},{emotion.title()},{list(baum1s.EMOTION_TO_CLASS).index(emotion) + 1}"
        )
        write_files(folder, [f"BAUM1s_MP4 - All/s{subject:03d}/{name}.mp4"], write_file)
    (folder / "Annotations_BAUM1s.csv").write_text("\n".join(rows) + "\n")
