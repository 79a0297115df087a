"""Writes a serving bundle from a trained model's checkpoint.

  emofuse export --workdir=runs/mine --output=runs/mine/bundle

The bundle is a directory that answers without records, configs or flax: the computation (StableHLO, any
batch size, CPU, GPU and TPU), its parameters, and bundle.json with class names, preparation settings,
training speakers, intended use and limits. It is loaded again and compared with the checkpoint before it
appears at --output; a difference above 1e-5 fails the export. A bundle that lies at --output is replaced.
A model of features names its frozen encoders by hash; with --include_encoders the bundle carries them, from
where they lay when the records were prepared, or from --audio_encoder, --face_encoder and --face_detector.
--onnx adds model.onnx, with which onnxruntime answers faster on a CPU (predict and serve --engine).
--quantize=int8 or bf16 stores the weights in fewer bits, and prints what that costs on the validation clips.
"""

import os
from collections.abc import Sequence

from absl import flags

WORKDIR = flags.DEFINE_string("workdir", None, "Directory of a training run.")
OUTPUT = flags.DEFINE_string("output", None, "Bundle directory to write.")
CHECKPOINT = flags.DEFINE_enum("checkpoint", "best", ["best", "last"], "Which checkpoint to export.")

QUANTIZE = flags.DEFINE_enum("quantize", "", ["", "bf16", "int8"], "Bits of the weights; by default 32.")
ONNX = flags.DEFINE_boolean("onnx", False, "Add model.onnx, which onnxruntime runs; needs `make onnx`.")
DATA = flags.DEFINE_string("data", "", "Directory of the records, if they moved since the training.")

INCLUDE_ENCODERS = flags.DEFINE_boolean(
    "include_encoders", False, "Copy the frozen encoders into the bundle."
)
AUDIO_ENCODER = flags.DEFINE_string("audio_encoder", "", "ONNX file to include, if it was moved.")
FACE_ENCODER = flags.DEFINE_string("face_encoder", "", "ONNX file to include, if it was moved.")
FACE_DETECTOR = flags.DEFINE_string("face_detector", "", "ONNX file to include, if it was moved.")


def main(argv: Sequence[str]) -> None:
    """Exports, and prints where to and how far the answers are apart."""
    if argv[1:]:
        raise ValueError(f"unexpected argument {argv[1]!r}; flags are written --name=value")
    if WORKDIR.value is None or OUTPUT.value is None:
        raise ValueError("--workdir and --output are needed; see emofuse export --help")
    encoders = {"audio": AUDIO_ENCODER.value, "face": FACE_ENCODER.value, "detector": FACE_DETECTOR.value}
    if any(encoders.values()) and not INCLUDE_ENCODERS.value:
        raise ValueError("--audio_encoder, --face_encoder and --face_detector go with --include_encoders")
    from emofuse_jax.api.export import export_bundle

    output = OUTPUT.value
    included_encoders = encoders if INCLUDE_ENCODERS.value else None
    difference = export_bundle(
        WORKDIR.value,
        output,
        CHECKPOINT.value,
        encoders=included_encoders,
        quantize=QUANTIZE.value,
        onnx=ONNX.value,
    )
    size_mb = sum(os.path.getsize(os.path.join(output, name)) for name in os.listdir(output)) / 1e6
    print(f"{output}: {size_mb:.1f} MB, answers within {difference:.1e} of the {CHECKPOINT.value} checkpoint")
    if QUANTIZE.value:
        print(describe_quantization_cost())


def describe_quantization_cost() -> str:
    """What the fewer bits cost, in a line."""
    from emofuse_jax.api.evaluation import score_with_changed_params
    from emofuse_jax.serving.bundle.quantization import simulate_quantization

    try:
        original_scores, quantized_scores = score_with_changed_params(
            lambda params: simulate_quantization(params, QUANTIZE.value),
            WORKDIR.value,
            CHECKPOINT.value,
            DATA.value,
        )
    except (ValueError, FileNotFoundError) as error:
        hint = "; give --data=RECORDS" if isinstance(error, FileNotFoundError) else ""
        return f"what {QUANTIZE.value} costs is not measured: {error}{hint}"
    scores = ", ".join(
        f"{name.upper()} {original_scores[name]:.4f} to {quantized_scores[name]:.4f}" for name in ("ua", "wa")
    )
    return f"{QUANTIZE.value} weights, on the validation clips: {scores}"
