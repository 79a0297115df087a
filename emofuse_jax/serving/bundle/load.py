"""Loads a serving bundle and runs it; needs only jax, numpy, flatbuffers and safetensors.

A bundle is a directory. `model.stablehlo` is the computation, `params.safetensors` contains parameters and
model state by name, `bundle.json` describes them and contains the SHA-256 of every other file, and
`parity.npz` contains inputs and the outputs of the checkpoint's model. No file is a pickle.

A file whose SHA-256 differs from that in `bundle.json` is rejected before it is parsed. The hashes detect
damage but are not a signature, because the author of a bundle also writes its hashes. In addition, a graph
with operations that do more than compute is rejected (stablehlo_check.py). The rest is parsed and compiled by
native code (StableHLO by XLA, ONNX by onnxruntime) that is not hardened against hostile input: load only
bundles from people whom you would let run programs on this machine. tests/robustness/fuzz tests damaged
and forged StableHLO with correct hashes, but not ONNX.
"""

import dataclasses
import io
import os
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import jax
import ml_dtypes
import numpy as np
import safetensors
from jax import export as jax_export

from emofuse_jax.serving.bundle.format import (
    GRAPH_FILE,
    ONNX_FILE,
    PARITY_FILE,
    WEIGHTS_FILE,
    find_encoders,
    read_manifest,
    read_verified,
)
from emofuse_jax.serving.bundle.metadata import BundleMetadata
from emofuse_jax.serving.bundle.onnx_model import choose_engine, open_onnx
from emofuse_jax.serving.bundle.stablehlo_check import parse_graph
from emofuse_jax.serving.interfaces import InputShapes
from emofuse_jax.utils.errors import format_error
from emofuse_jax.utils.safe_npz import read_npz

if TYPE_CHECKING:  # a bundle is loaded without the packages that these need
    from emofuse_jax.data.array_clip import Clip
    from emofuse_jax.serving.predictions import FilePredictions
    from emofuse_jax.training.checkpoint.metadata import SpecFields

PARITY_TOLERANCE = 1e-5
"""Largest accepted difference of probabilities and logits from the checkpoint's."""
COMPARED_OUTPUTS = ("probabilities", "logits")
"""Outputs that are compared with parity.npz."""
SAFETENSORS_DTYPES = {
    **{f"{kind}{8 * size}": np.dtype(f"<{kind.lower()}{size}") for kind in "IUF" for size in (2, 4, 8)},
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "I8": np.dtype(np.int8),
    "U8": np.dtype(np.uint8),
    "BOOL": np.dtype(np.bool_),
}
"""NumPy dtype of each dtype name of safetensors."""


@dataclasses.dataclass(frozen=True)
class Bundle:
    """Loaded bundle: its metadata and a compiled function over arrays."""

    path: str
    """Bundle directory."""
    metadata: BundleMetadata
    """Contents of bundle.json."""
    weights: dict[str, jax.Array]
    """Parameters and model state as stored, by name; empty for the ONNX engine, which has its own."""
    call: Callable[[dict[str, jax.Array], dict[str, np.ndarray]], Mapping[str, jax.Array | np.ndarray]]
    """Function (weights, inputs) -> outputs; compiles once per batch size."""
    inputs: InputShapes
    """Shape without the batch axis, and dtype, of each array that `run` takes."""
    encoders: dict[str, str]
    """Path of each ONNX file that prepares the inputs, by kind (`onnx_files.FLAG_NAMES`); "" if unknown."""
    engine: str
    """Engine that runs the network: "jax" or "onnx"."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Returns the class names in the order of the probabilities."""
        return tuple(self.metadata["classes"])

    def run(self, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Runs the network on one batch of any size `b`; each new size compiles once.

        Args:
          arrays: one array for each name in `inputs`, with the sizes stated there. `audio` float16 [b t f]: t
            steps of f log magnitudes, as prepared, not standardized. `faces` uint8 [b s h w 3]: RGB crops of
            h x w pixels of s frames. A model of features takes `audio_features` float16 [b u d] instead of
            the audio, u steps of width d, and `face_features` float16 [b s d] instead of the faces. The masks
            are bool, True at steps with audio and at frames with a face: `audio_mask` [b t],
            `audio_features_mask` [b u] and `face_mask` [b s].

        Returns:
          A dict of float32 arrays: `probabilities`, which are `softmax(logits / temperature)`, and `logits`,
          both [b c] with c classes. If the model has them, also `modality_weights` [b 2] (voice, face), and
          attention weights: `audio_attention` [b v] or [b v g] over v positions in time and g in frequency,
          and `video_attention` [b l] over l positions in time.

        Raises:
          ValueError: an input is missing, unknown, or has another shape or dtype (the message names it), the
            batch sizes differ or are 0, or the graph cannot be compiled or run on this machine (the message
            names the bundle).
        """
        _check_inputs(self.path, self.inputs, arrays)
        try:
            outputs = self.call(self.weights, arrays)
            return {name: np.asarray(array) for name, array in outputs.items()}  # some errors occur only here
        except (jax.errors.JaxRuntimeError, TypeError, ValueError) as error:
            raise ValueError(
                f"{self.path}: cannot be run: {_error_message(error)}; if memory is short, pass fewer"
                " clips at a time, otherwise export the bundle again"
            ) from error

    def predict(
        self, source: "str | os.PathLike[str] | Clip | Sequence[Clip]", *, min_confidence: float = 0.0
    ) -> "FilePredictions":
        """Returns the predictions for the windows of a media file, or for clips that are arrays.

        Args:
          source: path of a media file, which needs the extra `prep`; or one `ef.Clip` (one clip as arrays,
            which `predict_clips` describes) or a sequence of them.
          min_confidence: predictions with a lower confidence get the label `unknown`.

        Returns:
          A list with one Prediction per window or clip, in order. It has `path` (for arrays: the clip_id),
          `start` and `end` in seconds (for arrays: 0), `label` (most probable class), `confidence` (its
          probability), `probabilities` (dict by class name), `voice_weight` and `face_weight` (None if the
          model has none), `audio_ok` and `video_ok` (False if voice or face is not usable) and `notes`, a
          text. A window of a file without a usable face or voice is a FailedWindow: `path`, `start`, `end`
          and `error`. `to_pandas` of the list returns a table.

        Raises:
          ValueError: no window has a prediction, the file is not usable media, an array has a wrong shape,
            dtype or value, an entry of `source` is not an `ef.Clip`, `min_confidence` is not a number from 0
            to 1, the preparation settings in bundle.json are invalid, the bundle was trained on arrays and
            can't prepare media files, it cannot be run on this machine, an encoder file is missing, has
            another SHA-256 or is not an ONNX model, the weights of the face detector MTCNN have another
            SHA-256, a required extra is not installed, or another package `data_prep` hides that of emofuse.
            The message is one line that names the file, clip or argument.
          OSError: an encoder file or the weights of MTCNN cannot be read.
          ModuleNotFoundError: joblib or the `mtcnn` wheel with the weights is needed, but not installed.
          TypeError: `source` is neither a path nor a clip nor a sequence.
        """
        if isinstance(source, str | os.PathLike):
            from emofuse_jax.serving.media.predict_file import predict_file

            return predict_file(self, os.fspath(source), min_confidence=min_confidence)
        try:
            from emofuse_jax.data.array_clip import Clip
            from emofuse_jax.serving.predict_arrays import predict_clips
        except ModuleNotFoundError as error:
            raise ValueError(
                f"Bundle.predict needs {error.name}: pip install {error.name}; Bundle.run does not"
            ) from None
        clips = [source] if isinstance(source, Clip) else source
        return predict_clips(self, clips, min_confidence=min_confidence)

    def measure_parity(self) -> float:
        """Runs the network on the inputs in `parity.npz` and compares its outputs with those stored there.

        Returns:
          The largest absolute difference of a probability or logit; NaN or infinity if an output is not
          finite.

        Raises:
          ValueError: parity.npz is missing or damaged or its arrays have other shapes, or the network cannot
            be run on this machine.
        """
        data = read_verified(self.path, PARITY_FILE, self.metadata["files"][PARITY_FILE])
        inputs, expected = _parse_parity(self, data)
        outputs = self.run(inputs)
        for name in COMPARED_OUTPUTS:
            if outputs[name].shape != expected[name].shape:
                raise ValueError(
                    f"{self.path}/{PARITY_FILE}: output {name} has shape"
                    f" {list(expected[name].shape)}: expected"
                    f" {list(outputs[name].shape)} as the model returns; export the bundle again"
                )
        # np.max propagates NaN; Python's max may not
        return float(np.max([np.max(np.abs(outputs[name] - expected[name])) for name in COMPARED_OUTPUTS]))


def load_bundle(path: str, encoders: Mapping[str, str] | None = None, engine: str = "auto") -> Bundle:
    """Loads a bundle; the SHA-256 of every file is verified before the file is parsed.

    Args:
      path: bundle directory.
      encoders: paths of ONNX files that the bundle does not contain, by kind: `audio`, `face` or `detector`;
        "" counts as none.
      engine: "jax", "onnx" or "auto", which selects "onnx" on a CPU if the bundle has `model.onnx` and
        onnxruntime is installed, otherwise "jax".

    Returns:
      The bundle, ready to run: `run` computes the outputs of the network for arrays, `predict` the
      predictions for a media file or clips; `path`, `metadata` (content of bundle.json), `classes`, `inputs`
      (shapes and dtypes), `encoders` (paths of ONNX files by kind) and `engine` describe it.

    Raises:
      ValueError: bundle.json is missing, has another schema or an invalid field; a file is missing or has
        another SHA-256 than in bundle.json; the graph contains an operation that is not allowed; the graph,
        the weights or model.onnx cannot be read or do not fit bundle.json; a kind in `encoders` is unknown;
        an encoder file cannot be read, is not the one that the model was trained with, or is not used by the
        model; or `engine` is unknown or "onnx" without model.onnx or onnxruntime. The message names the file
        or engine.
      OSError: bundle.json cannot be read.
    """
    metadata = read_manifest(path)
    encoder_paths = find_encoders(path, metadata, encoders or {})
    file_contents = {name: read_verified(path, name, digest) for name, digest in metadata["files"].items()}
    exported = parse_graph(path, metadata, file_contents[GRAPH_FILE])
    weights = _parse_weights(path, file_contents[WEIGHTS_FILE])
    weight_shapes, inputs = _read_signature(path, exported, metadata["spec"])
    if {name: (array.shape, array.dtype) for name, array in weights.items()} != weight_shapes:
        raise ValueError(
            f"{path}/{WEIGHTS_FILE}: names, shapes or dtypes differ from those that {GRAPH_FILE}"
            " takes; export the bundle again"
        )
    chosen_engine = choose_engine(engine, path, ONNX_FILE in file_contents)
    is_onnx = chosen_engine == "onnx"
    return Bundle(
        path=path,
        metadata=metadata,
        weights={} if is_onnx else jax.device_put(weights),
        call=open_onnx(path, file_contents[ONNX_FILE]) if is_onnx else jax.jit(exported.call),
        inputs=inputs,
        encoders=encoder_paths,
        engine=chosen_engine,
    )


def input_shapes(spec: "SpecFields") -> InputShapes:
    """Returns (shape, dtype) of each input that a bundle with `spec` can have, by name.

    The shapes are without the batch axis. With the fields t (audio steps), f (frequency bins), s (frames) and
    h, w (pixels of a face crop) of `spec`, they are `audio` float16 [t f], `audio_mask` bool [t], `faces`
    uint8 [s h w 3], `face_mask` bool [s], `audio_features` float16 [u d] and `audio_features_mask` bool [u]
    with u = `feature_steps` and d = `audio_features`, and `face_features` float16 [s d] with d =
    `face_features`.
    """
    t, f, s, h, w, u = spec["t"], spec["f"], spec["s"], spec["h"], spec["w"], spec["feature_steps"]
    float16, uint8, bool_ = np.dtype(np.float16), np.dtype(np.uint8), np.dtype(np.bool_)
    return {
        "audio": ((t, f), float16),
        "audio_mask": ((t,), bool_),
        "faces": ((s, h, w, 3), uint8),
        "face_mask": ((s,), bool_),
        "audio_features": ((u, spec["audio_features"]), float16),
        "audio_features_mask": ((u,), bool_),
        "face_features": ((s, spec["face_features"]), float16),
    }


def _read_signature(
    path: str, exported: jax_export.Exported, spec: "SpecFields"
) -> tuple[InputShapes, InputShapes]:
    """Returns two dicts by name: (shape, dtype) of each weight, and of each input without the batch axis.

    Raises ValueError if the graph does not take dicts of weights and inputs, an input is unknown or has
    another shape or dtype than `spec` states, or `probabilities` or `logits` are missing or not [b classes].
    """
    known_inputs = input_shapes(spec)
    try:
        (weights, arrays), _ = jax.tree.unflatten(exported.in_tree, exported.in_avals)
        weight_shapes = {name: (tuple(aval.shape), np.dtype(aval.dtype)) for name, aval in weights.items()}
        inputs = {name: (tuple(aval.shape[1:]), np.dtype(aval.dtype)) for name, aval in arrays.items()}
        outputs = jax.tree.unflatten(exported.out_tree, exported.out_avals)
        output_shapes = {name: tuple(outputs[name].shape[1:]) for name in COMPARED_OUTPUTS}
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{path}/{GRAPH_FILE}: not the graph of a bundle; export it again: {_error_message(error)}"
        ) from error
    for name, (shape, dtype) in inputs.items():
        if known_inputs.get(name) != (shape, dtype):
            raise ValueError(
                f"{path}/{GRAPH_FILE}: input {name[:60]} {dtype}{list(shape)} does not match field"
                " spec of bundle.json; export the bundle again"
            )
    if not inputs or set(output_shapes.values()) != {(spec["classes"],)}:
        raise ValueError(
            f"{path}/{GRAPH_FILE}: outputs have shapes {output_shapes}: expected"
            f" {spec['classes']} classes, as in field spec.classes; export the bundle again"
        )
    return weight_shapes, inputs


def _parse_parity(bundle: Bundle, data: bytes) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Returns the inputs and the expected outputs in the contents of parity.npz: two dicts of arrays by name.

    The outputs are `probabilities` and `logits`. Raises ValueError if `data` is not an .npz file, or an array
    is missing, is not numeric, or does not have the shape in `bundle` with 1 to 64 rows.
    """
    classes = (bundle.metadata["spec"]["classes"],)
    expected_shapes = {f"input.{name}": shape for name, (shape, _) in bundle.inputs.items()}
    expected_shapes |= {f"output.{name}": classes for name in COMPARED_OUTPUTS}
    try:
        arrays = read_npz(io.BytesIO(data), expected_shapes, has_rows=True)
    except ValueError as error:
        raise ValueError(
            f"{bundle.path}/{PARITY_FILE}: cannot be read: {error}; export the bundle again"
        ) from error
    inputs = {name: arrays[f"input.{name}"] for name in bundle.inputs}
    return inputs, {name: arrays[f"output.{name}"] for name in COMPARED_OUTPUTS}


def _error_message(error: Exception) -> str:
    """Returns the class and text of a library's error as one line of at most 300 characters."""
    return format_error(error)[:300]


def _parse_weights(path: str, data: bytes) -> dict[str, np.ndarray]:
    """Returns the arrays of a safetensors file by name, as stored; raises ValueError if `data` is damaged.

    `data` is the content of the file, `path` the bundle directory, for messages. bfloat16 arrays have the
    dtype of ml_dtypes; safetensors.numpy does not support them.
    """
    try:
        views = safetensors.deserialize(data)
        return {
            name: np.frombuffer(view["data"], SAFETENSORS_DTYPES[view["dtype"]]).reshape(view["shape"])
            for name, view in views
        }
    except (safetensors.SafetensorError, KeyError, ValueError) as error:
        raise ValueError(
            f"{path}/{WEIGHTS_FILE}: not a readable safetensors file: {_error_message(error)}; export"
            " the bundle again"
        ) from error


def _check_inputs(path: str, expected: InputShapes, arrays: Mapping[str, np.ndarray]) -> None:
    """Raises ValueError if a name, shape or dtype in `arrays` is not as in `expected`.

    Also raises ValueError if the batch sizes differ or are 0. `expected` has (shape, dtype) by name, without
    the batch axis; `path` is the bundle directory, for messages.
    """
    if set(arrays) != set(expected):
        raise ValueError(
            f"{path}: inputs are {sorted(arrays)}: expected {sorted(expected)}; pass exactly these arrays"
        )
    batch_size = len(next(iter(arrays.values())))
    for name, (shape, dtype) in expected.items():
        array = arrays[name]
        if not batch_size or array.shape != (batch_size, *shape) or array.dtype != dtype:
            raise ValueError(
                f"{path}: input {name} is {array.dtype}{list(array.shape)}: expected"
                f" {dtype}[{', '.join(map(str, ['b', *shape]))}], with the same b of at least 1 for all"
                " inputs; convert or reshape the array"
            )
