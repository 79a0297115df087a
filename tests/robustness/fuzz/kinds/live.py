"""Messages of live sessions, to the whole application: text and bytes, of any order and any form."""

import json
import math

import numpy as np
from starlette.websockets import WebSocketDisconnect

from emofuse_jax.serving.http.live_protocol import AUDIO_KIND, FRAME_KIND
from tests.integration.serving.test_live import SAMPLE_RATE, encode_chunk, make_jpeg
from tests.robustness.fuzz.damage import damage_bytes, make_rng
from tests.robustness.fuzz.kinds import http
from tests.robustness.fuzz.values import json_bytes
from tests.robustness.fuzz.verdict import Broken, Refused

NAMED = http.NAMED
OWN_PICKLES = http.OWN_PICKLES
START_MESSAGE = {"min_confidence": 0.5, "person": 1, "details": False}
TIMESTAMPS_SECONDS = (0.0, 0.8, 1.6, -0.5, -1e9, 3.2, 1e9, 1e308, 5e-324, math.nan, math.inf, -math.inf)
MESSAGE_KINDS = (AUDIO_KIND, AUDIO_KIND, FRAME_KIND, FRAME_KIND, 0, 3, 255)
PICTURE_SIZES = ((64, 48), (64, 48), (1, 1), (3000, 3000), (65500, 1))
make = http.make


def load(folder: str):
    """The client, and what sessions are made of; a whole one is talked, so that all is imported."""
    client = http.start_client(folder)
    audio = (np.sin(np.arange(SAMPLE_RATE // 2) / 9) * 9000).astype("<i2").tobytes()
    pictures = {str(size): make_jpeg(100, size) for size in PICTURE_SIZES}
    data = {"sound": audio, **pictures}
    valid_messages = [encode_chunk(AUDIO_KIND, 0.5 * i, audio) for i in range(4)] + [
        encode_chunk(FRAME_KIND, 0.2, make_jpeg())
    ]
    with client.websocket_connect("/v1/live") as socket:
        if not run_session(socket, [json.dumps(START_MESSAGE), *valid_messages, "end"]):
            raise Broken("a whole session has no answer")
    return client, data


def attempt(case, seed: int, scratch: str) -> None:
    """A session of up to a dozen messages, one in four of which ends without a word."""
    client, data = case
    rng = make_rng("live", seed)
    first = json.dumps(START_MESSAGE) if rng.integers(4) else json_bytes(START_MESSAGE, rng).decode()
    messages = [first, *(make_message(data, rng) for _ in range(rng.integers(1, 12)))]
    if rng.integers(4):
        messages.append("end")
    with client.websocket_connect("/v1/live") as socket:
        run_session(socket, messages)
    http.check_no_uploads_left()


def make_message(data: dict[str, bytes], rng) -> bytes | str:
    """A piece of sound or a picture, at a likely second or another, damaged, or something else."""
    choice = rng.integers(12)
    if choice == 0:
        return ("", "END", "end\n", "\0", "{}", "é" * 5000)[rng.integers(6)]
    if choice == 1:
        return rng.bytes(int(rng.integers(0, 20)))
    kind = MESSAGE_KINDS[rng.integers(len(MESSAGE_KINDS) if choice < 4 else 4)]
    names = [name for name in sorted(data) if (name == "sound") == (kind == AUDIO_KIND)]
    name = names[rng.integers(len(names))]
    content = damage_bytes(data, name, rng) if choice < 6 else data[name]
    return encode_chunk(
        kind, TIMESTAMPS_SECONDS[rng.integers(len(TIMESTAMPS_SECONDS) if choice < 5 else 3)], content
    )


def run_session(socket, messages: list[bytes | str]) -> list[dict]:
    """The windows' answers; Refused where it is told why there are no more of them, Broken on another end."""
    for message in messages:
        (socket.send_text if isinstance(message, str) else socket.send_bytes)(message)
    if messages[-1] != "end":
        return []  # the client leaves without a word, and may not wait for one
    replies = []
    try:
        while True:
            replies.append(json.loads(socket.receive_text(), parse_constant=_refuse_number))
    except WebSocketDisconnect as disconnect:
        code = disconnect.code
    if replies and "status" in replies[-1]:
        problem = replies[-1]
        if code not in (1008, 1013) or not problem["detail"] or not problem.get("field"):
            raise Broken(f"closed with {code}: {str(problem)[:500]}")
        raise Refused(f"{problem['status']}: {problem['field']}: {problem['detail']}")
    if code != 1000:
        raise Broken(f"closed with {code} after {str(replies)[:500]}")
    return replies[1:]


def _refuse_number(text: str) -> float:
    raise Broken(f"a number that no browser reads: {text}")
