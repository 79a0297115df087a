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
from tests.data_prep.media_files import tone, write_wav
from tests.data_prep.mutate import mutate
from tests.fuzz.damage import damaged, read_tree, rng_of
from tests.fuzz.kinds.names import TRICKS
from tests.fuzz.values import json_bytes
from tests.fuzz.verdict import Broken, Refused
from tests.serving.conftest import SPEC, save_checkpoint
from tests.serving.test_app import packed

NAMED = "."
"""`check` sees to the field."""
OWN_PICKLES = True
"""What decoders found comes back from our own processes as pickles."""
FINE = {200, 400, 413, 415, 422}
LIMITS = Limits(max_body_bytes=8 << 20, buckets=(1,), decode_timeout_seconds=15.0)
ROUTES = ("/v1/predict", "/v1/predict/stream")
QUOTED = str.maketrans({'"': "%22", "\r": "%0D", "\n": "%0A"})
KINDS = (
    "application/json",
    "multipart/form-data; boundary=cut",
    "multipart/form-data",
    "text/plain",
    "",
    "\xff",
)

FIELDS = ("min_confidence", "person", "details", "x" * 200, "file", "_charset_", "file[]", "../file", "")
VALUES = ("nan", "-1", "1e999", "true", "", "\0", "é", "9" * 5000, "０．５", "utf-7", "../../x", "\u202e1")
HEADS = (
    *('filename="clip"', 'filename=""', "", "filename=clip", 'filename="clip"; filename="other"'),
    *(f'filename="{name.translate(QUOTED)}"' for name in TRICKS),
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


def start(folder: str) -> TestClient:
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
    client = start(folder)
    media = read_tree(f"{folder}/media")
    sound = np.full((90, SPEC.f), 0.5, np.float16)
    bodies = {
        "packed": json.dumps({"inputs": {"audio": packed(sound)}, "min_confidence": 0.5}).encode(),
        "listed": json.dumps({"inputs": {"audio": sound.tolist()}}).encode(),
        "form": form(media["sound.wav"], details="true", person="2"),
    }
    kinds = {"packed": KINDS[0], "listed": KINDS[0], "form": KINDS[1]}
    for name, body in bodies.items():
        client.post(ROUTES[0], content=body, headers={"content-type": kinds[name]}).raise_for_status()
    return client, bodies, kinds, media


def attempt(case, seed: int, scratch: str) -> None:
    """One body: a damaged valid one, values of JSON, or a whole form around damaged media or fields."""
    client, bodies, kinds, media = case
    rng = rng_of("http", seed)
    name = sorted(bodies)[rng.integers(len(bodies))]
    kind = kinds[name] if rng.integers(8) else KINDS[rng.integers(len(KINDS))]
    if name != "form" and rng.integers(2):
        body = json_bytes(json.loads(bodies[name]), rng)
    elif name == "form" and rng.integers(2):
        data = mutate(media, seed)[1] if rng.integers(2) else media["sound.wav"]
        more = {one_of(FIELDS, rng): one_of(VALUES, rng)} if rng.integers(2) else {}
        body = form(data, head=one_of(HEADS, rng), **more)
    else:
        body = damaged(bodies, name, rng)
    route = ROUTES[int(rng.integers(4) == 0)]
    answer = client.post(route, content=body, headers={"content-type": kind.encode("latin-1")})
    check_kept()
    check(answer)


def check_kept(seconds: float = 5.0) -> None:
    """Broken where something that was sent lies there still, so long after its caller is gone."""
    until = time.monotonic() + seconds
    while left := glob.glob(os.path.join(tempfile.gettempdir(), f"{UPLOADS_PREFIX}*", "*")):
        if time.monotonic() > until:
            raise Broken(f"what was sent is kept: {left[:3]}")
        time.sleep(0.01)


def check(answer) -> None:
    """Broken where it says more, or less, than a client may see."""
    text = answer.text
    if answer.status_code not in FINE or "Traceback" in text:
        raise Broken(f"{answer.status_code}: {text[:500]}")
    if answer.status_code != 200:
        problem = answer.json()
        if answer.headers["content-type"] != "application/problem+json" or not problem["detail"]:
            raise Broken(f"no problem document: {text[:500]}")
        if answer.status_code in {413, 422} and not problem.get("field"):
            raise Broken(f"no field: {text[:500]}")
        raise Refused(f"{answer.status_code}: {problem['detail']}")


def form(data: bytes, head: str = HEADS[0], **fields: str) -> bytes:
    """A multipart body; `head` is what its file is called, and headers more."""
    parts = [f'name="{name}"\r\n\r\n{value}'.encode() for name, value in fields.items()]
    parts.append(f'name="file"; {head}\r\n\r\n'.encode() + data)
    begin = b"--cut\r\nContent-Disposition: form-data; "
    return b"".join(begin + part + b"\r\n" for part in parts) + b"--cut--\r\n"


def one_of(values, rng) -> str:
    """Any of them, as likely as the others."""
    return values[rng.integers(len(values))]
