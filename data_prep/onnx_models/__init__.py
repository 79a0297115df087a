"""Runs ONNX models of the user: frozen encoders and a face detector."""
