"""The trained MTCNN weights, read from the files that ship inside the `mtcnn` wheel (MIT licence).

The package itself needs TensorFlow, so it is located and never imported. joblib's format is a pickle:
each file is read only after its SHA-256 equals the hash of the wheel 1.0.0 that is pinned here.
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
    """Directory of the wheel's weight files; raises ModuleNotFoundError when the wheel is not installed."""
    spec = importlib.util.find_spec("mtcnn")
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError(
            "face detection needs the weights in the 'mtcnn' wheel: pip install 'emofuse[prep]'"
        )
    return os.path.join(spec.submodule_search_locations[0], "assets", "weights")


def load_weights(name: str, directory: str | None = None) -> list[np.ndarray]:
    """Float32 arrays of one network (`pnet`, `rnet` or `onet`) in the order of its layers.

    Raises ModuleNotFoundError without the wheel, FileNotFoundError without the file, and ValueError when the
    file is not the pinned one.
    """
    path = os.path.join(directory or weights_directory(), f"{name}.lz4")
    with open(path, "rb") as file:
        data = file.read()
    digest = hashlib.sha256(data).hexdigest()
    if digest != WEIGHTS_SHA256[name]:
        raise ValueError(f"{path}: SHA-256 is {digest}, expected {WEIGHTS_SHA256[name]} (mtcnn==1.0.0)")
    import joblib  # here, so that a missing wheel is told before a missing joblib

    return [np.asarray(array, np.float32) for array in joblib.load(io.BytesIO(data))]
