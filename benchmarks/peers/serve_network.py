"""A typical PyTorch server: FastAPI, one clip per request, `torch.inference_mode`; the peer of suite `serve`.

    python -m benchmarks.peers.serve_network --port=8001

It reads and returns the JSON of `POST /v1/predict`; the network is that of configs/am_fbp.py with random
weights.
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


def decode_array(json_array, dtype):
    """Decodes base64 JSON (`data`, `shape`) to a tensor of one clip, with a batch axis of length 1."""
    data = np.frombuffer(base64.b64decode(json_array["data"]), dtype).reshape(1, *json_array["shape"])
    return torch.from_numpy(data.copy())


def make_app():
    """Returns the FastAPI application; its routes are not `async`, so FastAPI runs them in threads."""
    app, model = FastAPI(), end_to_end(CLASSES).eval()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = model.to(device)

    @app.get("/readyz")
    def readyz():
        return {"status": "ready"}

    @app.post("/v1/predict")
    def predict(body: dict):
        audio, faces = (decode_array(body["inputs"][name], dtype).to(device) for name, dtype in KINDS.items())
        with torch.inference_mode():
            probabilities = torch.softmax(model(audio, faces), -1)[0]
        return {"probabilities": {str(i): float(p) for i, p in enumerate(probabilities)}}

    return app


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    uvicorn.run(make_app(), host="127.0.0.1", port=parser.parse_args().port, log_level="warning")
