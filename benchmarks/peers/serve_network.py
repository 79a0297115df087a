"""A typical PyTorch server: FastAPI, one clip per request, `torch.inference_mode`; the peer of suite `serve`.

    python -m benchmarks.peers.serve_network --port=8001

It reads and returns the JSON of `POST /v1/predict`; the network is that of configs/am_fbp.py with random
weights. On a GPU, the network is compiled, channels-last and, with --dtype=bfloat16, in bfloat16.
"""

import argparse
import base64

import numpy as np
import torch
import uvicorn
from fastapi import FastAPI

from benchmarks.peers.train_network import end_to_end

CLASSES = 8
KINDS = {"audio": np.float16, "faces": np.uint8}
AUDIO_SHAPE, FACES_SHAPE = (300, 200), (3, 112, 112, 3)
"""Shapes of a clip of the suite, for which the network is compiled."""


def decode_array(json_array, dtype):
    """Decodes base64 JSON (`data`, `shape`) to a tensor of one clip, with a batch axis of length 1."""
    data = np.frombuffer(base64.b64decode(json_array["data"]), dtype).reshape(1, *json_array["shape"])
    return torch.from_numpy(data.copy())


def make_app(dtype="float32"):
    """Returns the FastAPI application; its routes are not `async`, so FastAPI runs them in threads."""
    app, model = FastAPI(), end_to_end(CLASSES).eval()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = model.to(device)
    if device == "cuda":
        model = torch.compile(model.to(memory_format=torch.channels_last))

    def run(audio, faces):
        is_bfloat16 = dtype == "bfloat16"
        with torch.inference_mode(), torch.autocast(device, torch.bfloat16, enabled=is_bfloat16):
            return torch.softmax(model(audio, faces).float(), -1)[0].cpu()

    if device == "cuda":  # compiles before the server is ready
        run(
            torch.zeros(1, *AUDIO_SHAPE, dtype=torch.float16, device=device),
            torch.zeros(1, *FACES_SHAPE, dtype=torch.uint8, device=device),
        )

    @app.get("/readyz")
    def readyz():
        return {"status": "ready"}

    @app.post("/v1/predict")
    def predict(body: dict):
        audio, faces = (decode_array(body["inputs"][name], dtype).to(device) for name, dtype in KINDS.items())
        return {"probabilities": {str(i): float(p) for i, p in enumerate(run(audio, faces))}}

    return app


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    options = parser.parse_args()
    uvicorn.run(make_app(options.dtype), host="127.0.0.1", port=options.port, log_level="warning")
