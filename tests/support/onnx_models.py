"""Tiny frozen encoders as ONNX files with their YAML; what they compute is plain in NumPy."""

import numpy as np
import onnx
import yaml
from onnx import TensorProto, helper, numpy_helper

WAVEFORM_LAYOUT = {
    "input": "samples",
    "output": "features",
    "layout": "waveform",
    "normalisation": "none",
    "hop_ms": 20.0,
    "minimum_ms": 40.0,
}
SPECTROGRAM_LAYOUT = {**WAVEFORM_LAYOUT, "layout": "spectrogram", "hop_ms": 40.0}
FACE_LAYOUT = {
    "input": "images",
    "output": "vectors",
    "layout": "nchw",
    "size": 24,
    "channels": "bgr",
    "scale": 0.00392157,
    "mean": [0.1, 0.2, 0.3],
    "std": [0.5, 0.25, 1.0],
}
DETECTOR_LAYOUT = {
    "input": "frame",
    "boxes": "boxes",
    "scores": "scores",
    "landmarks": "marks",
    "units": "pixels",
    "score": 0.6,
    "layout": "nchw",
    "size": [48, 64],
    "channels": "rgb",
    "scale": 0.00392157,
    "mean": [0.0, 0.0, 0.0],
    "std": [1.0, 1.0, 1.0],
}
LANDMARK_FRACTIONS = np.array([[0.3, 0.4], [0.7, 0.4], [0.5, 0.6], [0.35, 0.8], [0.65, 0.8]], np.float32)
"""Where the detector says that landmarks are, as shares of the box."""
AUDIO_KERNEL = np.random.default_rng(0).normal(0, 1, (5, 640)).astype(np.float32)
"""An audio encoder of samples: five filters of 40 ms every 20 ms."""
FACE_PROJECTION = np.random.default_rng(1).normal(0, 1, (3, 7)).astype(np.float32)
"""A face encoder: the mean of each channel, mixed to seven numbers."""


def save_model(path, nodes, inputs, outputs, constants):
    """Writes a model; `inputs` and `outputs`: name to shape, of float32."""
    value_infos = [
        [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
            for name, shape in tensor_shapes.items()
        ]
        for tensor_shapes in (inputs, outputs)
    ]
    weights = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "encoder", *value_infos, weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), str(path))
    return str(path)


def write_layout(path, values):
    """The YAML beside an ONNX file."""
    with open(str(path).removesuffix(".onnx") + ".yaml", "w") as file:
        yaml.safe_dump(values, file)


def waveform_encoder(path, shape=(1, "n"), gain=1.0, **layout):
    """[1 n] -> [1 u 5]: a convolution over the samples."""
    nodes = [
        helper.make_node("Unsqueeze", ["samples", "axis"], ["channel"]),
        helper.make_node("Conv", ["channel", "kernel"], ["rows"], strides=[320]),
        helper.make_node("Transpose", ["rows"], ["features"], perm=[0, 2, 1]),
    ]
    constants = {"axis": np.array([1], np.int64), "kernel": gain * AUDIO_KERNEL[:, None]}
    write_layout(path, WAVEFORM_LAYOUT | layout)
    return save_model(path, nodes, {"samples": shape}, {"features": (1, "u", 5)}, constants)


def spectrogram_encoder(path, bins=200, **layout):
    """[1 t f] -> [1 t/4 6]: means over four rows and over six bands of the first 192 bins."""
    bands = np.zeros((bins, 6), np.float32)
    for i in range(6):
        bands[32 * i : 32 * i + 32, i] = 1 / 32
    nodes = [
        helper.make_node("MatMul", ["samples", "bands"], ["banded"]),
        helper.make_node("Transpose", ["banded"], ["rows"], perm=[0, 2, 1]),
        helper.make_node("AveragePool", ["rows"], ["pooled"], kernel_shape=[4], strides=[4]),
        helper.make_node("Transpose", ["pooled"], ["features"], perm=[0, 2, 1]),
    ]
    write_layout(path, SPECTROGRAM_LAYOUT | layout)
    return save_model(path, nodes, {"samples": (1, "t", bins)}, {"features": (1, "u", 6)}, {"bands": bands})


def face_encoder(path, shape=("n", 3, 24, 24), axes=(2, 3), gain=1.0, **layout):
    """[n 3 h w] -> [n 7]: the mean of each channel, mixed."""
    nodes = [
        helper.make_node("ReduceMean", ["images"], ["means"], axes=list(axes), keepdims=0),
        helper.make_node("MatMul", ["means", "mixing"], ["vectors"]),
    ]
    write_layout(path, FACE_LAYOUT | layout)
    return save_model(
        path, nodes, {"images": shape}, {"vectors": (shape[0], 7)}, {"mixing": gain * FACE_PROJECTION}
    )


def face_detector(path, marks_shape=(-1, 10), **layout):
    """[1 3 48 64] -> a box of 16 x 16 every 4 pixels; its score is its mean brightness."""
    y, x = np.mgrid[:9, :13].reshape(2, -1) * 4.0
    boxes = np.stack([x, y, x + 16, y + 16], 1).astype(np.float32)
    landmarks = boxes[:, None, :2] + 16 * LANDMARK_FRACTIONS
    if layout.get("units") == "shares":
        boxes, landmarks = boxes / np.float32([64, 48, 64, 48]), landmarks / np.float32([64, 48])
    nodes = [
        helper.make_node("ReduceMean", ["frame"], ["grey"], axes=[1], keepdims=1),
        helper.make_node("AveragePool", ["grey"], ["means"], kernel_shape=[16, 16], strides=[4, 4]),
        helper.make_node("Reshape", ["means", "flat"], ["scores"]),
        helper.make_node("Identity", ["fixed_boxes"], ["boxes"]),
        helper.make_node("Identity", ["fixed_marks"], ["marks"]),
    ]
    constants = {
        "flat": np.array([1, -1], np.int64),
        "fixed_boxes": boxes,
        "fixed_marks": landmarks.reshape(marks_shape).astype(np.float32),
    }
    write_layout(path, DETECTOR_LAYOUT | layout)
    outputs = {"boxes": (117, 4), "scores": (1, 117), "marks": constants["fixed_marks"].shape}
    return save_model(path, nodes, {"frame": (1, 3, 48, 64)}, outputs, constants)
