"""Writes a serving bundle from a checkpoint and verifies that both give the same predictions.

The exported computation is the one that was scored: the same graph with the same activation dtype
(`config.model.dtype`). The tolerance of 1e-5 therefore also holds for bfloat16 models. Inputs and outputs
have the same dtypes in both cases.
"""

import datetime
import os
import tempfile
from collections.abc import Callable, Mapping
from functools import partial
from typing import TypedDict

import jax
import jax.numpy as jnp
import numpy as np
import safetensors.numpy
from jax import export as jax_export
from jaxtyping import Array

from emofuse_jax.data.collate import empty_batch
from emofuse_jax.data.feature_shapes import window_seconds
from emofuse_jax.data.metadata import PrepSettingsDict
from emofuse_jax.models.build import Model
from emofuse_jax.models.pretrained.conversion import flatten_by_path
from emofuse_jax.scoring.use_statements import INTENDED_USE, LEGAL_NOTICE, LIMITATIONS
from emofuse_jax.serving.bundle import format, frozen_encoders, onnx_model, quantization
from emofuse_jax.serving.bundle.load import PARITY_TOLERANCE, input_shapes, load_bundle
from emofuse_jax.serving.bundle.metadata import EncoderReference, ModelDescription
from emofuse_jax.serving.interfaces import InputShapes
from emofuse_jax.training.checkpoint.load import load_trained_model
from emofuse_jax.training.checkpoint.metadata import CheckpointMetadata
from emofuse_jax.types import Batch, Params
from emofuse_jax.utils.files import write_atomic
from emofuse_jax.utils.validation import require_fields, validate_fields, validate_value

PLATFORMS = ("cpu", "cuda", "tpu")
"""Platforms that the exported graph is compiled for."""
OPTIONAL_OUTPUTS = ("modality_weights", "audio_attention", "video_attention")
"""Outputs besides the predictions, included if the model has them."""
PARITY_BATCH_SIZE = 4
"""Number of clips in parity.npz."""
NEEDED_SETTINGS = {"audio": {"hop_ms": 0.0}, "features": {"audio": None, "face": None, "detector": None}}
"""Preparation settings that an export reads; only the types of the values have an effect."""
NEEDED_ENCODER_SETTINGS = {"file": "", "sha256": ""}
NEEDED_AUDIO_ENCODER_SETTINGS = {**NEEDED_ENCODER_SETTINGS, "layout": {"hop_ms": 0.0}}
"""Settings of a frozen encoder that an export reads."""


class ExportMetadata(CheckpointMetadata):
    """Metadata of a checkpoint, and the options of its export."""

    checkpoint: str
    """Kind of the checkpoint: "best" or "last"."""
    encoders: dict[str, EncoderReference]
    """ONNX files that prepare the model's inputs, by kind."""
    quantized: str
    """One of `quantization.WEIGHT_FORMATS`, or "" for float32."""
    onnx: bool
    """True if the bundle also contains the ONNX model."""


class _EncodersField(TypedDict, total=False):
    encoders: dict[str, EncoderReference]


def skip_cards(workdir: str, metadata: CheckpointMetadata) -> dict[str, str]:
    """Returns an empty dict, for a bundle without cards (texts on the model); the arguments are not read."""
    return {}


def export_bundle(
    workdir: str,
    output: str,
    checkpoint_kind: str = "best",
    *,
    encoders: dict[str, str] | None = None,
    quantize: str = "",
    onnx: bool = False,
    make_cards: Callable[[str, CheckpointMetadata], dict[str, str]] = skip_cards,
) -> float:
    """Writes the bundle of a checkpoint to `output` and returns its largest difference from the checkpoint.

    Both are run on the same four random clips. The directory is written completely or not at all; an existing
    bundle is replaced.

    Args:
      workdir: directory of a training run.
      output: bundle directory to write.
      checkpoint_kind: "best" or "last".
      encoders: None (nothing is copied), or a dict from kind (`audio`, `face` or `detector`) to ONNX file.
        With a dict, even an empty one, the ONNX files that the model uses are copied into the bundle: those
        of the dict, and for a kind that it lacks, the file that prepared the training records. Kinds that the
        model does not use are ignored.
      quantize: "", or "bf16" or "int8" to store the weights in fewer bits; not checked. The bundle is then
        compared with a checkpoint whose weights are rounded in the same way.
      onnx: adds `model.onnx`, the same computation for onnxruntime, whose outputs may differ by 1e-4.
      make_cards: called with `workdir` and the checkpoint's metadata (a dict such as `config` and `classes`);
        returns texts to store in the bundle, by file name. Its errors pass through.

    Returns:
      The largest absolute difference of a probability or logit between bundle and checkpoint.

    Raises:
      FileNotFoundError: the checkpoint does not exist.
      ValueError: the checkpoint is damaged, has another schema, lacks a field or has an invalid one, or does
        not fit its network; a kind in `encoders` is unknown; an encoder file is missing or is not the one
        that prepared the records; `output` exists and is neither a bundle nor an empty directory; for `onnx`,
        jax2onnx or onnxruntime is not installed or does not support an operation; the new bundle cannot be
        run; or the outputs of bundle and checkpoint differ by more than 1e-5 (ONNX: 1e-4). Errors of JAX pass
        through if it cannot export a registered encoder or fusion for batches of any size.
      OSError: a file cannot be read or written.
    """
    _check_replaceable(output)
    format.check_encoder_kinds(encoders or {})
    if onnx:
        onnx_model.check_converter()
    sharding = jax.sharding.SingleDeviceSharding(jax.devices()[0])  # not the devices of training
    model, params, model_state, metadata = load_trained_model(workdir, checkpoint_kind, sharding)
    _check_settings(metadata["settings"], f"{workdir}: {checkpoint_kind} checkpoint: settings")
    params = quantization.simulate_quantization(params, quantize)
    parent_dir = os.path.dirname(os.path.abspath(output))
    os.makedirs(parent_dir, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=parent_dir, prefix=".bundle-") as temporary_dir:
        staging_path = os.path.join(temporary_dir, "bundle")
        used_encoders = frozen_encoders.describe_encoders(metadata["settings"], model.input_fields)
        included_encoders = (
            {} if encoders is None else frozen_encoders.locate_encoders(metadata, used_encoders, encoders)
        )
        write_bundle(
            staging_path,
            model,
            params,
            model_state,
            {
                **metadata,
                "checkpoint": checkpoint_kind,
                "encoders": used_encoders,
                "quantized": quantize,
                "onnx": onnx,
            },
            included_encoders,
            make_cards(workdir, metadata),
        )
        difference = check_parity(staging_path)
        if os.path.isdir(output):
            os.rename(output, os.path.join(temporary_dir, "replaced"))
        os.rename(staging_path, output)
    return difference


def _check_settings(settings: PrepSettingsDict, name: str) -> None:
    """Raises ValueError if preparation settings lack a field that an export reads, or it has another type.

    These are `audio.hop_ms`, a number, and `features` with `audio`, `face` and `detector`: each None, or a
    dict with the texts `file` and `sha256`, and for `audio` the number `layout.hop_ms`. `name` is the name of
    the settings in the message, which names the field.
    """
    require_fields(settings, NEEDED_SETTINGS, name)
    validate_fields(settings, NEEDED_SETTINGS, name)
    features = settings["features"]
    encoders: dict[str, Mapping[str, object] | None] = {
        "audio": features["audio"],
        "face": features["face"],
        "detector": features["detector"],
    }
    for kind, encoder in encoders.items():
        needed_fields = NEEDED_AUDIO_ENCODER_SETTINGS if kind == "audio" else NEEDED_ENCODER_SETTINGS
        if encoder is not None:
            validate_value(encoder, needed_fields, f"{name}.features.{kind}")
            require_fields(encoder, needed_fields, f"{name}.features.{kind}")


def write_bundle(
    path: str,
    model: Model,
    params: Params,
    model_state: Params,
    metadata: ExportMetadata,
    included_encoders: Mapping[str, str],
    cards: Mapping[str, str],
) -> None:
    """Writes all files of a bundle into the new directory `path`.

    The files are the graph (model.stablehlo), the weights (params.safetensors), bundle.json, parity.npz
    (inputs and outputs of four random clips), the cards, the included encoders and, if `metadata["onnx"]` is
    True, model.onnx. After an error, the files written so far stay.

    Args:
      path: directory, which must not exist.
      model: the model.
      params: its parameters, nested dicts of arrays, already rounded if the bundle is quantized.
      model_state: its model state, nested dicts of arrays.
      metadata: the checkpoint's metadata (`classes`, `settings`, `spec`, `statistics`, `training_speakers`,
        `corpus`, `protocol`, `fold`, `config`, `versions`, `temperature` and possibly `progress`), and the
        options of the export: `checkpoint` ("best" or "last"), `encoders` ({"file", "sha256"} by kind),
        `quantized` ("", "bf16" or "int8") and `onnx` (bool).
      included_encoders: ONNX files to copy, by kind: `audio`, `face` or `detector`.
      cards: texts to write, by file name.

    Raises:
      FileExistsError: `path` exists.
      ValueError: for ONNX, jax2onnx is not installed or does not support an operation; the model does not
        accept batches of its own `spec`, or its fusion returns no logits [b c] and embedding [b d]; or `spec`
        has no spectrogram steps and the preparation settings no audio encoder. Errors of JAX pass through if
        it cannot export the model for batches of any size.
      KeyError: `metadata` lacks a field, or a kind in `included_encoders` is unknown.
      OSError: a file cannot be read or written.
    """
    os.makedirs(path)
    for name, card in cards.items():
        write_atomic(os.path.join(path, name), card.encode())
    frozen_encoders.copy_encoders(included_encoders, path)
    tree = {"params": params, "model_state": model_state}
    weights = jax.device_get(flatten_by_path(tree))
    weights = quantization.quantize_weights(weights, metadata["quantized"])
    weights = {name: np.ascontiguousarray(array) for name, array in weights.items()}
    with open(os.path.join(path, format.WEIGHTS_FILE), "wb") as file:
        file.write(safetensors.numpy.save(weights))  # save_file sets owner-only permissions
    known_shapes, temperature = input_shapes(metadata["spec"]), metadata["temperature"]
    shapes = {name: known_shapes[name] for name in model.input_fields}
    with open(os.path.join(path, format.GRAPH_FILE), "wb") as file:
        file.write(export_graph(model, tree, weights, shapes, temperature))
    inputs = make_parity_inputs(model, shapes)
    outputs = jax.jit(lambda p, s, x: _compute_outputs(model, p, s, x, temperature))(
        params, model_state, inputs
    )
    if metadata["onnx"]:
        compute = partial(_compute_outputs, model, params, model_state, temperature=temperature)
        onnx_model.write_onnx(os.path.join(path, format.ONNX_FILE), compute, shapes, list(outputs))
    parity_arrays = {f"input.{name}": array for name, array in inputs.items()}
    parity_arrays |= {f"output.{name}": np.asarray(array) for name, array in outputs.items()}
    np.savez(os.path.join(path, format.PARITY_FILE), allow_pickle=False, **parity_arrays)
    format.write_manifest(path, make_manifest(metadata, detect_modalities(model)))


def check_parity(path: str) -> float:
    """Loads a bundle and compares its outputs on the inputs in its parity.npz with the outputs stored there.

    `path` is the bundle directory. Both engines are checked if it has model.onnx, otherwise only JAX.

    Returns:
      The largest absolute difference of a probability or logit, over all checked engines.

    Raises:
      ValueError: probabilities or logits differ by more than 1e-5 (ONNX: 1e-4) or are not finite, the bundle
        cannot be loaded or run, or it has model.onnx and onnxruntime is not installed.
      OSError: bundle.json cannot be read.
    """
    tolerances = {"jax": PARITY_TOLERANCE}
    if os.path.exists(os.path.join(path, format.ONNX_FILE)):
        tolerances["onnx"] = onnx_model.ONNX_TOLERANCE
    differences = []
    for engine, tolerance in tolerances.items():
        difference = load_bundle(path, engine=engine).measure_parity()
        differences.append(difference)
        if not difference <= tolerance:  # not `difference > tolerance`, which is false for NaN
            raise ValueError(
                f"{path}: the bundle's outputs ({engine}) differ from the checkpoint's by {difference:.3g},"
                f" expected at most {tolerance:g}; no bundle was written: try again with JAX_PLATFORMS=cpu"
            )
    return max(differences)


def export_graph(
    model: Model,
    tree: Params,
    stored_weights: dict[str, np.ndarray],
    shapes: InputShapes,
    temperature: float,
) -> bytearray:
    """Returns the serialized StableHLO of a function `(weights, inputs) -> outputs` for any batch size b.

    `weights` are arrays like `stored_weights`, `inputs` arrays [b ...] by name. The outputs are float32
    arrays by name: `probabilities` and `logits` [b c] and, if the model has them, `modality_weights` [b 2]
    (voice, face), `audio_attention` [b u] or [b u g] over u positions in time and g in frequency, and
    `video_attention` [b l] over l positions in time. The graph runs on CPU, CUDA and TPU. Errors of JAX pass
    through if it cannot export the model for a batch of unknown size.

    Args:
      model: the model.
      tree: dict of `params` and `model_state`, nested dicts of arrays. Only its structure is used, into which
        the graph puts the restored weights.
      stored_weights: arrays as stored in the bundle, possibly quantized, by path in `tree`, such as
        `params/fusion/kernel`, with the scales of int8 arrays (`quantize_weights`); only their shapes and
        dtypes are used.
      shapes: (shape without the batch axis, dtype) of each input, by name.
      temperature: number by which the logits are divided to compute the probabilities.

    Raises:
      ValueError: the model does not accept batches with these `shapes`, or its fusion returns no logits [b c]
        and embedding [b d].
      KeyError: `stored_weights` lacks an array of `tree`.
    """
    structure = jax.tree.structure(tree)
    names = list(flatten_by_path(tree))

    def compute(stored_weights: dict[str, Array], inputs: dict[str, Array]) -> dict[str, Array]:
        weights = quantization.dequantize_weights(stored_weights)
        variables = jax.tree.unflatten(structure, [weights[name] for name in names])
        return _compute_outputs(model, variables["params"], variables["model_state"], inputs, temperature)

    (b,) = jax_export.symbolic_shape("b")
    weights = {name: jax.ShapeDtypeStruct(x.shape, x.dtype) for name, x in stored_weights.items()}
    inputs = {name: jax.ShapeDtypeStruct((b, *shape), dtype) for name, (shape, dtype) in shapes.items()}
    return jax_export.export(jax.jit(compute), platforms=PLATFORMS)(weights, inputs).serialize()


def make_parity_inputs(model: Model, shapes: InputShapes) -> dict[str, np.ndarray]:
    """Returns the input arrays of four random clips by name; one clip has no audio and one has no face.

    Equal arguments give equal arrays, [4 ...] with the names and dtypes in `shapes`, a dict of (shape, dtype)
    by name whose shapes are not read, and the sizes in `model.spec`. Masks are True at valid positions: a
    random number of first steps, and random frames. The audio masks of the second clip and the face mask of
    the third are all False. Raises AttributeError if a name in `shapes` is no field of a Batch.
    """
    batch = model.fake_batch(PARITY_BATCH_SIZE, seed=0)
    inputs = {name: np.array(getattr(batch, name), dtype) for name, (_, dtype) in shapes.items()}
    for name, row in (("audio_mask", 1), ("audio_features_mask", 1), ("face_mask", 2)):
        if name in inputs:
            inputs[name][row] = False
    return inputs


def detect_modalities(model: Model) -> list[str]:
    """Returns the list of the modalities that the network uses: `voice`, `face` or both, in this order.

    Raises ValueError if the network does not accept batches of its own `spec`, or its fusion returns no
    logits [b c] and embedding [b d].
    """
    params, model_state = jax.eval_shape(model.init, jax.random.key(0))
    outputs, _ = jax.eval_shape(
        partial(model.apply, train=False), params, model_state, model.fake_batch(1, seed=0)
    )
    vectors = {"voice": outputs.audio_vector, "face": outputs.video_vector}
    return [name for name, vector in vectors.items() if vector is not None]


def make_manifest(metadata: ExportMetadata, modalities: list[str]) -> ModelDescription:
    """Returns the description of the model for bundle.json: everything but `kind`, `schema` and `files`.

    Copied from `metadata` are `classes`, `settings` (of the preparation), `spec` (sizes of the inputs),
    `statistics`, `training_speakers`, `corpus`, `protocol` (name of the split), `fold` (its number),
    `checkpoint` ("best" or "last"), `quantized` ("", "bf16" or "int8"), `temperature`, `progress` (best
    validation result; {} if missing), `versions` (that of jax is the installed one), `encoders` ({"file",
    "sha256"} by kind; left out if empty) and, as `config`, the `name` ("" if missing) and `model` of the
    config. The other keys are `window` (`steps` and `seconds`), `modalities`, `intended_use` and `limits`
    (texts), `platforms` (list), and `created` (today in UTC, YYYY-MM-DD).

    Args:
      metadata: the checkpoint's metadata, with the options of the export.
      modalities: modalities that the model uses, `voice`, `face` or both.

    Raises:
      ValueError: `spec` has no spectrogram steps and the preparation settings no audio encoder.
      KeyError: `metadata` lacks another field than `progress`.
    """
    config, spec = metadata["config"], metadata["spec"]
    seconds = window_seconds(metadata["settings"], spec["t"], spec["feature_steps"])
    encoders: _EncodersField = {"encoders": metadata["encoders"]} if metadata["encoders"] else {}
    return {
        "classes": metadata["classes"],
        "settings": metadata["settings"],
        "spec": spec,
        "statistics": metadata["statistics"],
        "training_speakers": metadata["training_speakers"],
        "corpus": metadata["corpus"],
        "protocol": metadata["protocol"],
        "fold": metadata["fold"],
        "window": {"steps": spec["t"] or spec["feature_steps"], "seconds": round(seconds, 6)},
        **encoders,
        "config": {"name": config.get("name", ""), "model": config["model"]},
        "checkpoint": metadata["checkpoint"],
        "quantized": metadata["quantized"],
        "progress": metadata.get("progress", {}),
        "temperature": metadata["temperature"],
        "intended_use": INTENDED_USE,
        "limits": f"{LIMITATIONS} {LEGAL_NOTICE}",
        "platforms": list(PLATFORMS),
        "created": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "versions": {**metadata["versions"], "jax": jax.__version__},
        "modalities": modalities,
    }


def _compute_outputs(
    model: Model, params: Params, model_state: Params, inputs: dict[str, Array], temperature: float
) -> dict[str, Array]:
    """Returns the bundle's outputs for a batch of b clips, as float32 arrays by name.

    These are `probabilities`, which are `softmax(logits / temperature)`, and `logits`, both [b c] with c
    classes. If the model has them, there are also `modality_weights` [b 2] (voice, face), `audio_attention`
    [b u] or [b u g] over u positions in time and g in frequency, and `video_attention` [b l] over l positions
    in time. `inputs` are fields of a Batch, [b ...] by name, such as `audio` and `audio_mask`; the other
    fields are filled with padding. Raises ValueError if an input does not fit `model.spec`, or if the fusion
    does not return logits [b c] and an embedding [b d], and TypeError if an input is no field of a Batch.
    """
    batch_size = next(iter(inputs.values())).shape[0]
    unused_fields = {
        name: jnp.broadcast_to(jnp.asarray(value[0]), (batch_size, *value.shape[1:]))
        for name, value in vars(empty_batch(1, model.spec)).items()
        if name not in inputs and value is not None
    }
    outputs, _ = model.apply(params, model_state, Batch(**inputs, **unused_fields), train=False)
    logits = outputs.logits.astype(jnp.float32)
    predictions = {"probabilities": jax.nn.softmax(logits / temperature), "logits": logits}
    return predictions | {
        name: outputs.aux[name].astype(jnp.float32) for name in OPTIONAL_OUTPUTS if name in outputs.aux
    }


def _check_replaceable(output: str) -> None:
    """Raises ValueError if `output` exists and is neither a bundle nor an empty directory.

    A directory counts as a bundle if its bundle.json is valid. Raises OSError if the directory or bundle.json
    cannot be read.
    """
    if os.path.isdir(output) and not os.listdir(output):
        return
    if os.path.lexists(output):
        try:
            format.read_manifest(output)
        except ValueError as error:
            raise ValueError(
                f"{output}: exists and is not a bundle, so it is not replaced; choose"
                f" another --output: {error}"
            ) from error
