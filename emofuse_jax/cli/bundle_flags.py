"""Flags that open a bundle: its engine, and the ONNX files that it does not contain."""

from typing import TYPE_CHECKING

from absl import flags

if TYPE_CHECKING:
    from emofuse_jax.serving.bundle.load import Bundle

ENGINE = flags.DEFINE_enum(
    "engine",
    "auto",
    ["auto", "jax", "onnx"],
    "Engine that runs the model; auto: onnx on a CPU if the bundle has"
    " model.onnx and onnxruntime is installed, otherwise jax.",
)
AUDIO_ENCODER = flags.DEFINE_string(
    "audio_encoder", "", "ONNX file of the audio encoder, if the bundle does not contain it."
)
FACE_ENCODER = flags.DEFINE_string(
    "face_encoder", "", "ONNX file of the face encoder, if the bundle does not contain it."
)
FACE_DETECTOR = flags.DEFINE_string(
    "face_detector", "", "ONNX file of the face detector, if the bundle does not contain it."
)


def load_bundle(path: str) -> "Bundle":
    """Returns the bundle in the directory `path`, ready to run.

    --engine (`jax`, `onnx` or `auto`) chooses the engine; --audio_encoder, --face_encoder and --face_detector
    are the paths of ONNX files that the bundle does not contain. `run(arrays)` of the bundle takes a dict of
    the arrays that `inputs` names and returns a dict of the network's outputs; `predict(path)` returns the
    list of predictions for a media file; and `classes` are the names of the classes.

    Raises:
      ValueError: the directory is not a complete, unmodified bundle, the engine in --engine is not available,
        an ONNX file that the model needs is missing or is not the one that it was trained with, or
        onnxruntime is needed but not installed.
      OSError: bundle.json cannot be read.
    """
    from emofuse_jax.serving import load
    from emofuse_jax.serving.media.prepare_window import check_encoders

    bundle = load(
        path,
        audio_encoder=AUDIO_ENCODER.value,
        face_encoder=FACE_ENCODER.value,
        face_detector=FACE_DETECTOR.value,
        engine=ENGINE.value,
    )
    check_encoders(bundle)
    return bundle
