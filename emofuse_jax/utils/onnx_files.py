"""Names of the ONNX models that users can pass to `emofuse prepare`: frozen encoders and a face detector."""

FLAG_NAMES = {"audio": "audio_encoder", "face": "face_encoder", "detector": "face_detector"}
"""Command-line flag for each kind of ONNX model."""
DISPLAY_NAMES = {kind: flag.replace("_", " ") for kind, flag in FLAG_NAMES.items()}
"""Name of each kind of ONNX model in messages."""
