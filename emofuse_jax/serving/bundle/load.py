"""Reads a serving bundle and runs it; needs jax, numpy, flatbuffers and safetensors alone.

A bundle is a directory: `model.stablehlo` computes, `params.safetensors` holds parameters and model state by
name, `bundle.json` says what they mean and holds the SHA-256 of every other file, `parity.npz` holds inputs
and the answers of the checkpoint's model. Nothing in it is a pickle.

A file whose hash is not the one in `bundle.json` is refused before it is parsed. The hashes find damage; they
are no signature: who writes a bundle writes them too. Behind them, a graph that asks for more than to compute
is refused (stablehlo_check.py), and the rest is parsed and compiled by native code of XLA, ONNX by
onnxruntime, neither made for hostile input: load bundles of those whom you would let choose what this machine
computes. tests/fuzz feeds damaged and forged StableHLO behind mended hashes, no ONNX.
"""

import dataclasses
import io
from collections.abc import Callable

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
from emofuse_jax.serving.bundle.onnx_model import choose_engine, open_onnx
from emofuse_jax.serving.bundle.stablehlo_check import parse_graph
from emofuse_jax.utils.errors import format_error
from emofuse_jax.utils.safe_npz import read_npz

PARITY_TOLERANCE = 1e-5
COMPARED_OUTPUTS = ("probabilities", "logits")
SAFETENSORS_DTYPES = {
    f"{kind}{8 * size}": np.dtype(f"<{kind.lower()}{size}") for kind in "IUF" for size in (2, 4, 8)
}
SAFETENSORS_DTYPES |= {"BF16": ml_dtypes.bfloat16, "I8": np.int8, "U8": np.uint8, "BOOL": np.bool_}
"""NumPy dtype of each dtype name of safetensors."""


@dataclasses.dataclass(frozen=True)
class Bundle:
    """A loaded bundle: what it says about itself, and a function over arrays."""

    path: str
    metadata: dict
    """bundle.json."""
    weights: dict[str, jax.Array]
    """Parameters and model state, by name, as they are stored; none where the engine has its own."""
    call: Callable
    """(weights, inputs) -> outputs; compiles once per batch size."""
    inputs: dict[str, tuple[tuple, np.dtype]]
    """Shape without the batch, and dtype, of each array that `run` takes."""
    encoders: dict[str, str]
    """Where the ONNX files lie that the settings name (`onnx_files.FLAG_NAMES`), as far as it is known."""
    engine: str
    """What runs it: jax or onnx."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names in the order of the probabilities."""
        return tuple(self.metadata["classes"])

    def run(self, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Answers for one batch of any size `b`; each new size compiles once.

        Args:
          arrays: those of `inputs`. `audio` float16 [b t f], log magnitudes as prepared, not standardised;
            `audio_mask` bool [b t]; `faces` uint8 [b s h w 3]; `face_mask` bool [b s]. A model of features
            has `audio_features` float16 [b u d] and `audio_features_mask` bool [b u] for the sound,
            `face_features` float16 [b s d] for the faces.

        Returns:
          float32 `probabilities`, which are `softmax(logits / temperature)`, and `logits` [b c]; where the
          model has them `modality_weights` [b 2] (voice, face), `audio_attention` [b ..] and
          `video_attention` [b s].

        Raises:
          ValueError: an input is missing, unknown, or of another shape or dtype; names it. Or the graph
            can't be compiled or run here; names the bundle.
        """
        _check_inputs(self.path, self.inputs, arrays)
        try:
            outputs = self.call(self.weights, arrays)
            return {name: np.asarray(array) for name, array in outputs.items()}  # some errors come with these
        except (jax.errors.JaxRuntimeError, TypeError, ValueError) as error:
            raise ValueError(f"{self.path}: cannot be run: {_error_message(error)}") from error

    def predict(self, clip_path: str, *, min_confidence: float = 0.0) -> list:
        """Answers for the windows of a media file (`predictions.Predictions`, a list); needs the `prep`
        extra.

        An answer less sure than `min_confidence` has the label `unknown`.
        """
        from emofuse_jax.serving.media.predict_file import predict_file

        return predict_file(self, clip_path, min_confidence=min_confidence)

    def parity(self) -> float:
        """Runs `parity.npz` on this machine: the largest difference from the checkpoint's answers."""
        data = read_verified(self.path, PARITY_FILE, self.metadata["files"][PARITY_FILE])
        inputs, expected = _parse_parity(self, data)
        outputs = self.run(inputs)
        for name in COMPARED_OUTPUTS:
            if outputs[name].shape != expected[name].shape:
                shapes = f"{list(expected[name].shape)}, the model gives {list(outputs[name].shape)}"
                raise ValueError(f"{self.path}/{PARITY_FILE}: output {name} has shape {shapes}")
        # np.max carries a NaN on, where Python's max may drop it
        return float(np.max([np.max(np.abs(outputs[name] - expected[name])) for name in COMPARED_OUTPUTS]))


def load_bundle(path: str, encoders: dict[str, str] | None = None, engine: str = "auto") -> Bundle:
    """Opens a bundle; every file is checked against its hash before it is parsed.

    `encoders` gives the files of frozen encoders that the bundle names only by their hash; `engine` is one of
    `onnx_model.ENGINES`.

    Raises:
      ValueError: not a bundle, of another schema, or a file is missing, altered or not the one that is named;
        names the file.
    """
    metadata = read_manifest(path)
    encoders = find_encoders(path, metadata, encoders or {})
    file_contents = {name: read_verified(path, name, digest) for name, digest in metadata["files"].items()}
    exported = parse_graph(path, metadata, file_contents[GRAPH_FILE])
    weights = _parse_weights(path, file_contents[WEIGHTS_FILE])
    weight_shapes, inputs = _read_signature(path, exported, metadata["spec"])
    if {name: (array.shape, array.dtype) for name, array in weights.items()} != weight_shapes:
        raise ValueError(f"{path}/{WEIGHTS_FILE}: its names and shapes are not those that {GRAPH_FILE} takes")
    shared_fields = {"path": path, "metadata": metadata, "inputs": inputs, "encoders": encoders}
    if choose_engine(engine, path, ONNX_FILE in file_contents) == "onnx":
        return Bundle(
            **shared_fields, weights={}, call=open_onnx(path, file_contents[ONNX_FILE]), engine="onnx"
        )
    return Bundle(**shared_fields, weights=jax.device_put(weights), call=jax.jit(exported.call), engine="jax")


def input_shapes(spec: dict) -> dict[str, tuple[tuple, type]]:
    """Shape without the batch, and dtype, of each input that a bundle with this `spec` can have."""
    t, f, s, h, w = (int(spec[letter]) for letter in "tfshw")
    u, d_a, d_v = (int(spec[name]) for name in ("feature_steps", "audio_features", "face_features"))
    return {
        "audio": ((t, f), np.float16),
        "audio_mask": ((t,), np.bool_),
        "faces": ((s, h, w, 3), np.uint8),
        "face_mask": ((s,), np.bool_),
        "audio_features": ((u, d_a), np.float16),
        "audio_features_mask": ((u,), np.bool_),
        "face_features": ((s, d_v), np.float16),
    }


def _read_signature(path: str, exported: jax_export.Exported, spec: dict) -> tuple[dict, dict]:
    """Shape and dtype of each weight, and of each input without the batch, that a graph takes.

    Raises ValueError where it is not the graph of a bundle of this `spec`.
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
            f"{path}/{GRAPH_FILE}: not the graph of a bundle: {_error_message(error)}"
        ) from error
    for name, (shape, dtype) in inputs.items():
        if name not in known_inputs or (shape, dtype) != (
            known_inputs[name][0],
            np.dtype(known_inputs[name][1]),
        ):
            raise ValueError(
                f"{path}/{GRAPH_FILE}: takes {name[:60]} {dtype}{list(shape)}, field spec says otherwise"
            )
    if not inputs or set(output_shapes.values()) != {(spec["classes"],)}:
        raise ValueError(
            f"{path}/{GRAPH_FILE}: gives {output_shapes}, expected {spec['classes']} of each: field spec"
        )
    return weight_shapes, inputs


def _parse_parity(bundle: Bundle, data: bytes) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Inputs and expected outputs by name; ValueError where they are not read."""
    classes = (bundle.metadata["spec"]["classes"],)
    expected_shapes = {f"input.{name}": shape for name, (shape, _) in bundle.inputs.items()}
    expected_shapes |= {f"output.{name}": classes for name in COMPARED_OUTPUTS}
    try:
        arrays = read_npz(io.BytesIO(data), expected_shapes, has_rows=True)
    except ValueError as error:
        raise ValueError(f"{bundle.path}/{PARITY_FILE}: cannot be read: {error}") from error
    inputs = {name: arrays[f"input.{name}"] for name in bundle.inputs}
    return inputs, {name: arrays[f"output.{name}"] for name in COMPARED_OUTPUTS}


def _error_message(error: Exception) -> str:
    """What a library said, in one line of bounded length."""
    return format_error(error)[:300]


def _parse_weights(path: str, data: bytes) -> dict[str, np.ndarray]:
    """By name; safetensors' own reader for numpy knows no bfloat16."""
    try:
        views = safetensors.deserialize(data)
        return {
            name: np.frombuffer(view["data"], SAFETENSORS_DTYPES[view["dtype"]]).reshape(view["shape"])
            for name, view in views
        }
    except (safetensors.SafetensorError, KeyError, ValueError) as error:
        raise ValueError(
            f"{path}/{WEIGHTS_FILE}: not a safetensors file that is read here: {_error_message(error)}"
        ) from error


def _check_inputs(path: str, expected: dict, arrays: dict[str, np.ndarray]) -> None:
    if set(arrays) != set(expected):
        raise ValueError(f"{path}: inputs are {sorted(arrays)}, expected {sorted(expected)}")
    batch_size = len(next(iter(arrays.values())))
    for name, (shape, dtype) in expected.items():
        array = arrays[name]
        if not batch_size or array.shape != (batch_size, *shape) or array.dtype != dtype:
            raise ValueError(
                f"{path}: input {name} is {array.dtype}{list(array.shape)},"
                f" expected {np.dtype(dtype)}{['b', *shape]}, b at least 1 and the same for all"
            )
