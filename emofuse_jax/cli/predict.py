"""Answers for media files with a bundle: which emotion, how sure, and what the answer rests on.

    emofuse predict --bundle=runs/demo/bundle clip.mp4 voice.flac folder/
    emofuse predict --bundle=runs/demo/bundle --output=answers.parquet folder/

A clip is a video, a sound or a folder of them. Long files are cut in windows of the length that the model was
trained on; each window is one JSON line ({"path", "start", "end", "label", "confidence", "probabilities",
"voice_weight", "face_weight", "audio_ok", "video_ok"}), or one row of a table when the output is a terminal.
A file that cannot be used is a line {"path", "error"}; the others go on, and the exit status is 1. --output
writes JSON lines (.jsonl) or Parquet (.parquet, a column p_<class> for each probability) instead: started
again after a stop it goes on, and the file is there when all is answered. --workers processes decode.
The bundle of a model of features carries its frozen encoders, or takes them by --audio_encoder and
--face_encoder: the very files that the records were made with.
"""

import json
import sys
from collections.abc import Sequence

from absl import flags

from emofuse_jax.utils.progress_bar import progress_bar

BUNDLE = flags.DEFINE_string("bundle", None, "Bundle directory, written by emofuse export.")
MIN_CONFIDENCE = flags.DEFINE_float(
    "min_confidence", 0.0, "Below this probability the label is `unknown`.", 0.0, 1.0
)
PRINT_JSON = flags.DEFINE_boolean("json", False, "JSON lines on a terminal too.")
OUTPUT = flags.DEFINE_string(
    "output", "", "File to write, .jsonl or .parquet; by default the answers are printed."
)
WORKERS = flags.DEFINE_integer("workers", None, "Processes that decode; by default the cores.", lower_bound=1)

ENGINE = flags.DEFINE_enum("engine", "auto", ["auto", "jax", "onnx"], "What computes the answers.")
AUDIO_ENCODER = flags.DEFINE_string(
    "audio_encoder", "", "ONNX file that the bundle names but does not carry."
)
FACE_ENCODER = flags.DEFINE_string("face_encoder", "", "ONNX file that the bundle names but does not carry.")
FACE_DETECTOR = flags.DEFINE_string(
    "face_detector", "", "ONNX file that the bundle names but does not carry."
)


def main(argv: Sequence[str]) -> int:
    """Answers all files; 1 when a file or a window had no answer."""
    if BUNDLE.value is None or not argv[1:]:
        raise ValueError("--bundle=DIR and a clip or folder are needed; see emofuse predict --help")
    from data_prep.optional_dependencies import require_media
    from emofuse_jax.serving import load, prediction_file, windows
    from emofuse_jax.serving.media.prepare_window import check_encoders

    if OUTPUT.value:
        prediction_file.check_output(OUTPUT.value)
    files = {
        "audio_encoder": AUDIO_ENCODER.value,
        "face_encoder": FACE_ENCODER.value,
        "face_detector": FACE_DETECTOR.value,
    }
    bundle = load(BUNDLE.value, **files, engine=ENGINE.value)
    check_encoders(bundle)
    require_media()
    files = list(dict.fromkeys(windows.find_media_files(argv[1:])))
    if not files:
        raise ValueError(f"{argv[1]}: no media files in it")
    return write_predictions(bundle, files) if OUTPUT.value else print_predictions(bundle, files)


def predict_all(bundle, files: Sequence[str], **options):
    """Each file and its answers (`batch_predict.predict_files`)."""
    from emofuse_jax.serving.batch_predict import predict_files
    from emofuse_jax.utils.system import available_cores

    workers = min(WORKERS.value or available_cores(), len(files))
    return predict_files(bundle, files, workers=workers, min_confidence=MIN_CONFIDENCE.value, **options)


def print_predictions(bundle, files: Sequence[str]) -> int:
    """Prints each answer when it is known; on a terminal all of them as a table."""
    table_rows, has_errors = [], False
    for _, predictions in predict_all(bundle, files):
        has_errors |= any("error" in prediction for prediction in predictions)
        if sys.stdout.isatty() and not PRINT_JSON.value:
            table_rows += predictions
        else:
            print(*map(json.dumps, predictions), sep="\n", flush=True)
    if table_rows:
        from emofuse_jax.serving.prediction_table import print_table

        print_table(table_rows)
    return int(has_errors)


def write_predictions(bundle, files: Sequence[str]) -> int:
    """Writes --output, or goes on with it."""
    from emofuse_jax.serving.predict import BATCH_SIZES
    from emofuse_jax.serving.prediction_file import open_prediction_writer

    with (
        open_prediction_writer(OUTPUT.value, bundle, MIN_CONFIDENCE.value) as prediction_writer,
        progress_bar("files") as progress,
    ):
        remaining_files = [path for path in files if path not in prediction_writer.completed_paths]
        # one batch size, so that answers are the same to the bit wherever a stopped command goes on
        for path, predictions in (
            predict_all(bundle, remaining_files, batch_sizes=BATCH_SIZES[-1:]) if remaining_files else ()
        ):
            prediction_writer.add(path, predictions)
            progress(len(prediction_writer.completed_paths), len(files))
    print(
        f"{OUTPUT.value}: {len(prediction_writer.completed_paths)} files,"
        f" {len(prediction_writer.failed_paths)} of them not wholly answered"
    )
    return int(bool(prediction_writer.failed_paths))
