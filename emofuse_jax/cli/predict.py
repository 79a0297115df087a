"""Predicts the emotion in media files with a bundle, with its confidence and the weight of each modality.

    emofuse predict --bundle=runs/demo/bundle clip.mp4 voice.flac folder/
    emofuse predict --bundle=runs/demo/bundle --output=predictions.parquet folder/

An argument is a video file, an audio file, or a folder of them. Long files are cut into windows of the length
that the model was trained on. Each window is one JSON line ({"path", "start", "end", "label", "confidence",
"probabilities", "voice_weight", "face_weight", "audio_ok", "video_ok"}), or one table row if the output is a
terminal. A file that cannot be used is a line {"path", "error"}; the other files are still predicted, and the
exit status is 1.

--output writes JSON lines (.jsonl) or Parquet (.parquet, with a column p_<class> for each probability)
instead. Run the same command again to resume after a stop; the file appears when all predictions are
complete. --workers processes decode the files.

The bundle of a model that reads features contains its frozen encoders, or needs them as --audio_encoder and
--face_encoder: exactly the files that the records were prepared with.
"""

import json
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from absl import flags

from emofuse_jax.cli import bundle_flags
from emofuse_jax.utils.progress_bar import progress_bar

if TYPE_CHECKING:
    from emofuse_jax.serving.bundle.load import Bundle
    from emofuse_jax.serving.predictions import WindowFields

BUNDLE = flags.DEFINE_string("bundle", None, "Bundle directory, written by emofuse export.")
MIN_CONFIDENCE = flags.DEFINE_float(
    "min_confidence", 0.0, "The label is `unknown` if the confidence is below this probability.", 0.0, 1.0
)
PRINT_JSON = flags.DEFINE_boolean("json", False, "Print JSON lines instead of a table on a terminal.")
OUTPUT = flags.DEFINE_string(
    "output", "", "File to write, .jsonl or .parquet; default: print the predictions."
)
WORKERS = flags.DEFINE_integer(
    "workers", None, "Number of decoding processes; default: number of cores.", lower_bound=1
)

flags.adopt_module_key_flags(bundle_flags)


def main(argv: Sequence[str]) -> int:
    """Predicts all files; prints the predictions, or writes them to --output.

    `argv` has the name of the program and the paths of media files or folders of them.

    Returns:
      The exit status: 1 if a file or window has no prediction, otherwise 0.

    Raises:
      ValueError: a flag is missing or invalid, there are no media files, a required package is not installed,
        --output exists, is damaged, belongs to another run or is being written by another process, the bundle
        is damaged, was trained on arrays or cannot be run on this machine, or an encoder file is missing or
        another one.
      OSError: bundle.json cannot be read, a file cannot be read or written, or a decoding process cannot be
        started.
      ImportError: pyarrow is needed and installed, but cannot be imported.
    """
    if BUNDLE.value is None or not argv[1:]:
        raise ValueError("--bundle=DIR and a clip or folder are required; see emofuse predict --help")
    from data_prep.optional_dependencies import require_media
    from emofuse_jax.serving import prediction_file, windows

    if OUTPUT.value:
        prediction_file.check_output(OUTPUT.value)
    bundle = bundle_flags.load_bundle(BUNDLE.value)
    require_media()
    files = list(dict.fromkeys(windows.find_media_files(argv[1:])))
    if not files:
        raise ValueError(
            f"{', '.join(argv[1:])}: no media files in these folders; pass audio or video files, such as .wav"
            " or .mp4"
        )
    return write_predictions(bundle, files) if OUTPUT.value else print_predictions(bundle, files)


def predict_all(
    bundle: "Bundle", files: Sequence[str], batch_sizes: Sequence[int]
) -> "Iterator[tuple[str, list[WindowFields]]]":
    """Yields `(path, predictions)` for each file, in order; --workers processes decode the files.

    `predictions` is a list with one JSON dict per window: `path`, `start` and `end` (seconds in the file),
    `label` (a class name, or `unknown` below --min_confidence), `confidence` (0 to 1), `probabilities` (0 to
    1, by class name), `voice_weight` and `face_weight` (0 to 1, None if the model has none), `audio_ok` and
    `video_ok` (False if the window has no usable voice or face) and, if there are any, `notes` (text). A
    window without a prediction has `path`, `start`, `end` and `error` (the reason). If no window has a
    prediction, the list has a single dict of `path` and `error`.

    Args:
      bundle: the loaded bundle.
      files: paths of media files, at least one.
      batch_sizes: batch sizes in ascending order, at least one; a batch is padded to the next larger size and
        has at most the largest.

    Raises:
      ValueError: while iterating: the settings in the bundle are invalid, the bundle was trained on arrays,
        or it cannot be run on this machine.
      OSError: while iterating: a decoding process cannot be started.
    """
    from emofuse_jax.serving.batch_predict import predict_files
    from emofuse_jax.utils.system import available_cores

    workers = min(WORKERS.value or available_cores(), len(files))
    return predict_files(
        bundle, files, workers=workers, min_confidence=MIN_CONFIDENCE.value, batch_sizes=batch_sizes
    )


def print_predictions(bundle: "Bundle", files: Sequence[str]) -> int:
    """Prints each prediction as a JSON line as soon as it is available, or all as a table on a terminal.

    With --json, a terminal gets JSON lines too. There is one line or row for each window of each file, with
    `path`, `start`, `end`, `label`, `confidence`, `probabilities`, `voice_weight`, `face_weight`, `audio_ok`,
    `video_ok` and perhaps `notes`, or with `error` if it has no prediction.

    Args:
      bundle: the loaded bundle.
      files: paths of media files, at least one.

    Returns:
      1 if a file or window has no prediction, otherwise 0.

    Raises:
      ValueError: the settings in the bundle are invalid, the bundle was trained on arrays, or it cannot be
        run on this machine.
      OSError: a decoding process cannot be started.
    """
    from emofuse_jax.serving.predict import BATCH_SIZES

    table_rows: list[WindowFields] = []
    has_errors = False
    for _, predictions in predict_all(bundle, files, BATCH_SIZES):
        has_errors |= any("error" in prediction for prediction in predictions)
        if sys.stdout.isatty() and not PRINT_JSON.value:
            table_rows += predictions
        else:
            print(*map(json.dumps, predictions), sep="\n", flush=True)
    if table_rows:
        from emofuse_jax.serving.prediction_table import print_table

        print_table(table_rows)
    return int(has_errors)


def write_predictions(bundle: "Bundle", files: Sequence[str]) -> int:
    """Writes the predictions of `files` to --output, as JSON lines (.jsonl) or as a table (.parquet).

    They are collected in `<output>.partial`, which becomes --output when all files are done. If a stopped run
    left `<output>.partial`, the files whose predictions are complete in it are skipped.

    Args:
      bundle: the loaded bundle.
      files: paths of media files.

    Returns:
      1 if a file or window has no prediction, otherwise 0.

    Raises:
      ValueError: --output has another suffix, or exists without `<output>.partial`; `<output>.partial` is
        damaged, is from another bundle or --min_confidence, or is being written by another process; pyarrow
        is missing for a .parquet file; the settings in the bundle are invalid; the bundle was trained on
        arrays; or it cannot be run on this machine.
      OSError: bundle.json cannot be read, a file cannot be read or written, or a decoding process cannot be
        started.
      ImportError: pyarrow is needed and installed, but cannot be imported.
    """
    from emofuse_jax.serving.predict import BATCH_SIZES
    from emofuse_jax.serving.prediction_file import open_prediction_writer

    with (
        open_prediction_writer(OUTPUT.value, bundle, MIN_CONFIDENCE.value) as prediction_writer,
        progress_bar("files") as progress,
    ):
        remaining_files = [path for path in files if path not in prediction_writer.completed_paths]
        # one batch size, so that predictions are bit-identical wherever a stopped command resumes
        for path, predictions in (
            predict_all(bundle, remaining_files, BATCH_SIZES[-1:]) if remaining_files else ()
        ):
            prediction_writer.add(path, predictions)
            progress(len(prediction_writer.completed_paths), len(files))
    print(
        f"{OUTPUT.value}: {len(prediction_writer.completed_paths)} files,"
        f" {len(prediction_writer.failed_paths)} of them with windows without a prediction"
    )
    return int(bool(prediction_writer.failed_paths))
