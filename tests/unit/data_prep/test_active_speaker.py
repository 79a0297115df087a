"""Which of several faces moves its mouth with the sound."""

import os

import numpy as np
import pytest

from data_prep.faces import active_speaker
from data_prep.faces.choose_person import Track
from data_prep.media.audio_track import read_audio_blocks
from data_prep.media.probe import probe_media
from data_prep.media.video_clip import ClipFrames, VideoClip, read_clip_frames
from data_prep.process_clip import process_clip
from data_prep.settings import RECIPES
from emofuse_jax.data.writing.corpus import MediaClip
from tests.support.face_fakes import fake_face
from tests.support.media_files import tone, write_media


def draw_moving_mouth(mouth_heights):
    """Frames of a grey face whose mouth is a dark bar of these heights in pixels; it drifts."""
    frames, faces = [], []
    for i, height in enumerate(mouth_heights):
        frame = np.full((200, 260, 3), 150, np.uint8)
        face = fake_face(100 + i // 5, 90, 100)
        x, y = face.landmarks[3:].mean(0).astype(int)
        frame[y - int(height) // 2 : y + int(height) // 2 + 1, x - 12 : x + 12] = 40
        frames.append(frame)
        faces.append(face)
    return np.stack(frames), faces


def test_movement_is_that_of_the_mouth_and_not_of_the_face():
    still = active_speaker._measure_mouth_movement(*draw_moving_mouth([8] * 20))
    moving = active_speaker._measure_mouth_movement(*draw_moving_mouth([8] * 10 + [2, 14] * 5))
    assert still.max() < 0.15 * moving.max()
    assert moving[:9].max() < 0.15 * moving.max()
    assert moving[10:].min() > 0.5 * moving.max()


def test_correlation_by_hand():
    a = np.array([0, 0, 0, 1, 1, 1, 0, 0, 0, 1, 1, 1, 0, 0, 0.0])
    smooth = np.array([a[i : i + 5].mean() for i in range(11)])
    b = np.arange(15.0)
    line = np.arange(2.0, 13.0)
    expected = np.mean((smooth - smooth.mean()) * (line - line.mean())) / (smooth.std() * line.std())
    assert active_speaker._smoothed_correlation(a, b) == pytest.approx(expected)
    assert active_speaker._smoothed_correlation(a, a) == pytest.approx(1.0)
    assert active_speaker._smoothed_correlation(a, np.ones(15)) == 0.0


def write_two_face_video(shared_data, folder, speaker, other, is_frozen):
    """A film of two faces side by side, with the sound of the left one; the right one is a fifth larger."""
    import cv2

    paths = [os.path.join(shared_data, "talking_faces", name) for name in (speaker, other)]
    times = (np.arange(70) + 0.5) / 25
    left, right = (read_clip_frames(VideoClip(probe_media(path), 0.0, 3.0), times).frames for path in paths)
    if is_frozen:
        noise = np.random.default_rng(0).normal(0, 3, right.shape)
        right = np.clip(right[30] + noise, 0, 255).astype(np.uint8)
    right = np.stack([cv2.resize(frame, (432, 346)) for frame in right])
    frames = np.zeros((70, 346, 792, 3), np.uint8)
    frames[:, :288, :360], frames[:, :, 360:] = left, right
    audio = np.concatenate(list(read_audio_blocks(probe_media(paths[0]), 0.0, 2.8, 44_100)))
    write_media(folder / "two.mp4", frames=frames, audio=audio, options={"crf": "18"})
    return str(folder / "two.mp4")


@pytest.mark.parametrize(("other", "frozen"), [("lbax4n.mpg", True), ("swiz3n.mpg", False)])
def test_the_face_that_speaks_is_used_though_another_is_larger(shared_data, tmp_path, other, frozen):
    path = write_two_face_video(shared_data, tmp_path, "brbk7n.mpg", other, frozen)
    record = process_clip(MediaClip("a", path, 0, "s"), RECIPES["fbp"], num_classes=2)
    assert record.notes == "2 people; used the one with the best size, position and speech"
    assert record.face_valid.sum() >= 14
    assert (record.face_box[record.face_valid, 2] < 380).all()


def test_without_sound_the_larger_is_used(shared_data, tmp_path):
    path = write_two_face_video(shared_data, tmp_path, "brbk7n.mpg", "lbax4n.mpg", True)
    frames = read_clip_frames(VideoClip(probe_media(path), 0.0, 2.8), (np.arange(70) + 0.5) / 25).frames
    for name, audio in (("mute.mp4", None), ("even.mp4", tone(2.8))):
        write_media(tmp_path / name, frames=frames, audio=audio, options={"crf": "18"})
        record = process_clip(MediaClip("a", str(tmp_path / name), 0, "s"), RECIPES["fbp"], num_classes=2)
        assert (record.face_box[record.face_valid, 0] > 360).all(), name


def test_sound_that_has_ended_tells_nothing(tmp_path):
    frames = np.zeros((100, 64, 64, 3), np.uint8)
    write_media(tmp_path / "a.mp4", frames=frames, audio=tone(0.3))
    video_clip = VideoClip(probe_media(str(tmp_path / "a.mp4")), 0.0, 4.0)
    clip_frames = read_clip_frames(video_clip, np.array([1.0, 3.0]))
    tracks = [Track({0: fake_face(x, 30, 20), 1: fake_face(x, 30, 20)}) for x in (15, 45)]
    assert active_speaker.score_speech(video_clip, clip_frames, tracks) == [0.0, 0.0]


def test_faces_keep_their_place_where_frames_have_another_size():
    clip_frames = ClipFrames(np.zeros((2, 96, 128, 3), np.uint8), np.array([0.0, 1.0]), 1.0, 0)
    dense_frames = ClipFrames(np.zeros((3, 192, 256, 3), np.uint8), np.array([0.0, 0.5, 1.0]), 1.0, 0)
    track = Track({0: fake_face(40, 30, 20), 1: fake_face(50, 30, 20)})
    faces = active_speaker._interpolate_track(track, clip_frames, dense_frames)
    assert [face.box.tolist() for face in faces] == [fake_face(x, 60, 40).box.tolist() for x in (80, 90, 100)]
