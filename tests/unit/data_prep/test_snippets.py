"""Snippets of consecutive frames."""

import numpy as np

from data_prep.media.frame_sampling import snippet_times
from data_prep.media.probe import VideoTrack, probe_media
from tests.support.media_files import write_media


def make_track(times):
    times = np.asarray(times, float)
    return VideoTrack(0, np.arange(len(times)), times, np.ones(len(times), bool), True, times.max() + 0.04)


def test_snippets_are_runs_around_the_centres_of_equal_parts():
    track = make_track(np.random.default_rng(0).permutation(100) * 0.04)  # in the order of decoding
    frame_numbers = np.round(snippet_times(track, 0.0, 4.0, 2, 4) / 0.04).astype(int).reshape(2, 4)
    np.testing.assert_array_equal(frame_numbers, [[23, 24, 25, 26], [73, 74, 75, 76]])


def test_a_snippet_never_leaves_its_part():
    track = make_track(np.arange(100) * 0.04)
    for start, end in ((0.0, 4.0), (1.0, 2.0), (1.01, 1.79), (3.3, 4.0)):
        times = snippet_times(track, start, end, 6, 16).reshape(6, 16)
        assert times.min() >= start
        assert times.max() < end
        np.testing.assert_allclose(np.diff(times, axis=1), 0.04, atol=1e-9)


def test_a_part_shorter_than_a_snippet_repeats_its_ends():
    track = make_track(np.arange(100) * 0.04)
    frame_numbers = np.round(snippet_times(track, 1.0, 1.2, 2, 8) / 0.04).astype(int).reshape(2, 8)
    np.testing.assert_array_equal(frame_numbers, [[25, 25, 26, 27, 28, 29, 29, 29]] * 2)
    np.testing.assert_allclose(snippet_times(track, 1.01, 1.02, 1, 3), 1.0)  # the frame on screen


def test_snippets_of_a_file_are_its_frames(tmp_path):
    """Each frame's grey value is five times its number."""
    from data_prep.media.frames import read_frames

    images = (np.full((64, 64, 3), 5 * i, np.uint8) for i in range(50))
    write_media(tmp_path / "a.mp4", frames=images, options={"crf": "0"})
    info = probe_media(str(tmp_path / "a.mp4"))
    frames, shown_times, _ = read_frames(info, snippet_times(info.video, 0.0, info.video.end, 2, 5))
    numbers = np.round(frames.mean((1, 2, 3)) / 5).reshape(2, 5)
    np.testing.assert_array_equal(numbers, [[10, 11, 12, 13, 14], [35, 36, 37, 38, 39]])
    np.testing.assert_allclose(shown_times.reshape(2, 5)[1], np.arange(35, 40) / 25, atol=1e-3)
