"""The request bodies of the server, for its OpenAPI document."""

import base64

import numpy as np

from emofuse_jax.serving.bundle.load import Bundle
from emofuse_jax.serving.http.json_arrays import readable
from emofuse_jax.serving.http.request_options import FIELDS


def bodies_of(bundle: Bundle) -> dict:
    """The request bodies of `/v1/predict` for the OpenAPI document."""
    packed = {
        "type": "object",
        "required": ["shape", "data"],
        "properties": {
            "shape": {"type": "array", "items": {"type": "integer"}},
            "data": {"type": "string", "contentEncoding": "base64"},
        },
    }
    array = {"oneOf": [{"type": "array", "items": {}}, packed]}
    used = bundle.metadata["modalities"]
    names = readable(used, bundle.inputs) + (["face_mask"] if "face" in used else [])
    inputs = {
        name: array | {"description": f"up to {list(bundle.inputs[name][0])}, {bundle.inputs[name][1]}"}
        for name in names
    }
    schema = {
        "type": "object",
        "required": ["inputs"],
        "additionalProperties": False,
        "properties": {
            "inputs": {"type": "object", "additionalProperties": False, "properties": inputs},
            "min_confidence": FIELDS["min_confidence"],
        },
    }
    (_, *rest), dtype = bundle.inputs[names[0]]
    data = base64.b64encode(np.zeros((1, *rest), dtype).tobytes()).decode()
    example = {"inputs": {names[0]: {"shape": [1, *rest], "data": data}}, "min_confidence": 0.5}
    arrays = {"application/json": {"schema": schema, "example": example}}
    return {"requestBody": {"required": True, "content": arrays | file_content()}}


def file_content() -> dict:
    """A media file, for the OpenAPI document."""
    file = {"type": "string", "contentMediaType": "application/octet-stream", "description": "sound or video"}
    properties = {"file": file} | FIELDS
    return {
        "multipart/form-data": {"schema": {"type": "object", "required": ["file"], "properties": properties}}
    }
