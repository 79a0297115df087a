"""Predicts a media file: its windows are prepared exactly as training clips are, then run in batches."""

from collections.abc import Iterator

from emofuse_jax.serving.interfaces import LoadedBundle
from emofuse_jax.serving.media.prepare_window import check_encoders, prep_requirements, prepare_window
from emofuse_jax.serving.predict import predict_windows
from emofuse_jax.serving.predictions import FailedWindow, FilePredictions, PreparedWindow, is_probability
from emofuse_jax.serving.windows import plan_windows


def predict_file(bundle: LoadedBundle, path: str, *, min_confidence: float = 0.0) -> FilePredictions:
    """Answers for every window of a media file, in order.

    Args:
      bundle: a loaded one.
      path: of the file.
      min_confidence: an answer whose highest probability is lower has the label `unknown`.

    Raises:
      ValueError: the file cannot be used at all (missing, empty, not media, truncated, nothing to hear or
        see), or the `prep` extra is not installed; one line that names the file.
    """
    from data_prep.optional_dependencies import require_media

    require_media()
    check_encoders(bundle)
    if not is_probability(min_confidence):
        raise ValueError(f"min_confidence: {min_confidence}, expected a probability")
    try:
        predictions = FilePredictions(predict_windows(bundle, _prepare_windows(bundle, path), min_confidence))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    if all(isinstance(prediction, FailedWindow) for prediction in predictions):
        raise ValueError(f"{path}: {predictions[0].error}")
    return predictions


def _prepare_windows(bundle: LoadedBundle, path: str) -> Iterator[PreparedWindow]:
    from data_prep.media.probe import probe_media

    requirements = prep_requirements(bundle)
    for start, end, clip_range in plan_windows(probe_media(path).duration, bundle):
        yield PreparedWindow(path, start, end, prepare_window(requirements, path, *clip_range))
