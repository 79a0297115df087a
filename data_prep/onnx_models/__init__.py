"""ONNX models of the user's own: frozen encoders and a face detector."""
