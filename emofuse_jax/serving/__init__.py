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
    """Opens a bundle directory and returns the `Bundle`.

    The bundle has `.run(arrays)`, `.predict(clip_path)` and `.metadata`. Needs jax, numpy, flatbuffers and
    safetensors. `.predict` also needs the extra `prep`, and the extra `onnx` if the model reads features of
    frozen encoders or the bundle uses another face detector than MTCNN.

    Args:
      path: bundle directory, written by `emofuse export`.
      audio_encoder: ONNX file of the frozen audio encoder; needed only if the bundle does not contain it.
      face_encoder: ONNX file of the frozen face encoder; needed only if the bundle does not contain it.
      face_detector: ONNX file of the face detector; needed only if the bundle does not contain it.
      engine: "jax", "onnx" (onnxruntime) or "auto". "auto" selects "onnx" on a CPU if the bundle has
        `model.onnx` and onnxruntime is installed, otherwise "jax".

    Raises:
      ValueError: the directory is not a complete, unmodified bundle, an encoder file is not the one that the
        model was trained with, or the engine is not available. The message is one line that names the file.
      OSError: bundle.json cannot be read.

    Example:
      >>> bundle = ef.load("bundle")
      >>> bundle.classes
      ('sad', 'happy')
    """
    from emofuse_jax.serving.bundle.load import load_bundle

    return load_bundle(
        os.fspath(path), {"audio": audio_encoder, "face": face_encoder, "detector": face_detector}, engine
    )
