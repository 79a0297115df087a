"""Bodies of requests, to the whole application with its decoders: never more than a clear no."""

import glob
import json
import os
import pathlib
import tempfile
import time

import numpy as np
from fastapi.testclient import TestClient

from emofuse_jax.api.export import export_bundle
from emofuse_jax.serving import load as load_bundle
from emofuse_jax.serving.http.app import make_app
from emofuse_jax.serving.http.service import Limits
from emofuse_jax.serving.http.uploads import UPLOADS_PREFIX
from tests.robustness.fuzz.damage import damage_bytes, make_rng, read_tree
from tests.robustness.fuzz.kinds.names import UNSAFE_NAMES
from tests.robustness.fuzz.values import json_bytes
from tests.robustness.fuzz.verdict import Broken, Refused
from tests.support.bundles import SPEC, save_checkpoint
from tests.support.damaged_media import mutate
from tests.support.media_files import tone, write_wav
from tests.unit.serving.test_app import encode_array

NAMED = "."
"""`check_response` sees to the field."""
OWN_PICKLES = True
"""What decoders found comes back from our own processes as pickles."""
ALLOWED_STATUSES = {200, 400, 413, 415, 422}
LIMITS = Limits(max_body_bytes=8 << 20, batch_sizes=(1,), decode_timeout_seconds=15.0)
ROUTES = ("/v1/predict", "/v1/predict/stream")
QUOTE_TABLE = str.maketrans({'"': "%22", "\r": "%0D", "\n": "%0A"})
CONTENT_TYPES = (
    "application/json",
    "multipart/form-data; boundary=cut",
    "multipart/form-data",
    "text/plain",
    "",
    "\xff",
)

FIELDS = ("min_confidence", "person", "details", "x" * 200, "file", "_charset_", "file[]", "../file", "")
VALUES = ("nan", "-1", "1e999", "true", "", "\0", "é", "9" * 5000, "０．５", "utf-7", "../../x", "\u202e1")
FILE_HEADERS = (
    *('filename="clip"', 'filename=""', "", "filename=clip", 'filename="clip"; filename="other"'),
    *(f'filename="{name.translate(QUOTE_TABLE)}"' for name in UNSAFE_NAMES),
    "filename*=utf-8'de'%2e%2e%2f..%2fx%00.wav",
    "filename=\"a\"; filename*=utf-16'en'%ff%fe",
    'filename="a"\r\nContent-Type: ../../x; charset=utf-7',
    'filename="a"\r\nContent-Transfer-Encoding: base64\r\nContent-Location: /tmp/out',
    'filename="a"\r\nContent-Disposition: form-data; name="person"',
)
"""What a multipart body says of its file: names that want out, in other languages, twice or not at all."""


def make(folder: str) -> None:
    """The bundle of a tiny network of sound, and a file for it."""
    root = pathlib.Path(folder)
    save_checkpoint(root / "run", "audio_only")
    export_bundle(str(root / "run"), str(root / "bundle"))
    (root / "media").mkdir()
    write_wav(root / "media" / "sound.wav", tone(1.2, rate=16_000))


def start_client(folder: str) -> TestClient:
    """A client of the running application."""
    client = TestClient(
        make_app(load_bundle(f"{folder}/bundle"), limits=LIMITS), raise_server_exceptions=False
    )
    client.__enter__()
    while client.get("/readyz").status_code != 200:
        time.sleep(0.02)
    return client


def load(folder: str):
    """The client, valid bodies by name, and media by name."""
    client = start_client(folder)
    media = read_tree(f"{folder}/media")
    audio = np.full((90, SPEC.f), 0.5, np.float16)
    bodies = {
        "packed": json.dumps({"inputs": {"audio": encode_array(audio)}, "min_confidence": 0.5}).encode(),
        "listed": json.dumps({"inputs": {"audio": audio.tolist()}}).encode(),
        "form": make_form(media["sound.wav"], details="true", person="2"),
    }
    content_types = {"packed": CONTENT_TYPES[0], "listed": CONTENT_TYPES[0], "form": CONTENT_TYPES[1]}
    for name, body in bodies.items():
        client.post(ROUTES[0], content=body, headers={"content-type": content_types[name]}).raise_for_status()
    return client, bodies, content_types, media


def attempt(case, seed: int, scratch: str) -> None:
    """One body: a damaged valid one, values of JSON, or a whole form around damaged media or fields."""
    client, bodies, content_types, media = case
    rng = make_rng("http", seed)
    name = sorted(bodies)[rng.integers(len(bodies))]
    content_type = content_types[name] if rng.integers(8) else CONTENT_TYPES[rng.integers(len(CONTENT_TYPES))]
    if name != "form" and rng.integers(2):
        body = json_bytes(json.loads(bodies[name]), rng)
    elif name == "form" and rng.integers(2):
        data = mutate(media, seed)[1] if rng.integers(2) else media["sound.wav"]
        extra_fields = {draw(FIELDS, rng): draw(VALUES, rng)} if rng.integers(2) else {}
        body = make_form(data, file_header=draw(FILE_HEADERS, rng), **extra_fields)
    else:
        body = damage_bytes(bodies, name, rng)
    route = ROUTES[int(rng.integers(4) == 0)]
    response = client.post(route, content=body, headers={"content-type": content_type.encode("latin-1")})
    check_no_uploads_left()
    check_response(response)


def check_no_uploads_left(timeout_seconds: float = 5.0) -> None:
    """Broken where something that was sent lies there still, so long after its caller is gone."""
    deadline = time.monotonic() + timeout_seconds
    while leftover_files := glob.glob(os.path.join(tempfile.gettempdir(), f"{UPLOADS_PREFIX}*", "*")):
        if time.monotonic() > deadline:
            raise Broken(f"what was sent is kept: {leftover_files[:3]}")
        time.sleep(0.01)


def check_response(response) -> None:
    """Broken where it says more, or less, than a client may see."""
    text = response.text
    if response.status_code not in ALLOWED_STATUSES or "Traceback" in text:
        raise Broken(f"{response.status_code}: {text[:500]}")
    if response.status_code != 200:
        problem = response.json()
        if response.headers["content-type"] != "application/problem+json" or not problem["detail"]:
            raise Broken(f"no problem document: {text[:500]}")
        if response.status_code in {413, 422} and not problem.get("field"):
            raise Broken(f"no field: {text[:500]}")
        raise Refused(f"{response.status_code}: {problem['detail']}")


def make_form(data: bytes, file_header: str = FILE_HEADERS[0], **fields: str) -> bytes:
    """A multipart body; `file_header` is what its file is called, and headers more."""
    parts = [f'name="{name}"\r\n\r\n{value}'.encode() for name, value in fields.items()]
    parts.append(f'name="file"; {file_header}\r\n\r\n'.encode() + data)
    part_start = b"--cut\r\nContent-Disposition: form-data; "
    return b"".join(part_start + part + b"\r\n" for part in parts) + b"--cut--\r\n"


def draw(values, rng) -> str:
    """Any of them, as likely as the others."""
    return values[rng.integers(len(values))]
