import dataclasses
import os
import re
import subprocess
import sys
import time

import av
import numpy as np
import pytest
from scipy import optimize

from data_prep.corpora import demo
from data_prep.faces.mtcnn_cascade import detect_faces
from data_prep.synth import face, head, voice
from data_prep.synth.clip import DAMAGES, render_clip
from data_prep.synth.corpus_plan import STATES, plan_corpus

SMALL_CORPUS = dict(speakers=2, clips_per_speaker=3, seed=5)


def read_all_files(directory):
    contents = {}
    for folder, _, names in os.walk(directory):
        for name in names:
            path = os.path.join(folder, name)
            with open(path, "rb") as file:
                contents[os.path.relpath(path, directory)] = file.read()
    return contents


def decode(path):
    """Frames [n h w 3], sound [m], frame rate, sample rate, channels."""
    with av.open(path) as file:
        frame_rate = float(file.streams.video[0].average_rate)
        frames = np.stack([frame.to_ndarray(format="rgb24") for frame in file.decode(video=0)])
    with av.open(path) as file:
        stream = file.streams.audio[0]
        audio = np.concatenate([frame.to_ndarray() for frame in file.decode(audio=0)], 1)
        return frames, audio[0], frame_rate, stream.sample_rate, stream.channels


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    directory = tmp_path_factory.mktemp("demo")
    demo.write_corpus(directory, workers=1, **SMALL_CORPUS)
    return directory


@pytest.fixture
def render(tmp_path):
    """Renders a clip and decodes it."""

    def render_and_decode(speaker=1, p=0, s_f=0, s_v=0, damage="", seed=0):
        path = tmp_path / "clip.mp4"
        path.write_bytes(
            render_clip(speaker=speaker, p=p, s_f=s_f, s_v=s_v, damage=damage, corpus_seed=0, seed=seed)
        )
        return decode(path)

    return render_and_decode


def clips_with_damages(damages):
    clip = plan_corpus(1, 1, 0)[0]
    return [dataclasses.replace(clip, damage=damage) for damage in damages]


# The label and what can be known of it


def test_label_is_the_voice_turned_by_the_face():
    for clip in plan_corpus(3, 24, 0):
        is_turned = clip.p > 0 and clip.s_f == 1
        assert clip.label == 2 * clip.p + (1 - clip.s_v if is_turned else clip.s_v)


def test_ceilings_of_undamaged_clips():
    expected = {"voice": 1 / 3, "face": 1 / 2, "additive": 5 / 6, "both": 1.0}
    assert demo.accuracy_ceilings(clips_with_damages([""])) == pytest.approx(expected)


def test_ceilings_of_damaged_clips_are_those_of_what_is_left():
    faceless = {"voice": 1 / 3, "face": 1 / 6, "additive": 1 / 3, "both": 1 / 3}
    silent = {"voice": 1 / 6, "face": 1 / 2, "additive": 1 / 2, "both": 1 / 2}
    assert demo.accuracy_ceilings(clips_with_damages(["no_face"])) == pytest.approx(faceless)
    assert demo.accuracy_ceilings(clips_with_damages(["silence"])) == pytest.approx(silent)
    assert demo.accuracy_ceilings(clips_with_damages(["noise"])) == pytest.approx(silent)
    assert demo.accuracy_ceilings(clips_with_damages(["lost_track"])) == demo.accuracy_ceilings(
        clips_with_damages([""])
    )
    mixed = demo.accuracy_ceilings(clips_with_damages(["", "", "no_face", "silence"]))
    assert mixed["both"] == pytest.approx((1 + 1 + 1 / 3 + 1 / 2) / 4)
    with pytest.raises(ValueError, match="clips is empty"):
        demo.accuracy_ceilings([])


def test_additive_ceiling_over_all_score_tables():
    # Which of the 12 states can `argmax_c a_c(p, s_f) + b_c(s_v)` get right at once? As an integer program:
    # 36 + 12 scores in [-1, 1] and a switch per state; where it is on, the true class leads by a margin.
    margin, big = 0.05, 5.0
    rows = []
    for i, (p, f, v) in enumerate(STATES):
        label = demo.class_of(p, f, v)
        for other in set(range(6)) - {label}:
            row = np.zeros(36 + 12 + 12)
            row[6 * (2 * p + f) + label], row[36 + 6 * v + label] = 1, 1
            row[6 * (2 * p + f) + other], row[36 + 6 * v + other] = -1, -1
            row[48 + i] = -(margin + big)
            rows.append(row)
    solution = optimize.milp(
        c=np.r_[np.zeros(48), -np.ones(12)],
        constraints=optimize.LinearConstraint(np.stack(rows), lb=-big),
        integrality=np.r_[np.zeros(48), np.ones(12)],
        bounds=optimize.Bounds(np.r_[-np.ones(48), np.zeros(12)], 1),
    )
    assert solution.success
    assert -solution.fun / 12 == pytest.approx(5 / 6)
    assert demo.accuracy_ceilings(clips_with_damages([""]))["additive"] == pytest.approx(-solution.fun / 12)


# The plan


def test_states_are_uniform_and_independent_for_each_speaker():
    clips = plan_corpus(24, 60, 0)
    for speaker in {clip.speaker for clip in clips}:
        states = [(c.p, c.s_f, c.s_v) for c in clips if c.speaker == speaker]
        assert all(states.count(state) == 5 for state in STATES)
    part = plan_corpus(24, 10, 0)  # no multiple of twelve: still no state twice
    assert all(
        len({(c.p, c.s_f, c.s_v) for c in part if c.speaker == s}) == 10 for s in {c.speaker for c in part}
    )


def test_few_clips_are_damaged_everywhere_alike():
    clips = plan_corpus(24, 60, 0)
    damaged = [clip for clip in clips if clip.damage]
    assert len(damaged) == 72
    assert {c.damage for c in damaged} == set(DAMAGES)
    late_clips = [c for c in clips if c.speaker > "18"]
    assert sum(bool(c.damage) for c in late_clips) <= 0.06 * len(late_clips)
    assert not any(c.damage for c in plan_corpus(2, 4, 0))


def test_names_are_those_of_ravdess_and_unique():
    clips = plan_corpus(24, 60, 0)
    assert len({clip.clip_id for clip in clips}) == len({clip.path for clip in clips}) == 1440
    codes = ("01", "03", "04", "05", "06", "08")
    for clip in clips:
        match = re.fullmatch(r"Actor_(\d\d)/01-(01-(\d\d)-01-0[12]-\d\d-(\d\d))\.mp4", clip.path)
        assert match[2] == clip.clip_id
        assert match[1] == match[4] == clip.speaker
        assert match[3] == codes[clip.label]


def test_another_seed_is_another_corpus():
    assert plan_corpus(2, 12, 0) != plan_corpus(2, 12, 1)
    assert head.draw_identity(1, 0) != head.draw_identity(1, 1)
    assert voice.draw_voice(1, 0) != voice.draw_voice(1, 1)


# The files


def test_files_are_media_of_the_promised_form(small):
    corpus = demo.read_corpus(small)
    assert len(corpus.clips) == 6
    for clip in corpus.clips:
        frames, audio, frame_rate, sample_rate, channels = decode(clip.path)
        assert (frame_rate, sample_rate, channels) == (25.0, 16_000, 1)
        assert frames.shape[1:] == (224, 224, 3)
        assert 50 <= len(frames) <= 88
        assert abs(len(audio) - len(frames) * 640) <= 2 * 1024  # AAC's whole frames
        assert 0.02 < np.abs(audio).max() <= 1
        assert frames.std() > 20


def test_reading_gives_labels_speakers_and_sexes(small):
    corpus = demo.read_corpus(small)
    planned_clips = {clip.clip_id: clip for clip in plan_corpus(2, 3, 5)}
    assert corpus.name == "demo"
    assert corpus.classes == demo.CLASSES
    assert corpus.sex == {"01": "m", "02": "f"}
    assert [c.clip_id for c in corpus.clips] == sorted(planned_clips)
    for clip in corpus.clips:
        assert (clip.label, clip.speaker) == (
            planned_clips[clip.clip_id].label,
            planned_clips[clip.clip_id].speaker,
        )
        assert os.path.exists(clip.path)
    assert set(demo.read_demo_clips(small)) == set(planned_clips.values())


def test_bytes_do_not_depend_on_the_run_or_the_workers(small, tmp_path):
    progress_calls = []
    demo.write_corpus(
        tmp_path, workers=2, progress=lambda *counts: progress_calls.append(counts), **SMALL_CORPUS
    )
    assert read_all_files(tmp_path) == read_all_files(small)
    assert progress_calls == [(i + 1, 6) for i in range(6)]


def test_a_killed_run_goes_on_with_the_same_bytes(small, tmp_path):
    program = (
        f"from data_prep.corpora import demo; demo.write_corpus({str(tmp_path)!r}, workers=1,"
        f" **{SMALL_CORPUS})"
    )
    process = subprocess.Popen([sys.executable, "-c", program])
    while process.poll() is None and not any(name.endswith(".mp4") for name in read_all_files(tmp_path)):
        time.sleep(0.01)
    process.kill()
    process.wait()
    (tmp_path / "demo.csv").unlink(missing_ok=True)  # a machine so fast that it was done
    with pytest.raises(FileNotFoundError, match="the corpus is incomplete"):
        demo.read_corpus(tmp_path)
    last = max(name for name in read_all_files(small) if name.endswith(".mp4"))
    (tmp_path / last).unlink(missing_ok=True)
    half = tmp_path / f"{last}.tmp"  # as if it was killed while it wrote this clip
    half.parent.mkdir(exist_ok=True)
    half.write_bytes(b"half")
    demo.write_corpus(tmp_path, workers=1, **SMALL_CORPUS)
    assert read_all_files(tmp_path) == read_all_files(small)


def test_finished_clips_are_not_made_again(small):
    before = {
        name: os.stat(small / name).st_mtime_ns for name in read_all_files(small) if name.endswith(".mp4")
    }
    demo.write_corpus(small, workers=1, **SMALL_CORPUS)
    assert before == {name: os.stat(small / name).st_mtime_ns for name in before}


@pytest.mark.parametrize("change", [dict(speakers=3), dict(clips_per_speaker=4), dict(seed=6)])
def test_another_request_in_the_same_directory_is_an_error(small, change):
    name = next(iter(change))
    with pytest.raises(
        ValueError, match=rf"demo.json: {name} is {SMALL_CORPUS[name]}, expected {change[name]}"
    ):
        demo.write_corpus(small, workers=1, **SMALL_CORPUS | change)


def test_wrong_input_is_named(tmp_path):
    with pytest.raises(ValueError, match="speakers: 0, expected 1 to 99"):
        demo.write_corpus(tmp_path, speakers=0)
    with pytest.raises(ValueError, match="damage: 'rain', expected one of no_face"):
        render_clip(speaker=1, p=0, s_f=0, s_v=0, damage="rain", corpus_seed=0, seed=0)
    (tmp_path / "demo.csv").write_text("clip_id,label\nx,1\n")
    with pytest.raises(ValueError, match=r"demo.csv: line 2: .*expected clip_id,path,label"):
        demo.read_demo_clips(tmp_path)


def test_workers_need_no_jax():
    program = "import sys, data_prep.corpora.demo; sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0


# What is seen and heard


def test_the_face_tells_nothing_about_the_voice_and_the_voice_nothing_about_the_face(render):
    frames, audio, *_ = render(p=1, s_f=0, s_v=0)
    other_frames, other_audio, *_ = render(p=1, s_f=0, s_v=1)
    np.testing.assert_array_equal(frames, other_frames)  # the lips included
    assert np.abs(audio - other_audio).max() > 0.05
    turned_frames, same_audio, *_ = render(p=2, s_f=1, s_v=0)
    np.testing.assert_array_equal(audio, same_audio)
    assert np.abs(frames.astype(int) - turned_frames).max() > 60


def test_lips_follow_the_syllables():
    voice_parameters = voice.draw_voice(3, 0)
    syllables = voice.draw_syllables(voice_parameters, 3.0, np.random.default_rng(0))
    times = np.arange(75) / 25
    lips = voice.compute_lip_opening(syllables, times)
    audio = voice.synthesize(voice_parameters, 1, syllables, 48_000, np.random.default_rng(1))
    loudness = np.sqrt((audio.reshape(75, 640) ** 2).mean(1))
    assert np.corrcoef(lips, loudness)[0, 1] > 0.5
    assert 0 <= lips.min() < 0.05
    assert 0.4 < lips.max() <= 1


def expression_features(speaker, expression, seed):
    """Small aligned grey pictures of eyes and mouth, [frames, pixels]."""
    rng = np.random.default_rng([speaker, seed])
    identity, light = head.draw_identity(speaker, 0), head.draw_light(rng)
    take = face.draw_motion(identity, expression, np.linspace(0, 1, 4), rng)
    still = dataclasses.replace(take, transforms=np.repeat(np.array([[[0.5, 0, 0], [0, 0.5, 0]]]), 4, 0))
    room = np.full((face.FRAME_SIZE, face.FRAME_SIZE, 3), 128, np.uint8)
    frames = face.render_frames(head.render_head(identity, light), room, identity, light.tint, still)
    grey = np.stack([frame.mean(-1)[75:185, 62:162] for frame in frames])
    small = grey.reshape(4, 22, 5, 20, 5).mean((2, 4)).reshape(4, -1)  # 4 22 5 20 5 -> 4 440
    return (small - small.mean(1, keepdims=True)) / small.std(1, keepdims=True)


def test_six_looks_differ_on_unseen_speakers_in_every_frame():
    classes = {
        key: np.concatenate([expression_features(speaker, expression, i) for speaker in range(1, 13)])
        for i, (key, expression) in enumerate(face.EXPRESSIONS.items())
    }
    x = np.concatenate(list(classes.values()))
    y = np.repeat(np.eye(6), [len(v) for v in classes.values()], 0)
    gram = x.T @ x + 200 * np.eye(x.shape[1])  # ridge regression
    weights = np.linalg.solve(gram, x.T @ y)
    for i, expression in enumerate(face.EXPRESSIONS.values()):
        unseen_features = np.concatenate(
            [expression_features(speaker, expression, 10 + i) for speaker in range(13, 19)]
        )
        assert ((unseen_features @ weights).argmax(1) == i).mean() >= 0.9


def test_two_voices_differ_on_unseen_speakers():
    def brightness(speaker, state, seed):
        rng = np.random.default_rng([speaker, seed])
        voice_parameters = voice.draw_voice(speaker, 0)
        audio = voice.synthesize(
            voice_parameters, state, voice.draw_syllables(voice_parameters, 2.4, rng), 38_400, rng
        )
        spectrum = np.log(np.abs(np.fft.rfft(audio.reshape(-1, 640) * np.hamming(640))) + 1e-5)[:, :160]
        is_loud = spectrum.mean(1) > np.median(spectrum.mean(1))
        return spectrum[is_loud, 70:120].mean() - spectrum[is_loud, 10:40].mean()  # 1.75-3 against 0.25-1 kHz

    mean_brightness = [np.mean([brightness(k, s, 10 * k + s) for k in range(1, 13)]) for s in (0, 1)]
    threshold = np.mean(mean_brightness)
    is_correct = [
        (brightness(k, s, 7 * k + s) > threshold) == (s == 1) for k in range(13, 25) for s in (0, 1)
    ]
    assert np.mean(is_correct) >= 0.95


def test_the_detector_finds_drawn_faces_where_they_are(render):
    num_frames = num_found = 0
    for i, (p, f) in enumerate(face.EXPRESSIONS):
        frames = render(speaker=i + 1, p=p, s_f=f, s_v=i % 2, seed=i)[0][::12]
        faces = detect_faces(frames, min_face=0.12, min_score=0.9)
        num_frames += len(frames)
        num_found += sum(map(bool, faces))
        heights = [max(f.box[3] - f.box[1] for f in frame_faces) for frame_faces in faces if frame_faces]
        assert 100 < np.median(heights) < 165
    assert num_found >= 0.9 * num_frames


def test_damages_are_what_they_say(render):
    def face_fraction_and_audio(damage, seed):
        frames, audio, *_ = render(speaker=2, p=0, s_f=1, damage=damage, seed=seed)
        faces = detect_faces(frames[2::6], min_face=0.12, min_score=0.9)
        return np.mean([bool(frame_faces) for frame_faces in faces]), audio

    face_fractions = [
        face_fraction_and_audio("no_face", seed)[0] for seed in range(4)
    ]  # an empty room, and a sheet of paper
    assert face_fractions == [0, 0, 0, 0]
    face_fraction, audio = face_fraction_and_audio("lost_track", 0)
    assert 0.2 <= face_fraction <= 0.65
    assert np.abs(audio).max() > 0.05
    face_fraction, audio = face_fraction_and_audio("silence", 0)
    assert np.abs(audio).max() < 1e-4
    assert face_fraction > 0.8
    _, noise = face_fraction_and_audio("noise", 0)
    loudness = np.sqrt((noise[: len(noise) // 640 * 640].reshape(-1, 640) ** 2).mean(1))[3:-4]
    assert loudness.min() > 0.7 * loudness.max()  # no syllable stands out
