"""Runs frozen encoders (ONNX files) with onnxruntime, on one thread, so that equal clips give equal bytes."""

import contextlib
import dataclasses
import functools
import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, Float16, UInt8

from data_prep.onnx_models.encoder_settings import EncoderSettings
from data_prep.onnx_models.layouts import NORMALISATIONS, AudioLayout, DetectorLayout, FaceLayout, Layout
from data_prep.optional_dependencies import require_onnx
from data_prep.settings import PrepSettings
from emofuse_jax.data.metadata import NormalisationDict
from emofuse_jax.utils import onnx_files
from emofuse_jax.utils.errors import to_one_line

VARIANCE_FLOOR = 1e-7
"""Constant added to the variance of a clip, as in the feature extractors of wav2vec 2 and similar models."""
FACE_BATCH_SIZE = 16


class EncoderError(ValueError):
    """Error of an encoder or detector that failed on one clip; its modality is masked."""


AxisSize = int | str | None
"""Declared length of an axis of an ONNX model; a name or None if the axis can have any length."""


class ModelArgument(Protocol):
    """An input or output of an ONNX model, as onnxruntime describes it."""

    name: str
    shape: Sequence[AxisSize]
    type: str


@runtime_checkable
class RunnableModel(Protocol):
    """A model that computes named outputs from named inputs."""

    def run(self, output_names: Sequence[str], inputs: Mapping[str, np.ndarray], /) -> list[np.ndarray]:
        """Returns the named outputs for these inputs, in the order of `output_names`.

        `inputs` has an array for each input name. Raises an error of the model's library, of any class, if
        the model fails.
        """


@runtime_checkable
class Session(RunnableModel, Protocol):
    """The part of `onnxruntime.InferenceSession` that is used here."""

    def get_inputs(self) -> Sequence[ModelArgument]:
        """Returns a `ModelArgument` (name, shape, type such as `tensor(float)`) for each input."""

    def get_outputs(self) -> Sequence[ModelArgument]:
        """Returns a `ModelArgument` (name, shape, type such as `tensor(float)`) for each output."""


@dataclasses.dataclass(frozen=True)
class EncoderFiles:
    """Paths of the ONNX files on this machine; the settings identify them by hash."""

    audio: str = ""
    face: str = ""
    detector: str = ""
    threads: int = 1
    """Threads of onnxruntime; 0: one for each core. Numbers other than 1 may change the last bits."""


NO_ENCODER_FILES = EncoderFiles()


def validate_encoder_files(settings: PrepSettings, encoder_files: EncoderFiles) -> None:
    """Opens all encoders and the custom detector that the settings name; returns nothing.

    Args:
      settings: settings of the preparation, whose `features` name the encoders.
      encoder_files: the paths `audio`, `face` and `detector` of the ONNX files; empty: not set.

    Raises:
      ValueError: a path is not set, a file does not exist, has another SHA-256 or is not an ONNX model,
        onnxruntime or PyYAML is needed but not installed, or the settings drop the tensors without naming an
        audio or face encoder.
      OSError: a file exists but can't be read.
    """
    features = settings.features
    kinds = [kind for kind in onnx_files.FLAG_NAMES if getattr(features, kind) is not None]
    if kinds:
        require_onnx()
    if features.tensors == "drop" and not (features.audio or features.face):
        raise ValueError(
            f"recipe {settings.recipe!r} drops tensors: set --audio_encoder or --face_encoder to replace them"
        )
    for kind in kinds:
        open_encoder(kind, getattr(features, kind), encoder_files)


def open_encoder(kind: str, encoder: EncoderSettings[Layout], encoder_files: EncoderFiles) -> Session:
    """Opens the ONNX file of an encoder; equal calls return the same onnxruntime session.

    Args:
      kind: `audio`, `face` or `detector`.
      encoder: settings of the encoder, with the hash of its file.
      encoder_files: its field `kind` is the path of the file; `threads` is the number of threads.

    Raises:
      ValueError: the path is not set, or the file does not exist, has another SHA-256, or is not an ONNX
        model.
      OSError: the file exists but can't be read.
      ModuleNotFoundError: onnxruntime is not installed.
      AttributeError: `kind` is unknown.
    """
    path = getattr(encoder_files, kind)
    if not path:
        raise ValueError(
            f"{onnx_files.DISPLAY_NAMES[kind]} {encoder.file} (sha256 {encoder.sha256}) is needed: set"
            f" --{onnx_files.FLAG_NAMES[kind]}"
        )
    with name_flag_in_error(kind, path):
        return open_session(path, encoder.sha256, encoder_files.threads)


@contextlib.contextmanager
def name_flag_in_error(kind: str, path: str) -> Iterator[None]:
    """Yields None for a block that reads the file at `path`; raises ValueError if the file does not exist.

    FileNotFoundError, IsADirectoryError and NotADirectoryError of the block become this ValueError, which
    names the path and the command-line flag of `kind` (`audio`, `face` or `detector`). All other errors pass
    through unchanged.
    """
    try:
        yield
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
        raise ValueError(
            f"--{onnx_files.FLAG_NAMES[kind]}={path}: file does not exist; correct the path"
        ) from None


@functools.lru_cache(maxsize=4)
def open_session(path: str, sha256: str, threads: int) -> Session:
    """Returns an onnxruntime session of an ONNX file; equal calls return the same session.

    Args:
      path: path of the ONNX file.
      sha256: expected hash of the file, hexadecimal.
      threads: number of threads; 0: one for each core.

    Raises:
      ValueError: the file has another SHA-256, or is not an ONNX model in one file.
      OSError: the file can't be read.
      ModuleNotFoundError: onnxruntime is not installed.
    """
    import onnxruntime

    with open(path, "rb") as file:
        data = file.read()
    digest = hashlib.sha256(data).hexdigest()
    if digest != sha256:
        raise ValueError(f"{path}: sha256 {digest}, expected {sha256}; use the ONNX file with this hash")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 4
    try:
        return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's errors have no common class
        raise ValueError(
            f"{path}: expected an ONNX model in one file, export it again: {_error_line(error)}"
        ) from error


def encode_audio(
    audio: Float[np.ndarray, " n"] | Float[np.ndarray, "t f"],
    encoder: EncoderSettings[AudioLayout],
    encoder_files: EncoderFiles,
    step_ms: float,
) -> Float16[np.ndarray, "u d"]:
    """Computes the features of one clip with an audio encoder.

    Audio shorter than `encoder.layout.minimum_ms` is padded with zeros at the end.

    Args:
      audio: n mono samples with full scale 1, at `1000 / step_ms` Hz, if `encoder.layout.layout` is
        `waveform`; a spectrogram of t frames and f bins if it is `spectrogram`.
      encoder: settings of the encoder: `sha256` of its file, `width` of its output, and `layout`.
      encoder_files: `encoder_files.audio` is the path of the ONNX file, `threads` the number of threads.
      step_ms: time in ms between two samples, or two frames of the spectrogram.

    Returns:
      u vectors of width d, float16, about one for every `encoder.layout.hop_ms` of the audio.

    Raises:
      EncoderError: the encoder fails, or its output is empty, has a wrong shape or is not finite in float16.
      ValueError: the ONNX file has no path, does not exist, has another SHA-256, or is not an ONNX model; or
        `encoder.layout.normalisation` is unknown, or its number of constants does not fit the bins.
      OSError: the ONNX file can't be read.
      ModuleNotFoundError: onnxruntime is not installed.
    """
    layout = encoder.layout
    x = normalize_audio(np.asarray(audio, np.float32), layout.normalisation)
    has_extra_frame = layout.layout == "spectrogram"  # audio of n steps has n + 1 frames
    num_padding_rows = math.ceil(layout.minimum_ms / step_ms - 1e-6) + has_extra_frame - len(x)
    if num_padding_rows > 0:
        x = np.concatenate([x, np.zeros((num_padding_rows, *x.shape[1:]), np.float32)])
    output = run_session(open_encoder("audio", encoder, encoder_files), layout, x[None], "audio")
    if np.ndim(output) != 3 or not len(output):
        raise EncoderError(
            f"audio encoder: output has shape {list(np.shape(output))}, expected [1, u, {encoder.width}], u"
            " vectors for one clip; name another output in its YAML, or correct the encoder"
        )
    return _to_float16(output[0], (len(output[0]), encoder.width), "audio")


def encode_faces(
    crops: UInt8[np.ndarray, "n h w 3"], encoder: EncoderSettings[FaceLayout], encoder_files: EncoderFiles
) -> Float16[np.ndarray, "n d"]:
    """Computes one feature vector of width d, float16, for each of n face crops, in batches of 16.

    Args:
      crops: RGB crops with height and width `encoder.layout.size`; at least one.
      encoder: settings of the encoder: `sha256` of its file, `width` of its output, and `layout`.
      encoder_files: `encoder_files.face` is the path of the ONNX file, `threads` the number of threads.

    Raises:
      EncoderError: the encoder fails or has no input of the name in its layout, or its output has a wrong
        shape or is not finite in float16.
      ValueError: there are no crops, or the ONNX file has no path, does not exist, has another SHA-256, or is
        not an ONNX model.
      OSError: the ONNX file can't be read.
      ModuleNotFoundError: onnxruntime is not installed.

    """
    session = open_encoder("face", encoder, encoder_files)
    takes_single_face = get_input_shape(session, encoder.layout.input)[:1] == [1]
    batch_size = 1 if takes_single_face else FACE_BATCH_SIZE
    images = preprocess_images(crops, encoder.layout)
    outputs = [
        run_session(session, encoder.layout, images[i : i + batch_size], "face")
        for i in range(0, len(images), batch_size)
    ]
    return _to_float16(np.concatenate(outputs), (len(crops), encoder.width), "face")


def normalize_audio(
    x: Float[np.ndarray, "n *f"], normalisation: str | NormalisationDict
) -> Float[np.ndarray, "n *f"]:
    """Normalizes audio as a layout requires: n samples, or n spectrogram frames with f bins.

    Returns `x` itself for `none`, `(x - mean) / sqrt(var + 1e-7)` with the mean and variance of all of `x`
    for `zero_mean_unit_variance`, and `(x - mean) / std` for a dict with the constants `mean` and `std`, each
    a number or a list of f numbers (of 1 for samples). Raises ValueError for another name or another number
    of constants, or if the dict lacks `mean` or `std`.
    """
    if not isinstance(normalisation, str):
        for key in ("mean", "std"):
            if key not in normalisation:
                raise ValueError(
                    f"normalisation: key {key!r} is missing, expected 'mean' and 'std'; add it in the audio"
                    " encoder's YAML"
                )
        mean, std = (np.asarray(normalisation[key], np.float32) for key in ("mean", "std"))
        return (x - mean) / std
    if normalisation == "none":
        return x
    if normalisation != "zero_mean_unit_variance":
        raise ValueError(
            f"normalisation: {normalisation!r}, expected {', '.join(NORMALISATIONS)} or a dict with 'mean'"
            " and 'std'; correct this key in the audio encoder's YAML"
        )
    return (x - x.mean()) / np.sqrt(x.var() + VARIANCE_FLOOR)


def preprocess_images(
    images: UInt8[np.ndarray, "n h w 3"], layout: FaceLayout | DetectorLayout
) -> Float[np.ndarray, "n a b c"]:
    """Converts RGB images to `(byte * scale - mean) / std`, float32, with the channel order of the layout.

    `layout` has `scale`, the order `channels`, `rgb` or `bgr`, and `mean` and `std`, three numbers in that
    order. Returns [n 3 h w] if
    `layout.layout` is `nchw`, [n h w 3] if it is `nhwc`.
    """
    x = images[..., ::-1] if layout.channels == "bgr" else images
    mean, std = np.asarray(layout.mean, np.float32), np.asarray(layout.std, np.float32)
    x = (x.astype(np.float32) * np.float32(layout.scale) - mean) / std
    return np.ascontiguousarray(x.transpose(0, 3, 1, 2) if layout.layout == "nchw" else x)


def get_input_shape(session: Session, name: str) -> list[AxisSize]:
    """Returns the declared shape of the model's input `name`: a list with the length of each axis.

    The length is an int; it is a text or None if the axis can have any length. Raises EncoderError if the
    model has no input with this name.
    """
    shapes = [list(node_arg.shape) for node_arg in session.get_inputs() if node_arg.name == name]
    if not shapes:
        raise EncoderError(f"the ONNX model has no input {name!r}; correct 'input' in the YAML next to it")
    return shapes[0]


def run_session(session: Session, layout: AudioLayout | FaceLayout, x: np.ndarray, kind: str) -> np.ndarray:
    """Runs an audio or face encoder on the input `x` and returns its output as an array.

    `x` has the shape and dtype that the model declares for its input `layout.input`, the result those of its
    output `layout.output`: for audio [1 u d], for faces [n d]. Raises EncoderError, which names `kind`, if
    onnxruntime fails, for example because `x` has a wrong shape; MemoryError passes through.
    """
    return run_outputs(session, layout.input, [layout.output], x, f"{kind} encoder")[0]


def run_outputs(
    session: RunnableModel, input_name: str, output_names: list[str], x: np.ndarray, model_name: str
) -> list[np.ndarray]:
    """Runs a model on `x`, its only input, and returns the named outputs, in the order of `output_names`.

    Raises EncoderError, with `model_name` and the message of onnxruntime in one line, if the model fails, for
    example because it has no such input or output; MemoryError passes through.
    """
    try:
        return session.run(output_names, {input_name: x})
    except MemoryError:
        raise
    except Exception as error:  # onnxruntime's errors have no common class
        raise EncoderError(
            f"{model_name}: the ONNX model failed, correct it or its YAML: {_error_line(error)}"
        ) from error


def _to_float16(output: np.ndarray, shape: tuple[int, ...], kind: str) -> Float16[np.ndarray, "n d"]:
    """Converts features, n vectors of width d, to float16.

    Raises EncoderError, which names `kind`, if there is no vector, the shape is not `shape`, or a value is
    not finite in float16.
    """
    with np.errstate(over="ignore"):
        features = np.asarray(output).astype(np.float16)
    if features.shape != shape or not len(features):
        if kind == "audio" and not len(features):
            remedy = "the audio is too short for the encoder: raise 'minimum_ms' in its YAML"
        else:
            remedy = "correct the encoder, or name another output in its YAML"
        raise EncoderError(
            f"{kind} encoder: output has shape {list(features.shape)}, expected {list(shape)} and at least"
            f" one vector; {remedy}"
        )
    if not np.isfinite(features).all():
        raise EncoderError(
            f"{kind} encoder: values are not finite in float16, expected at most 65504; correct the encoder,"
            " or how its YAML scales the input"
        )
    return features


def _error_line(error: Exception) -> str:
    return to_one_line(error)[:300] or type(error).__name__
