"""Writes a serving bundle from a trained model's checkpoint.

    emofuse export --workdir=runs/mine --output=runs/mine/bundle

The bundle is a directory that predicts without records, configs or flax. It contains the computation
(StableHLO for any batch size on CPU, GPU and TPU), its parameters, and bundle.json with class names,
preparation settings, training speakers, intended use and limits. Before the bundle is moved to --output, it
is loaded and compared with the checkpoint; the export fails if they differ by more than 1e-5. An existing
bundle at --output is replaced.

The bundle of a model that reads features identifies its frozen encoders by SHA-256. With --include_encoders
it also contains their ONNX files: those used to prepare the records, or those in --audio_encoder,
--face_encoder and --face_detector.

--onnx adds model.onnx, which onnxruntime runs faster on a CPU (emofuse predict --engine, emofuse serve
--engine).
--quantize=int8 or bf16 stores the weights in fewer bits and prints the change of the validation scores.
"""

import os
from collections.abc import Sequence

from absl import flags

WORKDIR = flags.DEFINE_string("workdir", None, "Directory of a training run.")
OUTPUT = flags.DEFINE_string("output", None, "Bundle directory to write; an existing bundle is replaced.")
CHECKPOINT = flags.DEFINE_enum("checkpoint", "best", ["best", "last"], "Checkpoint to export.")

QUANTIZE = flags.DEFINE_enum(
    "quantize", "", ["", "bf16", "int8"], "Format of the stored weights; default: float32."
)
ONNX = flags.DEFINE_boolean("onnx", False, "Add model.onnx for onnxruntime; needs `make onnx`.")
DATA = flags.DEFINE_string(
    "data", "", "Directory of the records, if they were moved after training; used by --quantize."
)

INCLUDE_ENCODERS = flags.DEFINE_boolean(
    "include_encoders", False, "Copy the frozen encoders into the bundle."
)
AUDIO_ENCODER = flags.DEFINE_string("audio_encoder", "", "ONNX file of the audio encoder, if it was moved.")
FACE_ENCODER = flags.DEFINE_string("face_encoder", "", "ONNX file of the face encoder, if it was moved.")
FACE_DETECTOR = flags.DEFINE_string("face_detector", "", "ONNX file of the face detector, if it was moved.")


def main(argv: Sequence[str]) -> None:
    """Exports the bundle to --output, and prints its size and its difference from the checkpoint.

    An existing bundle is replaced. With --quantize, also prints the change of the validation scores. `argv`
    has the name of the program and the words that are no flags; none are allowed.

    Raises:
      FileNotFoundError: there is no checkpoint.
      ValueError: a flag is missing or has no effect, the checkpoint is damaged, --output exists and is
        neither a bundle nor an empty directory, an encoder file is missing or is not the one that prepared
        the records, the ONNX converter is missing or does not support an operation, or the outputs differ
        from those of the checkpoint by more than 1e-5 (ONNX: 1e-4).
      OSError: a file cannot be read or written.
      Exception: JAX cannot export a registered encoder or fusion for batches of any size.
    """
    if argv[1:]:
        raise ValueError(f"unexpected argument {argv[1]!r}; write flags as --name=value")
    workdir, output = WORKDIR.value, OUTPUT.value
    if workdir is None or output is None:
        raise ValueError("--workdir and --output are required; see emofuse export --help")
    encoders = {"audio": AUDIO_ENCODER.value, "face": FACE_ENCODER.value, "detector": FACE_DETECTOR.value}
    if any(encoders.values()) and not INCLUDE_ENCODERS.value:
        raise ValueError(
            "--audio_encoder, --face_encoder and --face_detector have no effect without --include_encoders;"
            " add it, or leave them out"
        )
    from emofuse_jax.api.export import export_bundle

    included_encoders = encoders if INCLUDE_ENCODERS.value else None
    difference = export_bundle(
        workdir,
        output,
        CHECKPOINT.value,
        encoders=included_encoders,
        quantize=QUANTIZE.value,
        onnx=ONNX.value,
    )
    size_mb = sum(os.path.getsize(os.path.join(output, name)) for name in os.listdir(output)) / 1e6
    print(f"{output}: {size_mb:.1f} MB, outputs within {difference:.1e} of the {CHECKPOINT.value} checkpoint")
    if QUANTIZE.value:
        print(describe_quantization_cost(workdir))


def describe_quantization_cost(workdir: str) -> str:
    """Returns one line with the validation `ua` and `wa` (fractions) before and after quantization.

    --quantize is the format of the weights, --checkpoint the checkpoint and --data the records. If they
    cannot be measured, for example because the records are gone, the line says why.

    Args:
      workdir: directory of the training run.

    Raises:
      OSError: a file exists, but cannot be read.
    """
    from emofuse_jax.api.evaluation import score_with_changed_params
    from emofuse_jax.serving.bundle.quantization import simulate_quantization

    try:
        original_scores, quantized_scores = score_with_changed_params(
            lambda params: simulate_quantization(params, QUANTIZE.value),
            workdir,
            CHECKPOINT.value,
            DATA.value,
        )
    except (ValueError, FileNotFoundError) as error:
        hint = "; pass --data=RECORDS" if isinstance(error, FileNotFoundError) else ""
        return f"{QUANTIZE.value} weights: the change of scores was not measured: {error}{hint}"
    scores = ", ".join(
        f"{name.upper()} {original_scores[name]:.4f} to {quantized_scores[name]:.4f}" for name in ("ua", "wa")
    )
    return f"{QUANTIZE.value} weights, change of scores on the validation clips: {scores}"
