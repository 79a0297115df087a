"""The suites `fbp` and `step`: bilinear pooling, and a whole training step, against PyTorch in one process.

Both sides take turns on arrays that lie on the device. On a GPU the peer is compiled and runs in bfloat16
where ours does; on a CPU it is eager, with oneDNN's layouts.
"""

import dataclasses
import functools
import os
import time
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.timing import medians, row
from emofuse_jax import settings
from emofuse_jax.models.build import build_model
from emofuse_jax.ops.mfb import mfb
from emofuse_jax.parallel.mesh import make_mesh
from emofuse_jax.training.optimizer import make_optimizer
from emofuse_jax.training.step import init_state, jit_train_step, make_train_step
from emofuse_jax.types import InputSpec

os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # PyTorch shares the device
POOLINGS = {"clip level": ((256,), 1280, 256), "frame level": ((256, 300), 256, 256)}
"""Rows, and widths of both vectors: of the pooled streams of P1, and of one frame of both."""
WIDTH, FACTORS, DROPOUT = 128, 4, 0.1
SPEC = InputSpec(t=300, f=200, s=3, h=112, w=112, classes=8)
"""A clip of three seconds; three faces, as AM-FBP trains on."""
AUGMENT_OFF = {
    "frames": 0,
    "flip": False,
    "shift": 0,
    "brightness": 0.0,
    "contrast": 0.0,
    "time_masks": 0,
    "frequency_masks": 0,
    "gain": 0.0,
}
"""The peer has none."""

SETTLES = 0.05
"""Seconds of calls before the one that counts."""
SHORT = 20
"""Times as many repeats where one takes milliseconds."""


def fbp(*, torch: bool, repeats: int, poolings: dict = POOLINGS) -> Iterator[dict]:
    """MFB forward and backward, rows a second with and without dropout, and its share of the matrix rate."""
    for level, (lead, m, n) in poolings.items():
        arrays = made(lead, m, n)
        rows, often = int(np.prod(lead)), repeats * (SHORT if len(lead) == 1 else 1)
        for rate in (DROPOUT, 0.0):
            case = f"{level}, {'dropout' if rate else 'no dropout'}"
            sides = {"ours": timed(our_pooling(arrays, rate))}
            if torch:
                sides["peer"] = timed(peer_pooling(arrays, rate))
            if not rate:
                sides["matrix"] = timed(product(arrays))
            taken = medians(sides, often)
            theirs = rows / taken["peer"] if torch else None
            yield row(case, "rows/s", rows / taken["ours"], theirs, peer_name="PyTorch MFB", repeats=often)
        ours = 6 * rows * (m + n) * WIDTH * FACTORS / taken["ours"]
        bare = 2 * rows * m * WIDTH * FACTORS / taken["matrix"]
        yield row(f"{level}, arithmetic", "FLOP/s", ours, bare, peer_name="a bare product", repeats=often)


def made(lead: tuple[int, ...], m: int, n: int) -> dict[str, np.ndarray]:
    """Two streams, both factors, and what the fused vectors are multiplied by."""
    rng = np.random.default_rng(0)
    columns = WIDTH * FACTORS
    shapes = {"x": (*lead, m), "y": (*lead, n), "u": (m, columns), "v": (n, columns), "w": (*lead, WIDTH)}
    return {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


def our_pooling(arrays: dict[str, np.ndarray], rate: float) -> Callable:
    """A compiled value and gradient by the streams and the factors."""
    placed, w = {k: jnp.asarray(arrays[k]) for k in "xyuv"}, jnp.asarray(arrays["w"])

    def loss(a, key):
        fused = mfb(a["x"], a["y"], a["u"], a["v"], factors=FACTORS, dropout_rate=rate, key=key)
        return (fused * w).sum()

    compiled = jax.jit(jax.value_and_grad(loss)).lower(placed, jax.random.key(0)).compile()
    return lambda: jax.block_until_ready(compiled(placed, jax.random.key(0)))


def peer_pooling(arrays: dict[str, np.ndarray], rate: float) -> Callable:
    """The same in PyTorch."""
    import torch

    from benchmarks.peers import bilinear

    where = device()
    placed = {k: torch.from_numpy(arrays[k]).to(where).requires_grad_() for k in "xyuv"}
    w = torch.from_numpy(arrays["w"]).to(where)

    def forward():
        joint = torch.nn.functional.dropout(bilinear.products(**placed), rate)
        pooled = joint.unflatten(-1, (WIDTH, FACTORS)).sum(-1)
        return (bilinear.unit(bilinear.signed_root(pooled)) * w).sum()

    if where == "cuda":
        forward = torch.compile(forward)

    def run():
        for array in placed.values():
            array.grad = None
        forward().backward()
        wait()

    return run


def product(arrays: dict[str, np.ndarray]) -> Callable:
    """One of the two projections alone."""
    x, u = jnp.asarray(arrays["x"]).reshape(-1, arrays["x"].shape[-1]), jnp.asarray(arrays["u"])
    compiled = jax.jit(jnp.matmul).lower(x, u).compile()
    return lambda: compiled(x, u).block_until_ready()


def step(*, torch: bool, repeats: int, batch_sizes: tuple[int, ...] = (16, 32)) -> Iterator[dict]:
    """AM-FBP from spectra and faces to updated parameters, clips a second."""
    for size in batch_sizes:
        config = settings.load_shipped("am_fbp")
        config.augment.update(AUGMENT_OFF)
        config.data.batch_size = size
        if jax.default_backend() != "cpu":
            config.model.dtype = "bfloat16"
        sides = {"ours": timed(our_step(config))}
        if torch:
            sides["peer"] = timed(peer_step(config))
        taken = medians(sides, repeats)
        theirs = size / taken["peer"] if torch else None
        case = f"am_fbp, batches of {size}, {config.model.dtype}"
        yield row(case, "clips/s", size / taken["ours"], theirs, peer_name="PyTorch", repeats=repeats)


def whole_batch(model, size: int):
    """Random clips without padding: the peer masks none."""
    batch = model.fake_batch(size)
    ones = {name: np.ones_like(getattr(batch, name)) for name in ("audio_mask", "face_mask")}
    return dataclasses.replace(batch, **ones)


def our_step(config) -> Callable:
    """The step of `emofuse train` on one batch."""
    mesh = make_mesh(config.mesh)
    model, tx = build_model(config.model, SPEC), make_optimizer(config.optimizer, 1000)
    statistics = np.full(SPEC.f, -4.0, np.float32), np.full(SPEC.f, 2.0, np.float32)
    held = {"state": init_state(model, tx, jax.random.key(0), statistics)}
    batch = jax.device_put(whole_batch(model, config.data.batch_size))
    jitted = jit_train_step(make_train_step(model, tx, config), held["state"], mesh, fsdp=False)
    compiled = jitted.lower(held["state"], batch).compile()

    def run():
        held["state"], measured = compiled(held["state"], batch)
        jax.block_until_ready(measured)

    return run


def peer_step(config) -> Callable:
    """The same network, optimiser and batch in PyTorch."""
    import torch

    from benchmarks.peers.train_network import end_to_end, trainer

    batch, where = whole_batch(build_model(config.model, SPEC), config.data.batch_size), device()
    net = end_to_end(SPEC.classes).to(where, memory_format=torch.channels_last)
    net = torch.compile(net) if where == "cuda" else net
    one = trainer(net, config.optimizer.learning_rate, 1000)
    inputs = [torch.from_numpy(np.asarray(x)).to(where) for x in (batch.audio, batch.faces, batch.label)]

    def run():
        with torch.autocast(where, torch.bfloat16, enabled=config.model.dtype == "bfloat16"):
            one(inputs[0], inputs[1], inputs[2].long())
        wait()

    return run


def device() -> str:
    """Where PyTorch runs."""
    import torch

    return "cuda" if torch.cuda.is_available() and jax.default_backend() == "gpu" else "cpu"


def wait() -> None:
    """Until PyTorch's device is through."""
    import torch

    if device() == "cuda":
        torch.cuda.synchronize()


def timed(function: Callable) -> Callable[[], float]:
    """Seconds of a call, after `SETTLES` seconds of calls: OpenMP threads of the other side may spin."""

    @functools.wraps(function)
    def seconds() -> float:
        until = time.perf_counter() + SETTLES
        while time.perf_counter() < until:
            function()
        began = time.perf_counter()
        function()
        return time.perf_counter() - began

    return seconds
