"""The ONNX files of the user's own that a preparation may run: frozen encoders and a face detector."""

FLAG_NAMES = {"audio": "audio_encoder", "face": "face_encoder", "detector": "face_detector"}
"""Kinds, and the flag that takes each."""
DISPLAY_NAMES = {kind: flag.replace("_", " ") for kind, flag in FLAG_NAMES.items()}
"""What messages call them."""
