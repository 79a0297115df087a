"""Writes a serving bundle from a checkpoint, and refuses to when the two disagree.

The exported computation is the one that was scored: same graph, same activation dtype (`config.model.dtype`),
so the tolerance of 1e-5 holds for bfloat16 models too. Inputs and outputs are the same for both dtypes.
"""

import datetime
import os
import tempfile
from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import safetensors.numpy
from jax import export as jax_export
from jaxtyping import Array

from emofuse_jax.data.collate import empty_batch
from emofuse_jax.data.feature_shapes import window_seconds
from emofuse_jax.models.build import Model
from emofuse_jax.models.pretrained.conversion import flatten_by_path
from emofuse_jax.scoring.use_statements import INTENDED_USE, LEGAL_NOTICE, LIMITATIONS
from emofuse_jax.serving.bundle import format, frozen_encoders, onnx_model, quantization
from emofuse_jax.serving.bundle.load import PARITY_TOLERANCE, input_shapes, load_bundle
from emofuse_jax.training.checkpoint.load import load_trained_model
from emofuse_jax.types import Batch, InputSpec, Params
from emofuse_jax.utils.files import write_atomic

PLATFORMS = ("cpu", "cuda", "tpu")
OPTIONAL_OUTPUTS = ("modality_weights", "audio_attention", "video_attention")
"""Intermediates that a bundle gives beside the answer, where the model has them."""
PARITY_BATCH_SIZE = 4
COPIED_METADATA_FIELDS = (
    "classes",
    "settings",
    "spec",
    "statistics",
    "training_speakers",
    "corpus",
    "protocol",
    "fold",
)


def skip_cards(workdir: str, metadata: dict) -> dict[str, str]:
    """Returns no texts: a bundle without cards."""
    return {}


def export_bundle(
    workdir: str,
    output: str,
    checkpoint_kind: str = "best",
    *,
    encoders: dict[str, str] | None = None,
    quantize: str = "",
    onnx: bool = False,
    make_cards: Callable[[str, dict], dict[str, str]] = skip_cards,
) -> float:
    """Writes the bundle of a checkpoint to `output`; gives the parity difference.

    The directory appears whole or not at all; a bundle that lies there is replaced. With `encoders` it
    carries the frozen encoders that the model reads: its ONNX files, by kind (`onnx_files.FLAG_NAMES`), or,
    for a kind without one, the file that the records were made with, where it still lies. With `quantize`
    (`quantization.WEIGHT_FORMATS`) it stores weights in fewer bits, and the checkpoint that it is compared
    with has the weights so rounded. With `onnx` it has the same computation for onnxruntime, whose
    probabilities may differ by 1e-4. `make_cards(workdir, metadata)` returns texts to put into the bundle, by
    file name.

    Raises:
      FileNotFoundError: no such checkpoint.
      ValueError: an encoder to carry is not found or is another one; `output` is something other than a
        bundle, or the bundle answers otherwise than the checkpoint by more than 1e-5.
    """
    _check_replaceable(output)
    if onnx:
        onnx_model.check_converter()
    sharding = jax.sharding.SingleDeviceSharding(jax.devices()[0])  # whatever the training ran on
    model, params, model_state, metadata = load_trained_model(workdir, checkpoint_kind, sharding)
    params = quantization.simulate_quantization(params, quantize)
    parent_dir = os.path.dirname(os.path.abspath(output))
    os.makedirs(parent_dir, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=parent_dir, prefix=".bundle-") as temporary_dir:
        staging_path = os.path.join(temporary_dir, "bundle")
        bundle_metadata = {
            **metadata,
            "checkpoint": checkpoint_kind,
            "encoders": frozen_encoders.describe_encoders(metadata["settings"], model.input_fields),
        }
        bundle_metadata |= {"quantized": quantize, "onnx": onnx}
        included_encoders = (
            {}
            if encoders is None
            else frozen_encoders.locate_encoders(metadata, bundle_metadata["encoders"], encoders)
        )
        write_bundle(
            staging_path,
            model,
            params,
            model_state,
            bundle_metadata,
            included_encoders,
            make_cards(workdir, metadata),
        )
        difference = check_parity(staging_path)
        if os.path.isdir(output):
            os.rename(output, os.path.join(temporary_dir, "replaced"))
        os.rename(staging_path, output)
    return difference


def write_bundle(
    path: str,
    model: Model,
    params: Params,
    model_state: Params,
    metadata: dict,
    included_encoders: dict[str, str],
    cards: dict[str, str],
) -> None:
    """Writes all files of a bundle into the new directory `path`; `metadata` is the checkpoint's.

    `included_encoders`: ONNX files to copy, by kind. `cards`: cards, by file name.
    """
    os.makedirs(path)
    for name, card in cards.items():
        write_atomic(os.path.join(path, name), card.encode())
    frozen_encoders.copy_encoders(included_encoders, path)
    spec = InputSpec(**metadata["spec"])
    tree = {"params": params, "model_state": model_state}
    weights = jax.device_get(flatten_by_path(tree))
    weights = quantization.quantize_weights(weights, metadata.get("quantized", ""))
    weights = {name: np.ascontiguousarray(array) for name, array in weights.items()}
    with open(os.path.join(path, format.WEIGHTS_FILE), "wb") as file:
        file.write(safetensors.numpy.save(weights))  # its own save_file lets only the owner read
    temperature = metadata["temperature"]
    with open(os.path.join(path, format.GRAPH_FILE), "wb") as file:
        file.write(export_graph(model, tree, weights, spec, temperature))
    inputs = make_parity_inputs(model, spec)
    outputs = jax.jit(lambda p, s, x: _compute_outputs(model, p, s, x, spec, temperature))(
        params, model_state, inputs
    )
    if metadata.get("onnx"):
        shapes = {name: (array.shape[1:], array.dtype) for name, array in inputs.items()}
        compute = partial(_compute_outputs, model, params, model_state, spec=spec, temperature=temperature)
        onnx_model.write_onnx(os.path.join(path, format.ONNX_FILE), compute, shapes, list(outputs))
    parity_arrays = {f"input.{name}": array for name, array in inputs.items()}
    parity_arrays |= {f"output.{name}": np.asarray(array) for name, array in outputs.items()}
    np.savez(os.path.join(path, format.PARITY_FILE), **parity_arrays)
    format.write_manifest(path, make_manifest(metadata) | {"modalities": detect_modalities(model)})


def check_parity(path: str) -> float:
    """Loads a written bundle and compares it with the answers of the live model that lie in it.

    Raises ValueError when probabilities or logits differ by more than 1e-5 (ONNX: 1e-4), or are not finite.
    """
    tolerances = {"jax": PARITY_TOLERANCE}
    if os.path.exists(os.path.join(path, format.ONNX_FILE)):
        tolerances["onnx"] = onnx_model.ONNX_TOLERANCE
    differences = []
    for engine, tolerance in tolerances.items():
        difference = load_bundle(path, engine=engine).parity()
        differences.append(difference)
        if not difference <= tolerance:  # so written that NaN fails
            raise ValueError(
                f"{path}: the bundle's answers ({engine}) differ from the checkpoint's by {difference:.3g},"
                f" expected at most {tolerance:g}; nothing was exported"
            )
    return max(differences)


def export_graph(
    model: Model, tree: Params, stored_weights: dict[str, np.ndarray], spec: InputSpec, temperature: float
) -> bytes:
    """The serialised StableHLO of `(weights, inputs) -> outputs`, with a symbolic batch.

    `tree` has `params` and `model_state`, `stored_weights` what is stored of them
    (`quantization.quantize_weights`).
    """
    structure = jax.tree.structure(tree)
    names = list(flatten_by_path(tree))

    def compute(stored_weights: dict[str, Array], inputs: dict[str, Array]) -> dict[str, Array]:
        weights = quantization.dequantize_weights(stored_weights)
        variables = jax.tree.unflatten(structure, [weights[name] for name in names])
        return _compute_outputs(
            model, variables["params"], variables["model_state"], inputs, spec, temperature
        )

    (b,) = jax_export.symbolic_shape("b")
    weights = {name: jax.ShapeDtypeStruct(x.shape, x.dtype) for name, x in stored_weights.items()}
    shapes = input_shapes(vars(spec))
    inputs = {
        name: jax.ShapeDtypeStruct((b, *shapes[name][0]), shapes[name][1]) for name in model.input_fields
    }
    return jax_export.export(jax.jit(compute), platforms=PLATFORMS)(weights, inputs).serialize()


def make_parity_inputs(model: Model, spec: InputSpec) -> dict[str, np.ndarray]:
    """Random clips, of which one has no sound and one no face."""
    batch = model.fake_batch(PARITY_BATCH_SIZE, seed=0)
    shapes = input_shapes(vars(spec))
    inputs = {name: np.array(getattr(batch, name), shapes[name][1]) for name in model.input_fields}
    for name, row in (("audio_mask", 1), ("audio_features_mask", 1), ("face_mask", 2)):
        if name in inputs:
            inputs[name][row] = False
    return inputs


def detect_modalities(model: Model) -> list[str]:
    """What the network goes by: `voice`, `face` or both."""
    params, model_state = jax.eval_shape(model.init, jax.random.key(0))
    outputs, _ = jax.eval_shape(
        partial(model.apply, train=False), params, model_state, model.fake_batch(1, seed=0)
    )
    vectors = {"voice": outputs.audio_vector, "face": outputs.video_vector}
    return [name for name, vector in vectors.items() if vector is not None]


def make_manifest(metadata: dict) -> dict:
    """What bundle.json says, from a checkpoint's metadata."""
    config, spec = metadata["config"], InputSpec(**metadata["spec"])
    seconds = window_seconds(metadata["settings"], spec.t, spec.feature_steps)
    return {
        **{name: metadata[name] for name in COPIED_METADATA_FIELDS},
        "window": {"steps": spec.t or spec.feature_steps, "seconds": round(seconds, 6)},
        **({"encoders": metadata["encoders"]} if metadata.get("encoders") else {}),
        "config": {"name": config.get("name", ""), "model": config["model"]},
        "checkpoint": metadata["checkpoint"],
        "quantized": metadata.get("quantized", ""),
        "progress": metadata.get("progress", {}),
        "temperature": metadata["temperature"],
        "intended_use": INTENDED_USE,
        "limits": f"{LIMITATIONS} {LEGAL_NOTICE}",
        "platforms": list(PLATFORMS),
        "created": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "versions": {**metadata["versions"], "jax": jax.__version__},
    }


def _compute_outputs(
    model: Model, params: Params, model_state: Params, inputs: dict, spec: InputSpec, temperature: float
) -> dict:
    """The bundle's outputs; the fields of a batch that scoring does not read are filled with nothing."""
    batch_size = next(iter(inputs.values())).shape[0]
    unused_fields = {
        name: jnp.broadcast_to(jnp.asarray(value[0]), (batch_size, *value.shape[1:]))
        for name, value in vars(empty_batch(1, spec)).items()
        if name not in inputs and value is not None
    }
    outputs, _ = model.apply(params, model_state, Batch(**inputs, **unused_fields), train=False)
    logits = outputs.logits.astype(jnp.float32)
    predictions = {"probabilities": jax.nn.softmax(logits / temperature), "logits": logits}
    return predictions | {
        name: outputs.aux[name].astype(jnp.float32) for name in OPTIONAL_OUTPUTS if name in outputs.aux
    }


def _check_replaceable(output: str) -> None:
    if os.path.isdir(output) and not os.listdir(output):
        return
    if os.path.lexists(output):
        try:
            format.read_manifest(output)
        except ValueError as error:
            raise ValueError(f"{output}: exists and cannot be replaced: {error}") from error
