"""Reads the trained MTCNN weights from the files in the `mtcnn` wheel (MIT licence).

The package itself needs TensorFlow, so it is only located, never imported. The files are pickles (joblib),
which can execute code, so each is loaded only if its SHA-256 is the one of wheel 1.0.0, which is stored here.
"""

import hashlib
import importlib.util
import io
import os

import numpy as np

WEIGHTS_SHA256 = {
    "pnet": "ea6b0c3e685ebee3165326ad6484acc95f2ef78f1c94fbf40a55704fa989f7b5",
    "rnet": "cb00e6460f3c98b0bfafaba3c0a0ded4bdf6e62cee7174d969e8670d7e757fee",
    "onet": "94f6ea2f4cf985275ee958cdd762d17b6009348a4fb9d8c6be39ba73ffd22ca3",
}


def weights_directory() -> str:
    """Returns the path of the folder with the weight files in the installed `mtcnn` wheel.

    Raises ModuleNotFoundError if the wheel is not installed.
    """
    spec = importlib.util.find_spec("mtcnn")
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError(
            "face detection needs the weights in the 'mtcnn' wheel: run pip install '.[prep]' in a clone of"
            " emofuse"
        )
    return os.path.join(spec.submodule_search_locations[0], "assets", "weights")


def load_weights(name: str, directory: str | None = None) -> list[np.ndarray]:
    """Reads the weights of one network.

    Args:
      name: `pnet`, `rnet` or `onet`.
      directory: folder of the weight files; default: that of the installed wheel.

    Returns:
      A list of float32 arrays: for each layer, in order, kernel ([height width in out], or [in out] of a
      dense layer), bias and, if PReLU follows, its slope.

    Raises:
      ModuleNotFoundError: the wheel, or joblib, is not installed.
      OSError: the file does not exist (FileNotFoundError) or can't be read.
      ValueError: the file has another SHA-256, or lz4 is not installed.
    """
    path = os.path.join(directory or weights_directory(), f"{name}.lz4")
    with open(path, "rb") as file:
        data = file.read()
    digest = hashlib.sha256(data).hexdigest()
    if digest != WEIGHTS_SHA256[name]:
        raise ValueError(
            f"{path}: SHA-256 is {digest}, expected {WEIGHTS_SHA256[name]}; run pip install mtcnn==1.0.0"
        )
    import joblib  # imported here, so that a missing wheel is reported before a missing joblib

    return [np.asarray(array, np.float32) for array in joblib.load(io.BytesIO(data))]
