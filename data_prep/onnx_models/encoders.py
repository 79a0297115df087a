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
FACE_BATCH_SIZE = 16


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


NO_ENCODER_FILES = EncoderFiles()


def validate_encoder_files(settings: PrepSettings, encoder_files: EncoderFiles) -> None:
    """Opens the encoders that the settings name; raises ValueError where a file or its hash is missing."""
    features = settings.features
    kinds = [kind for kind in onnx_files.FLAG_NAMES if getattr(features, kind) is not None]
    if kinds:
        require_onnx()
    if features.tensors == "drop" and not (features.audio or features.face):
        raise ValueError(f"recipe {settings.recipe!r} drops the tensors, and no encoder is given")
    for kind in kinds:
        open_encoder(kind, getattr(features, kind), encoder_files)


def open_encoder(kind: str, encoder: EncoderSettings, encoder_files: EncoderFiles):
    """The graph of an encoder; ValueError when its file is not given, or is another one."""
    path = getattr(encoder_files, kind)
    if not path:
        description = f"{onnx_files.DISPLAY_NAMES[kind]} {encoder.file} (sha256 {encoder.sha256})"
        raise ValueError(f"{description} is needed: give --{onnx_files.FLAG_NAMES[kind]}")
    with name_flag_in_error(kind, path):
        return open_session(path, encoder.sha256, encoder_files.threads)


@contextlib.contextmanager
def name_flag_in_error(kind: str, path: str) -> Iterator[None]:
    """Makes a path without a file a ValueError that names the flag."""
    try:
        yield
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
        raise ValueError(f"--{onnx_files.FLAG_NAMES[kind]}={path}: not there") from None


@functools.lru_cache(maxsize=4)
def open_session(path: str, sha256: str, threads: int):
    """An onnxruntime session of a file with that hash; ValueError naming the file otherwise."""
    import onnxruntime

    with open(path, "rb") as file:
        data = file.read()
    digest = hashlib.sha256(data).hexdigest()
    if digest != sha256:
        raise ValueError(f"{path}: sha256 {digest}, expected {sha256}")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 4
    try:
        return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's errors share no class
        raise ValueError(f"{path}: not an ONNX model in one file: {_error_line(error)}") from error


def encode_audio(
    audio: Float[np.ndarray, " n"] | Float[np.ndarray, "t f"],
    encoder: EncoderSettings,
    encoder_files: EncoderFiles,
    step_ms: float,
) -> Float16[np.ndarray, "u d"]:
    """Features of one clip: of its samples or of its spectrogram (`encoder.layout.layout`).

    `step_ms` is the time from one row of `audio` to the next. Raises EncoderError when the encoder fails.
    """
    layout = encoder.layout
    x = normalize_audio(np.asarray(audio, np.float32), layout.normalisation)
    has_extra_frame = layout.layout == "spectrogram"  # n steps of sound have n + 1 frames
    num_padding_rows = math.ceil(layout.minimum_ms / step_ms - 1e-6) + has_extra_frame - len(x)
    if num_padding_rows > 0:
        x = np.concatenate([x, np.zeros((num_padding_rows, *x.shape[1:]), np.float32)])
    output = run_session(open_encoder("audio", encoder, encoder_files), layout, x[None], "audio")
    return _to_float16(output[0], (len(output[0]), encoder.width), "audio")


def encode_faces(
    crops: UInt8[np.ndarray, "n h w 3"], encoder: EncoderSettings, encoder_files: EncoderFiles
) -> Float16[np.ndarray, "n d"]:
    """A vector for each RGB crop of `encoder.layout.size`. Raises EncoderError when the encoder fails."""
    session = open_encoder("face", encoder, encoder_files)
    takes_single_face = get_input_shape(session, encoder.layout.input)[:1] == [1]
    batch_size = 1 if takes_single_face else FACE_BATCH_SIZE
    images = preprocess_images(crops, encoder.layout)
    outputs = [
        run_session(session, encoder.layout, images[i : i + batch_size], "face")
        for i in range(0, len(images), batch_size)
    ]
    return _to_float16(np.concatenate(outputs), (len(crops), encoder.width), "face")


def normalize_audio(x: Float[np.ndarray, "n *f"], normalisation: str | dict) -> Float[np.ndarray, "n *f"]:
    """`x`, `(x - mean) / sqrt(var + 1e-7)` over the clip, or `(x - mean) / std` with fixed numbers."""
    if normalisation == "none":
        return x
    if normalisation == "zero_mean_unit_variance":
        return (x - x.mean()) / np.sqrt(x.var() + VARIANCE_FLOOR)
    return (x - np.float32(normalisation["mean"])) / np.float32(normalisation["std"])


def preprocess_images(
    images: UInt8[np.ndarray, "n h w 3"], layout: FaceLayout | DetectorLayout
) -> Float[np.ndarray, "n a b c"]:
    """Bytes as the network takes them: `(byte * scale - mean) / std`, channels and axes in its order."""
    x = images[..., ::-1] if layout.channels == "bgr" else images
    x = (x.astype(np.float32) * np.float32(layout.scale) - np.float32(layout.mean)) / np.float32(layout.std)
    return np.ascontiguousarray(x.transpose(0, 3, 1, 2) if layout.layout == "nchw" else x)


def get_input_shape(session, name: str) -> list:
    """Shape of an input as the graph states it; a name or None where any length goes."""
    return next(list(node_arg.shape) for node_arg in session.get_inputs() if node_arg.name == name)


def run_session(session, layout, x: np.ndarray, kind: str) -> np.ndarray:
    """The output that the layout names; EncoderError with one line of what onnxruntime says."""
    return run_outputs(session, layout.input, [layout.output], x, f"{kind} encoder")[0]


def run_outputs(
    session, input_name: str, output_names: list[str], x: np.ndarray, model_name: str
) -> list[np.ndarray]:
    """Several outputs of a graph whose input is `input_name`; EncoderError, which tells `model_name`, as
    `run_session`."""
    try:
        return session.run(output_names, {input_name: x})
    except MemoryError:
        raise
    except Exception as error:  # onnxruntime's errors share no class
        raise EncoderError(f"{model_name}: {_error_line(error)}") from error


def _to_float16(output: np.ndarray, shape: tuple, kind: str) -> Float16[np.ndarray, "n d"]:
    """As records hold it; EncoderError on a shape other than `shape`, or what float16 has no room for."""
    with np.errstate(over="ignore"):
        features = np.asarray(output).astype(np.float16)
    if features.shape != shape or not len(features):
        raise EncoderError(f"{kind} encoder: output {list(features.shape)}, expected {list(shape)}")
    if not np.isfinite(features).all():
        raise EncoderError(f"{kind} encoder: values that are not finite in float16")
    return features


def _error_line(error: Exception) -> str:
    return to_one_line(error)[:300] or type(error).__name__
