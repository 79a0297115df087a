"""Predicts a media file: its windows are prepared exactly like training clips and run in batches."""

from collections.abc import Iterator

from emofuse_jax.serving.interfaces import LoadedBundle
from emofuse_jax.serving.media.prepare_window import check_encoders, prep_requirements, prepare_window
from emofuse_jax.serving.predict import predict_windows
from emofuse_jax.serving.predictions import (
    FailedWindow,
    FilePredictions,
    PreparedWindow,
    check_min_confidence,
)
from emofuse_jax.serving.windows import plan_windows


def predict_file(bundle: LoadedBundle, path: str, *, min_confidence: float = 0.0) -> FilePredictions:
    """Returns the predictions for every window of a media file, in order.

    The list has one Prediction per window, with `path`, `start` and `end` in seconds, `label` (the most
    probable class), `confidence` (its probability), `probabilities` (dict by class name), `voice_weight` and
    `face_weight` (None if the model has none), `audio_ok` and `video_ok` (False if voice or face is not
    usable) and `notes`, a text. A window that cannot be predicted is a FailedWindow with `path`, `start`,
    `end` and `error`. `to_pandas` of the list returns a table.

    Args:
      bundle: the loaded bundle.
      path: media file.
      min_confidence: predictions with a lower confidence get the label `unknown`.

    Raises:
      ValueError: no window of the file has a prediction (the file is missing, empty, not media, truncated, or
        has no usable voice or face), an encoder file of the bundle is missing, has another SHA-256 or is not
        an ONNX model, the weights of the face detector MTCNN have another SHA-256, the preparation settings
        in bundle.json are invalid, the bundle was trained on arrays or cannot be run on this machine,
        `min_confidence` is not a number from 0 to 1, or a required extra (`prep`, `onnx`) is not installed.
        The message is one line that names the file or argument.
      OSError: an encoder file or the weights of MTCNN cannot be read.
      ModuleNotFoundError: joblib or the `mtcnn` wheel with the weights is needed, but not installed.
    """
    from data_prep.optional_dependencies import require_media

    require_media()
    check_encoders(bundle)
    check_min_confidence(min_confidence)
    try:
        predictions = FilePredictions(predict_windows(bundle, _prepare_windows(bundle, path), min_confidence))
    except ValueError as error:
        raise ValueError(f"{path}: cannot be predicted, correct this first: {error}") from error
    errors = [prediction.error for prediction in predictions if isinstance(prediction, FailedWindow)]
    if len(errors) == len(predictions):
        raise ValueError(f"{path}: no window has a prediction: {errors[0]}; pass another file")
    return predictions


def _prepare_windows(bundle: LoadedBundle, path: str) -> Iterator[PreparedWindow]:
    """Yields the prepared windows of a file, in order.

    A PreparedWindow has `path`, `start` and `end` in seconds, and `result`: the Record (audio and faces of
    the window as arrays, `audio_ok`, `video_ok` and `notes`), or a Failure with the `reason` if nothing in
    the window can be used. Raises ValueError if the file is missing or not usable media, the preparation
    settings in bundle.json are invalid, the bundle was trained on arrays, an encoder file is missing, has
    another SHA-256 or is not an ONNX model, or the weights of MTCNN have another SHA-256; OSError if an
    encoder file or the weights of MTCNN cannot be read; ModuleNotFoundError if a package of the extras `prep`
    or `onnx` is not installed.
    """
    from data_prep.media.probe import probe_media

    requirements = prep_requirements(bundle)
    for window in plan_windows(probe_media(path).duration, bundle):
        result = prepare_window(requirements, path, *window.clip_range)
        yield PreparedWindow(path, window.start, window.end, result)
