import itertools

import pytest

from emofuse_jax.serving.windows import cut_windows, find_media_files


@pytest.mark.parametrize(
    ("duration", "expected"),
    [
        (1.2, [(0, 1.2)]),  # shorter than a window
        (3.0, [(0, 3.0)]),
        (3.3, [(0, 3.3)]),  # a tenth more is still one, as a training clip is
        (3.5, [(0, 3.0), (0.5, 3.5)]),  # the last one is moved back to end with the file
        (6.2, [(0, 3.0), (3.0, 6.2)]),  # a short rest lengthens the last window
        (7.0, [(0, 3.0), (3.0, 6.0), (4.0, 7.0)]),
    ],
)
def test_windows_of_three_seconds(duration, expected):
    assert cut_windows(duration, 3.0) == [pytest.approx(window) for window in expected]


@pytest.mark.parametrize("tenths", range(1, 200, 7))
def test_windows_cover_the_file_in_order(tenths):
    duration = tenths / 10
    windows = cut_windows(duration, 3.0)
    assert windows[0][0] == 0
    assert windows[-1][1] == duration
    for (start, end), (following, _) in itertools.pairwise(windows):
        assert start < following <= end + 1e-9
    assert all(min(duration, 3.0) - 1e-9 <= end - start <= 3.3 + 1e-9 for start, end in windows)


def test_a_folder_gives_its_media_and_a_name_is_taken_as_it_is(tmp_path):
    (tmp_path / "b").mkdir()
    for name in ("b/two.MP4", "one.flac", "README.txt", "b/notes.csv"):
        (tmp_path / name).touch()
    text_path = str(tmp_path / "README.txt")
    media_paths = list(find_media_files([str(tmp_path), text_path]))
    assert media_paths == [str(tmp_path / "one.flac"), str(tmp_path / "b/two.MP4"), text_path]
