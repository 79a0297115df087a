"""Serving: `bundle.export` writes bundles, `bundle.load` reads them, `predict` runs them on media files."""

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from emofuse_jax.serving.bundle.load import Bundle


def load(
    path: str | os.PathLike[str],
    *,
    audio_encoder: str = "",
    face_encoder: str = "",
    face_detector: str = "",
    engine: str = "auto",
) -> "Bundle":
    """Opens a bundle directory and returns the `Bundle`, ready to run.

    `predict(source)` returns a list with one Prediction for each window of the media file at the path
    `source`, or for each `ef.Clip` (a clip as arrays; `source` is one or a sequence of them). A Prediction
    has `path` (or clip_id), `start` and `end` (seconds), `label`, `confidence`, `probabilities` (by class
    name), `voice_weight` and `face_weight` (None if the model has none), `audio_ok`, `video_ok` and `notes`.
    A window that cannot be used gives a FailedWindow: `path`, `start`, `end` and `error`.

    `run(arrays)` returns the outputs of the network for a batch, by name; `inputs` has the (shape, dtype) of
    each array that it takes. `metadata` is the content of bundle.json as a dict, `classes` is a tuple of the
    class names. Needs jax, numpy, flatbuffers and safetensors. `predict` with a media file also needs the
    extra `prep`, and the extra `onnx` if the model reads features of frozen encoders or the bundle uses
    another face detector than MTCNN.

    Args:
      path: bundle directory, written by `emofuse export`.
      audio_encoder: ONNX file of the frozen audio encoder; needed only if the bundle does not contain it.
      face_encoder: ONNX file of the frozen face encoder; needed only if the bundle does not contain it.
      face_detector: ONNX file of the face detector; needed only if the bundle does not contain it.
      engine: "jax", "onnx" (onnxruntime) or "auto". "auto" selects "onnx" on a CPU if the bundle has
        `model.onnx` and onnxruntime is installed, otherwise "jax".

    Raises:
      ValueError: bundle.json is missing, has another schema or an invalid field; a file of the bundle is
        missing or has another SHA-256 than in bundle.json; the graph contains an operation that is not
        allowed; the graph, the weights or model.onnx cannot be read or do not fit bundle.json; an encoder
        file cannot be read, is not the one that the model was trained with, or is not used by the model; or
        `engine` is unknown or "onnx" without model.onnx or onnxruntime. The message is one line that names
        the file or argument.
      OSError: bundle.json cannot be read.
      ModuleNotFoundError: one of the packages above that every bundle needs is not installed.

    Example:
      >>> bundle = ef.load("bundle")
      >>> bundle.classes
      ('sad', 'happy')
    """
    from emofuse_jax.serving.bundle.load import load_bundle

    return load_bundle(
        os.fspath(path), {"audio": audio_encoder, "face": face_encoder, "detector": face_detector}, engine
    )
