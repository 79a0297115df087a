"""Answers for media files with a bundle: which emotion, how sure, and what the answer rests on.

    emofuse predict --bundle=runs/demo/bundle clip.mp4 voice.flac folder/

A clip is a video, a sound or a folder of them. Long files are cut in windows of the length that the model was
trained on; each window is one JSON line ({"path", "start", "end", "label", "confidence", "probabilities",
"voice_weight", "face_weight", "audio_ok", "video_ok"}), or one row of a table when the output is a terminal.
A file that cannot be used is a line {"path", "error"}; the others go on, and the exit status is 1.
The bundle of a model of features carries its frozen encoders, or takes them by --audio_encoder and
--face_encoder: the very files that the records were made with.
"""

import json
import sys
from collections.abc import Iterator, Sequence

from absl import flags

from launch.cli import run

BUNDLE = flags.DEFINE_string("bundle", None, "Bundle directory, written by emofuse export.")
SURE = flags.DEFINE_float("min_confidence", 0.0, "Below this probability the label is `unknown`.", 0.0, 1.0)
JSON = flags.DEFINE_boolean("json", False, "JSON lines on a terminal too.")

AUDIO = flags.DEFINE_string("audio_encoder", "", "ONNX file that the bundle names but does not carry.")
FACE = flags.DEFINE_string("face_encoder", "", "ONNX file that the bundle names but does not carry.")
DETECTOR = flags.DEFINE_string("face_detector", "", "ONNX file that the bundle names but does not carry.")


def main(argv: Sequence[str]) -> int:
    """Prints an answer per window; 1 when a file or a window had none."""
    if BUNDLE.value is None or not argv[1:]:
        raise ValueError("--bundle=DIR and a clip or folder are needed; see emofuse predict --help")
    from data_prep.extras import require_media
    from emofuse_jax.serving import load, predictor, windows

    files = {"audio_encoder": AUDIO.value, "face_encoder": FACE.value, "face_detector": DETECTOR.value}
    bundle = load(BUNDLE.value, **files)
    predictor.check_encoders(bundle)
    require_media()
    files = list(windows.media_files(argv[1:]))
    if not files:
        raise ValueError(f"{argv[1]}: no media files in it")
    rows = [] if sys.stdout.isatty() and not JSON.value else None
    failed = False
    for answer in answers(bundle, files, SURE.value):
        failed |= "error" in answer
        if rows is None:
            print(json.dumps(answer), flush=True)
        else:
            rows.append(answer)
    if rows is not None:
        from emofuse_jax.serving.table import print_table

        print_table(rows)
    return int(failed)


def answers(bundle, files: Sequence[str], sure: float) -> Iterator[dict]:
    """JSON objects of all windows of all files; what goes wrong with a file is its own line."""
    for path in files:
        try:
            yield from (window.to_json() for window in bundle.predict(path, min_confidence=sure))
        except Exception as error:  # whatever one odd file does, the others are answered
            reason = " ".join(str(error).split()) or type(error).__name__
            yield {"path": path, "error": reason.removeprefix(f"{path}: ")}


if __name__ == "__main__":
    run(main)
