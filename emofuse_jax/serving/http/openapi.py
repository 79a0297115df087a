"""Describes the request bodies for the OpenAPI document of the server."""

import base64

import numpy as np

from emofuse_jax.serving.bundle.load import Bundle
from emofuse_jax.serving.http.json_arrays import accepted_array_names
from emofuse_jax.serving.http.request_options import OPTION_FIELDS


def describe_request_bodies(bundle: Bundle) -> dict[str, object]:
    """Returns {"requestBody": ...} of `/v1/predict` for OpenAPI: one clip as JSON, or a media file.

    The JSON content has a `schema` with the inputs that the model reads, and an `example`.
    """
    encoded_array = {
        "type": "object",
        "required": ["shape", "data"],
        "properties": {
            "shape": {"type": "array", "items": {"type": "integer"}},
            "data": {"type": "string", "contentEncoding": "base64"},
        },
    }
    array_schema = {"oneOf": [{"type": "array", "items": {}}, encoded_array]}
    modalities = bundle.metadata["modalities"]
    input_names = accepted_array_names(modalities, bundle.inputs) + (
        ["face_mask"] if "face" in modalities else []
    )
    input_schemas = {
        name: array_schema
        | {"description": f"shape up to {list(bundle.inputs[name][0])}, {bundle.inputs[name][1]}"}
        for name in input_names
    }
    schema = {
        "type": "object",
        "required": ["inputs"],
        "additionalProperties": False,
        "properties": {
            "inputs": {"type": "object", "additionalProperties": False, "properties": input_schemas},
            "min_confidence": OPTION_FIELDS["min_confidence"],
        },
    }
    (_, *row_shape), dtype = bundle.inputs[input_names[0]]
    example_data = base64.b64encode(np.zeros((1, *row_shape), dtype).tobytes()).decode()
    example = {
        "inputs": {input_names[0]: {"shape": [1, *row_shape], "data": example_data}},
        "min_confidence": 0.5,
    }
    json_content = {"application/json": {"schema": schema, "example": example}}
    return {"requestBody": {"required": True, "content": json_content | describe_upload()}}


def describe_upload() -> dict[str, object]:
    """Returns {"multipart/form-data": {"schema"}} for OpenAPI: an uploaded media file with its options.

    The properties of the schema are `file` (required), `min_confidence`, `person` and `details`.
    """
    file_schema = {
        "type": "string",
        "contentMediaType": "application/octet-stream",
        "description": "audio or video file",
    }
    properties = {"file": file_schema} | OPTION_FIELDS
    return {
        "multipart/form-data": {"schema": {"type": "object", "required": ["file"], "properties": properties}}
    }
