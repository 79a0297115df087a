"""The suites of `emofuse benchmark`, tiny: every row is there, and says what its columns say."""

import importlib.util
import os
import time

import av
import pytest

from benchmarks import suite_crossval, suite_loader, suite_prepare, suite_speed, suite_startup, timing
from benchmarks.pinned_process import pinned_process
from benchmarks.timing import format_row
from emofuse_jax import settings
from tests.support.benchmark_inputs import write_demo

COLUMNS = {"case", "unit", "ours", "peer", "peer_name", "ratio", "repeats"}
TORCH = importlib.util.find_spec("torch") is not None


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_demo(tmp_path_factory.mktemp("demo"))


def check_row(row, repeats=1):
    assert set(row) == COLUMNS
    assert row["repeats"] == repeats
    assert row["ours"] > 0
    if row["peer"] is None:
        assert row["ratio"] is None
        assert format_row(row).endswith(f"{row['peer_name']} not measured")
    else:
        assert row["ratio"] == pytest.approx(row["ours"] / row["peer"])
        assert f"ratio {row['ratio']:.2f}" in format_row(row)


def test_the_median_leaves_out_the_first_round():
    measurements = {"a": iter([100, 1, 3, 2]), "b": iter([100, 5, 4, 9])}
    calls = []

    def make_side(name):
        return lambda: calls.append(name) or next(measurements[name])

    assert timing.measure_medians({name: make_side(name) for name in measurements}, 3) == {"a": 2, "b": 5}
    assert calls == ["a", "b"] * 4


def test_a_core_s_seconds_are_those_of_work_not_of_waiting():
    with pinned_process() as timed:
        assert timed(time.sleep, 0.5) < 0.25
        assert timed(sum, range(10**7)) > 0.02
        with pytest.raises(ZeroDivisionError):
            timed(divmod, 1, 0)


def test_prepare(data, shared_data, tmp_path):
    clips = os.path.join(shared_data, "talking_faces")
    short_cases = {"native": (None, 1.0), "720p": (720, 1.0)}
    rows = list(
        suite_prepare.measure_prepare(data, clips, str(tmp_path), repeats=1, max_clips=2, cases=short_cases)
    )
    for row in rows:
        check_row(row)
    cases = ["talking faces, native", "talking faces, 720p", "clips beside the records"]
    assert [row["case"] for row in rows[::2]] == [c + s for c in cases for s in ("", ", without faces")]
    for clips_row, frames_row in zip(rows[::2], rows[1::2], strict=True):
        assert (clips_row["unit"], frames_row["unit"]) == ("clips/s/core", "frames/s/core")
        assert (clips_row["peer"] is None) == (
            not TORCH and clips_row["peer_name"] == suite_prepare.SCRIPT_NAME
        )
    assert rows[1]["ours"] == pytest.approx(25 * rows[0]["ours"])  # a second of 25 frames each
    (first, _) = suite_prepare.make_looped_clips(clips, str(tmp_path), 2, 720, 1.0)  # as they are there
    with av.open(first) as clip:
        video, audio = clip.streams.video[0], clip.streams.audio[0]
        assert (video.width, video.height, video.codec_context.name) == (900, 720, "h264")
        assert audio.codec_context.name == "aac"
        assert clip.duration / av.time_base == pytest.approx(1, abs=0.05)


def test_prepare_leaves_out_what_is_not_there_and_says_so(tmp_path, capsys):
    nowhere = str(tmp_path / "nowhere")
    assert not list(
        suite_prepare.measure_prepare(nowhere, nowhere, str(tmp_path), with_torch=False, repeats=1)
    )
    messages = capsys.readouterr().err
    assert f"{nowhere}: no clips in this folder; left out" in messages
    assert f"{nowhere}: no records, or no folder clips next to them; left out" in messages


@pytest.mark.long
def test_loader(data):
    rows = list(suite_loader.measure_loader(data, repeats=1, batch_count=2, batch_size=3, max_clips=2))
    for row in rows:
        check_row(row)
        assert (row["case"], row["unit"]) == ("batches of 3", "records/s/core")
    assert [row["peer_name"] for row in rows] == ["ArrayRecord's bare read", "decoding at train time"]
    assert rows[1]["ratio"] > 1


def test_loader_without_clips(data):
    bare, decoding = suite_loader.measure_loader(data, repeats=1, batch_count=2, batch_size=3, max_clips=0)
    check_row(bare)
    check_row(decoding)
    assert bare["peer"] > 0
    assert decoding["peer"] is None


def test_pooling_against_torch():
    tiny = {"clip level": ((8,), 6, 5), "frame level": ((4, 3), 6, 6)}
    rows = list(suite_speed.measure_fbp(with_torch=TORCH, repeats=1, pooling_shapes=tiny))
    for row, repeats in zip(rows, [suite_speed.SHORT_CASE_REPEAT_FACTOR] * 3 + [1] * 3, strict=True):
        check_row(row, repeats)
    assert [row["unit"] for row in rows] == ["rows/s", "rows/s", "FLOP/s"] * 2
    assert rows[2]["peer"] is not None


@pytest.mark.long
def test_a_protocol_against_a_loop(tmp_path):
    corpus = {"clips": 108, "speakers": 6, "folds": 3, "classes": 3}
    cases = {"tiny": (settings.with_features, {"steps": 6, "audio": 8, "frames": 6, "face": 8})}
    rows = suite_crossval.measure_crossval(
        str(tmp_path), with_torch=TORCH, repeats=1, seeds=1, cases=cases, corpus_sizes=corpus
    )
    (row,) = rows
    check_row(row)
    assert row["case"] == "3 folds x 1 seeds, tiny"


@pytest.mark.long
def test_a_whole_step_and_a_second_start(tmp_path):
    rows = [
        *suite_speed.measure_step(with_torch=TORCH, repeats=1, batch_sizes=(8,)),
        *suite_startup.measure_startup(str(tmp_path), repeats=1),
    ]
    for row in rows:
        check_row(row)
    assert rows[-1]["ratio"] > 1
