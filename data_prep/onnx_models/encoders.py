"""Frozen encoders: ONNX files run by onnxruntime, on one thread, so that equal clips give equal bytes."""

import contextlib
import dataclasses
import functools
import hashlib
import math
from collections.abc import Iterator

import numpy as np
from jaxtyping import Float, Float16, UInt8

from data_prep.onnx_models.encoder_settings import EncoderSettings
from data_prep.onnx_models.layouts import DetectorLayout, FaceLayout
from data_prep.optional_dependencies import require_onnx
from data_prep.settings import PrepSettings
from emofuse_jax.utils import onnx_files
from emofuse_jax.utils.errors import to_one_line

VARIANCE_FLOOR = 1e-7
"""Added to the variance of the clip, as the feature extractors of wav2vec 2 and its kin do."""
FACES_AT_ONCE = 16


class EncoderError(ValueError):
    """An encoder that gives nothing for one clip; what it would have given is masked."""


@dataclasses.dataclass(frozen=True)
class EncoderFiles:
    """Where the ONNX files lie on this machine; settings name them by hash."""

    audio: str = ""
    face: str = ""
    detector: str = ""
    threads: int = 1
    """Of onnxruntime; 0: the cores. Another number than 1 may change the last bits."""


NO_FILES = EncoderFiles()


def check_files(settings: PrepSettings, files: EncoderFiles) -> None:
    """Opens the encoders that the settings name; raises ValueError where a file or its hash is missing."""
    features = settings.features
    kinds = [kind for kind in onnx_files.FLAG_NAMES if getattr(features, kind) is not None]
    if kinds:
        require_onnx()
    if features.tensors == "drop" and not (features.audio or features.face):
        raise ValueError(f"recipe {settings.recipe!r} drops the tensors, and no encoder is given")
    for kind in kinds:
        session(kind, getattr(features, kind), files)


def session(kind: str, encoder: EncoderSettings, files: EncoderFiles):
    """The graph of an encoder; ValueError when its file is not given, or is another one."""
    path = getattr(files, kind)
    if not path:
        named = f"{onnx_files.DISPLAY_NAMES[kind]} {encoder.file} (sha256 {encoder.sha256})"
        raise ValueError(f"{named} is needed: give --{onnx_files.FLAG_NAMES[kind]}")
    with told_by_flag(kind, path):
        return open_graph(path, encoder.sha256, files.threads)


@contextlib.contextmanager
def told_by_flag(kind: str, path: str) -> Iterator[None]:
    """Makes a path without a file a ValueError that names the flag."""
    try:
        yield
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
        raise ValueError(f"--{onnx_files.FLAG_NAMES[kind]}={path}: not there") from None


@functools.lru_cache(maxsize=4)
def open_graph(path: str, sha256: str, threads: int):
    """An onnxruntime session of a file with that hash; ValueError naming the file otherwise."""
    import onnxruntime

    with open(path, "rb") as file:
        data = file.read()
    found = hashlib.sha256(data).hexdigest()
    if found != sha256:
        raise ValueError(f"{path}: sha256 {found}, expected {sha256}")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 4
    try:
        return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's errors share no class
        raise ValueError(f"{path}: not an ONNX model in one file: {_line(error)}") from error


def encode_sound(
    sound: Float[np.ndarray, " n"] | Float[np.ndarray, "t f"],
    encoder: EncoderSettings,
    files: EncoderFiles,
    step_ms: float,
) -> Float16[np.ndarray, "u d"]:
    """Features of one clip: of its samples or of its spectrogram (`encoder.layout.layout`).

    `step_ms` is the time from one row of `sound` to the next. Raises EncoderError when the encoder fails.
    """
    layout = encoder.layout
    x = normalised(np.asarray(sound, np.float32), layout.normalisation)
    border = layout.layout == "spectrogram"  # n steps of sound have n + 1 frames
    missing = math.ceil(layout.minimum_ms / step_ms - 1e-6) + border - len(x)
    if missing > 0:
        x = np.concatenate([x, np.zeros((missing, *x.shape[1:]), np.float32)])
    found = run_graph(session("audio", encoder, files), layout, x[None], "audio")
    return _stored(found[0], (len(found[0]), encoder.width), "audio")


def encode_faces(
    crops: UInt8[np.ndarray, "n h w 3"], encoder: EncoderSettings, files: EncoderFiles
) -> Float16[np.ndarray, "n d"]:
    """A vector for each RGB crop of `encoder.layout.size`. Raises EncoderError when the encoder fails."""
    graph = session("face", encoder, files)
    one = declared(graph, encoder.layout.input)[:1] == [1]
    step = 1 if one else FACES_AT_ONCE
    images = pixels(crops, encoder.layout)
    parts = [
        run_graph(graph, encoder.layout, images[i : i + step], "face") for i in range(0, len(images), step)
    ]
    return _stored(np.concatenate(parts), (len(crops), encoder.width), "face")


def normalised(x: Float[np.ndarray, "n *f"], how: str | dict) -> Float[np.ndarray, "n *f"]:
    """`x`, `(x - mean) / sqrt(var + 1e-7)` over the clip, or `(x - mean) / std` with fixed numbers."""
    if how == "none":
        return x
    if how == "zero_mean_unit_variance":
        return (x - x.mean()) / np.sqrt(x.var() + VARIANCE_FLOOR)
    return (x - np.float32(how["mean"])) / np.float32(how["std"])


def pixels(
    crops: UInt8[np.ndarray, "n h w 3"], layout: FaceLayout | DetectorLayout
) -> Float[np.ndarray, "n a b c"]:
    """Bytes as the network takes them: `(byte * scale - mean) / std`, channels and axes in its order."""
    x = crops[..., ::-1] if layout.channels == "bgr" else crops
    x = (x.astype(np.float32) * np.float32(layout.scale) - np.float32(layout.mean)) / np.float32(layout.std)
    return np.ascontiguousarray(x.transpose(0, 3, 1, 2) if layout.layout == "nchw" else x)


def declared(graph, name: str) -> list:
    """Shape of an input as the graph states it; a name or None where any length goes."""
    return next(list(end.shape) for end in graph.get_inputs() if end.name == name)


def run_graph(graph, layout, x: np.ndarray, kind: str) -> np.ndarray:
    """The output that the layout names; EncoderError with one line of what onnxruntime says."""
    return run_outputs(graph, layout.input, [layout.output], x, f"{kind} encoder")[0]


def run_outputs(graph, taken: str, outputs: list[str], x: np.ndarray, name: str) -> list[np.ndarray]:
    """Several outputs of a graph whose input is `taken`; EncoderError, which tells `name`, as `run_graph`."""
    try:
        return graph.run(outputs, {taken: x})
    except MemoryError:
        raise
    except Exception as error:  # onnxruntime's errors share no class
        raise EncoderError(f"{name}: {_line(error)}") from error


def _stored(found: np.ndarray, shape: tuple, kind: str) -> Float16[np.ndarray, "n d"]:
    """As records hold it; EncoderError on a shape other than `shape`, or what float16 has no room for."""
    with np.errstate(over="ignore"):
        stored = np.asarray(found).astype(np.float16)
    if stored.shape != shape or not len(stored):
        raise EncoderError(f"{kind} encoder: output {list(stored.shape)}, expected {list(shape)}")
    if not np.isfinite(stored).all():
        raise EncoderError(f"{kind} encoder: values that are not finite in float16")
    return stored


def _line(error: Exception) -> str:
    return to_one_line(error)[:300] or type(error).__name__
