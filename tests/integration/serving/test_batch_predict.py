"""Many files: the same answers as one by one, in order, whatever happens to the command."""

import concurrent.futures
import json
import os
import subprocess
import sys
import time

import pyarrow.parquet
import pytest

from emofuse_jax.serving import load, prediction_file
from emofuse_jax.serving.batch_predict import map_in_order, predict_files
from emofuse_jax.serving.predict import BATCH_SIZES
from tests.unit.serving.test_predict import write_audio

CLIP_SECONDS = (1.4, 4.0, 0.9, 6.1)


@pytest.fixture(scope="module")
def bundle(audio_bundle_path):
    return load(audio_bundle_path)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clips")
    for index, seconds in enumerate(CLIP_SECONDS):
        write_audio(folder / f"{index}.wav", seconds)
    (folder / "2b.wav").write_bytes(b"not a sound")
    return folder


def list_paths(folder) -> list[str]:
    return sorted(str(path) for path in folder.iterdir())


def assert_close(predictions: list[dict], expected: list[dict]):
    assert len(predictions) == len(expected)
    for ours, theirs in zip(predictions, expected, strict=True):
        assert {*ours} == {*theirs}
        for name, value in theirs.items():  # another batch size sums in another order
            is_approximate = name in ("confidence", "probabilities", "voice_weight", "face_weight")
            assert ours[name] == (pytest.approx(value, abs=1e-5) if is_approximate else value)


def test_answers_are_those_of_single_files_in_order(bundle, folder):
    predictions = list(predict_files(bundle, [*list_paths(folder), list_paths(folder)[0]], workers=2))
    assert [path for path, _ in predictions] == list_paths(folder)
    for path, file_predictions in predictions:
        if path.endswith("2b.wav"):
            assert file_predictions == [{"path": path, "error": "not a media file, or too damaged to read"}]
        else:
            assert_close(file_predictions, [window.to_json() for window in bundle.predict(path)])
    unsure = dict(predict_files(bundle, list_paths(folder)[:1], workers=1, min_confidence=1.0))
    assert unsure[list_paths(folder)[0]][0]["label"] == "unknown"


def test_work_is_at_most_so_far_ahead():
    started_items = []

    def work(item):
        started_items.append(item)
        return -item

    with concurrent.futures.ThreadPoolExecutor(2) as threads:
        results = map_in_order(threads, work, range(50), max_ahead=3)
        assert [next(results) for _ in range(10)] == [-i for i in range(10)]
        time.sleep(0.1)
        assert sorted(started_items) == list(range(13))
        assert list(results) == [-i for i in range(10, 50)]


def emofuse_predict(folder, bundle, output, *more) -> subprocess.CompletedProcess:
    flags = (f"--bundle={bundle.path}", f"--output={output}", "--workers=2", *more)
    command = [sys.executable, "-m", "emofuse_jax.cli", "predict", str(folder), *flags]
    return subprocess.run(command, capture_output=True, text=True)


def read_lines(path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture(scope="module")
def complete_output(bundle, folder, tmp_path_factory):
    """What an unbroken command writes."""
    output = tmp_path_factory.mktemp("whole") / "answers.jsonl"
    done = emofuse_predict(folder, bundle, output)
    assert done.returncode == 1, done.stderr  # one file is no sound
    assert f"{output}: 5 files, 1 of them with windows without a prediction" in done.stdout
    assert "files 5/5" in done.stderr
    assert os.listdir(output.parent) == [output.name]
    return output


def test_json_lines_and_parquet_hold_every_answer(bundle, folder, complete_output, tmp_path):
    lines = read_lines(complete_output)
    expected = [
        line
        for _, file_predictions in predict_files(bundle, list_paths(folder), workers=1)
        for line in file_predictions
    ]
    assert_close(lines, expected)
    output = tmp_path / "new" / "answers.parquet"
    assert emofuse_predict(folder, bundle, output).returncode == 1
    table = pyarrow.parquet.read_table(output)
    assert table.column_names[:5] == ["path", "start", "end", "label", "confidence"]
    for row, line in zip(table.to_pylist(), lines, strict=True):
        flat = {k: v for k, v in line.items() if k != "probabilities"}
        flat |= {f"p_{name}": p for name, p in line.get("probabilities", {}).items()}
        assert {k: v for k, v in row.items() if v is not None} == pytest.approx(
            {k: v for k, v in flat.items() if v is not None}, abs=1e-5
        )


@pytest.mark.parametrize("cut", [40, 0.45, 0.99])
def test_a_stopped_command_goes_on(bundle, folder, complete_output, tmp_path, cut):
    """Cut anywhere, even in the middle of a line, what follows is the same to the bit."""
    output = tmp_path / "answers.jsonl"
    with prediction_file.open_prediction_writer(str(tmp_path / "first.jsonl"), bundle, 0.0) as writer:
        for path in list_paths(folder):
            writer.add(path, [line for line in read_lines(complete_output) if line["path"] == path])
        writer.file.seek(0)
        partial = writer.file.read()
    partial_copy = partial[: cut if isinstance(cut, int) else round(cut * len(partial))]
    (tmp_path / "answers.jsonl.partial").write_bytes(partial_copy)
    predicted_paths = []
    with prediction_file.open_prediction_writer(str(output), bundle, 0.0) as writer:
        remaining_paths = [path for path in list_paths(folder) if path not in writer.completed_paths]
        assert (len(remaining_paths) == 5) == (cut == 40)
        for path, file_predictions in predict_files(
            bundle, remaining_paths, workers=2, batch_sizes=BATCH_SIZES[-1:]
        ):
            writer.add(path, file_predictions)
            predicted_paths.append(path)
        assert {os.path.basename(path) for path in writer.failed_paths} == {"2b.wav"}
    assert predicted_paths == remaining_paths
    assert output.read_bytes() == complete_output.read_bytes()
    assert not os.path.exists(f"{output}.partial")


def test_a_killed_command_loses_nothing(bundle, folder, complete_output, tmp_path):
    output = tmp_path / "answers.jsonl"
    command = [sys.executable, "-m", "emofuse_jax.cli", "predict", str(folder), f"--bundle={bundle.path}"]
    with subprocess.Popen([*command, f"--output={output}", "--workers=1"]) as process:
        while not os.path.exists(f"{output}.partial"):
            time.sleep(0.05)
            assert process.poll() is None
        process.kill()
    assert not output.exists()
    assert emofuse_predict(folder, bundle, output).returncode == 1
    assert output.read_bytes() == complete_output.read_bytes()


def test_what_can_not_go_on_is_reported(bundle, folder, complete_output, tmp_path):
    before = complete_output.read_bytes()
    for output, words in (
        (complete_output, f"{complete_output}: the file exists; remove it or choose another --output"),
        (tmp_path / "answers.csv", "expected a file name that ends in .jsonl or .parquet"),
    ):
        done = emofuse_predict(folder, bundle, output)
        assert done.returncode == 2, done.stderr
        assert words in done.stderr
    assert complete_output.read_bytes() == before
    output = str(tmp_path / "answers.jsonl")
    with pytest.raises(KeyError), prediction_file.open_prediction_writer(output, bundle, 0.0):
        raise KeyError  # stopped
    with pytest.raises(ValueError, match="remove the file or choose another"):
        prediction_file.open_prediction_writer(output, bundle, 0.5).__enter__()
    with (
        prediction_file.open_prediction_writer(output, bundle, 0.0),
        pytest.raises(ValueError, match="another process is writing"),
    ):
        prediction_file.open_prediction_writer(output, bundle, 0.0).__enter__()


def test_answers_as_a_table(bundle, folder, monkeypatch):
    pandas = pytest.importorskip("pandas", reason="pip install '.[tables]'")
    predictions = bundle.predict(list_paths(folder)[1])
    table = predictions.to_pandas()
    assert isinstance(table, pandas.DataFrame)
    assert list(table["start"]) == [window.start for window in predictions]
    assert table["p_happy"].tolist() == [window.probabilities["happy"] for window in predictions]
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ValueError, match=r"pip install '\.\[tables\]'"):
        predictions.to_pandas()
