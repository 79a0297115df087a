"""Messages of live sessions, to the whole application: text and bytes, of any order and any form."""

import json
import math

import numpy as np
from starlette.websockets import WebSocketDisconnect

from emofuse_jax.serving.http.live_protocol import AUDIO_KIND, FRAME_KIND
from tests.fuzz.damage import damaged, rng_of
from tests.fuzz.kinds import http
from tests.fuzz.values import json_bytes
from tests.fuzz.verdict import Broken, Refused
from tests.serving.test_live import SAMPLE_RATE, jpeg, piece

NAMED = http.NAMED
OWN_PICKLES = http.OWN_PICKLES
BEGIN = {"min_confidence": 0.5, "person": 1, "details": False}
SECONDS = (0.0, 0.8, 1.6, -0.5, -1e9, 3.2, 1e9, 1e308, 5e-324, math.nan, math.inf, -math.inf)
KINDS = (AUDIO_KIND, AUDIO_KIND, FRAME_KIND, FRAME_KIND, 0, 3, 255)
SIZES = ((64, 48), (64, 48), (1, 1), (3000, 3000), (65500, 1))
make = http.make


def load(folder: str):
    """The client, and what sessions are made of; a whole one is talked, so that all is imported."""
    client = http.start(folder)
    sound = (np.sin(np.arange(SAMPLE_RATE // 2) / 9) * 9000).astype("<i2").tobytes()
    pictures = {str(size): jpeg(100, size) for size in SIZES}
    data = {"sound": sound, **pictures}
    whole = [piece(AUDIO_KIND, 0.5 * i, sound) for i in range(4)] + [piece(FRAME_KIND, 0.2, jpeg())]
    with client.websocket_connect("/v1/live") as socket:
        if not talk(socket, [json.dumps(BEGIN), *whole, "end"]):
            raise Broken("a whole session has no answer")
    return client, data


def attempt(case, seed: int, scratch: str) -> None:
    """A session of up to a dozen messages, one in four of which ends without a word."""
    client, data = case
    rng = rng_of("live", seed)
    first = json.dumps(BEGIN) if rng.integers(4) else json_bytes(BEGIN, rng).decode()
    messages = [first, *(message(data, rng) for _ in range(rng.integers(1, 12)))]
    if rng.integers(4):
        messages.append("end")
    with client.websocket_connect("/v1/live") as socket:
        talk(socket, messages)
    http.check_kept()


def message(data: dict[str, bytes], rng) -> bytes | str:
    """A piece of sound or a picture, at a likely second or another, damaged, or something else."""
    how = rng.integers(12)
    if how == 0:
        return ("", "END", "end\n", "\0", "{}", "é" * 5000)[rng.integers(6)]
    if how == 1:
        return rng.bytes(int(rng.integers(0, 20)))
    kind = KINDS[rng.integers(len(KINDS) if how < 4 else 4)]
    names = [name for name in sorted(data) if (name == "sound") == (kind == AUDIO_KIND)]
    name = names[rng.integers(len(names))]
    content = damaged(data, name, rng) if how < 6 else data[name]
    return piece(kind, SECONDS[rng.integers(len(SECONDS) if how < 5 else 3)], content)


def talk(socket, messages: list[bytes | str]) -> list[dict]:
    """The windows' answers; Refused where it is told why there are no more of them, Broken on another end."""
    for one in messages:
        (socket.send_text if isinstance(one, str) else socket.send_bytes)(one)
    if messages[-1] != "end":
        return []  # the client leaves without a word, and may not wait for one
    told = []
    try:
        while True:
            told.append(json.loads(socket.receive_text(), parse_constant=_never))
    except WebSocketDisconnect as closed:
        code = closed.code
    if told and "status" in told[-1]:
        problem = told[-1]
        if code not in (1008, 1013) or not problem["detail"] or not problem.get("field"):
            raise Broken(f"closed with {code}: {str(problem)[:500]}")
        raise Refused(f"{problem['status']}: {problem['field']}: {problem['detail']}")
    if code != 1000:
        raise Broken(f"closed with {code} after {str(told)[:500]}")
    return told[1:]


def _never(text: str) -> float:
    raise Broken(f"a number that no browser reads: {text}")
