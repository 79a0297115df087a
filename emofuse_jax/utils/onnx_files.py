"""The ONNX files of the user's own that a preparation may run: frozen encoders and a face detector."""

FLAGS = {"audio": "audio_encoder", "face": "face_encoder", "detector": "face_detector"}
"""Kinds, and the flag that takes each."""
NAMES = {kind: flag.replace("_", " ") for kind, flag in FLAGS.items()}
"""What messages call them."""
