"""Predicts a media file: its windows are prepared exactly as training clips are, then run in batches."""

from collections.abc import Iterator

from emofuse_jax.serving.interfaces import LoadedBundle
from emofuse_jax.serving.media.prepare_window import check_encoders, needs_of, prepare_window
from emofuse_jax.serving.predict import answer_windows
from emofuse_jax.serving.predictions import Answers, Gap, Window, is_probability
from emofuse_jax.serving.windows import spans


def predict_file(bundle: LoadedBundle, path: str, *, min_confidence: float = 0.0) -> Answers:
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
        answers = Answers(answer_windows(bundle, _windows(bundle, path), min_confidence))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    if all(isinstance(answer, Gap) for answer in answers):
        raise ValueError(f"{path}: {answers[0].error}")
    return answers


def _windows(bundle: LoadedBundle, path: str) -> Iterator[Window]:
    from data_prep.media.probe import probe

    needs = needs_of(bundle)
    for start, end, part in spans(probe(path).duration, bundle):
        yield Window(path, start, end, prepare_window(needs, path, *part))
