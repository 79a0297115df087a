"""Serving: `bundle.export` writes a bundle, `bundle.load` reads it, and `predict` answers for media."""


def load(
    path: str,
    *,
    audio_encoder: str = "",
    face_encoder: str = "",
    face_detector: str = "",
    engine: str = "auto",
):
    """Opens a bundle directory: a `Bundle` with `.run(arrays)`, `.predict(clip_path)` and `.metadata`.

    `engine`: jax, or onnx (onnxruntime); auto is onnx on a CPU where the bundle has `model.onnx` and
    onnxruntime is installed.

    Needs jax, numpy, flatbuffers and safetensors; `.predict` also needs the `prep` extra. A bundle that
    does not carry its frozen encoders, or its own face detector, takes their ONNX files here, and with them
    `onnx`.
    Raises ValueError, one line that names the file, on anything that is not a whole, unaltered bundle, and on
    an encoder that is not the one that the model was trained on.
    """
    from emofuse_jax.serving.bundle.load import load_bundle

    return load_bundle(
        path, {"audio": audio_encoder, "face": face_encoder, "detector": face_detector}, engine
    )
