"""Suites `fbp` and `step`: bilinear pooling, and a complete training step; the peer is PyTorch.

Both run in one process and take turns on arrays in the device's memory. On a GPU the peer is compiled and
uses bfloat16 if emofuse does; on a CPU it runs eagerly, with the memory layouts of oneDNN.
"""

import dataclasses
import functools
import os
import time
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.timing import make_row, measure_medians
from emofuse_jax import settings
from emofuse_jax.models.build import build_model
from emofuse_jax.ops.mfb import mfb
from emofuse_jax.parallel.mesh import make_mesh
from emofuse_jax.training.optimizer import make_optimizer
from emofuse_jax.training.step import init_state, jit_train_step, make_train_step
from emofuse_jax.types import InputSpec

os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # PyTorch shares the device
POOLING_SHAPES = {"clip level": ((256,), 1280, 256), "frame level": ((256, 300), 256, 256)}
"""Shape of the rows and widths of both vectors: pooled vectors of Deep Fusion, and vectors of one frame."""
FUSED_WIDTH, FACTORS, DROPOUT_RATE = 128, 4, 0.1
"""Sizes of the bilinear pooling, and its dropout rate."""
SPEC = InputSpec(t=300, f=200, s=3, h=112, w=112, classes=8)
"""A clip of three seconds with three faces, as in the training of AM-FBP."""
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
"""Fields of `config.augment` without augmentation, because the peer has none."""

SETTLING_SECONDS = 0.05
"""Seconds of untimed calls before the timed call."""
SHORT_CASE_REPEAT_FACTOR = 20
"""Factor of the number of repeats in cases that take milliseconds."""


def measure_fbp(*, with_torch: bool, repeats: int, pooling_shapes: dict = POOLING_SHAPES) -> Iterator[dict]:
    """Yields rows for MFB, forward and backward: rows per second with and without dropout, and FLOP/s.

    The peer of the last one is a single matrix product of the same sizes.

    Args:
      with_torch: True: measure PyTorch too.
      repeats: Number of timed calls; the median is reported.
      pooling_shapes: See POOLING_SHAPES.
    """
    for level, (leading_shape, m, n) in pooling_shapes.items():
        arrays = make_arrays(leading_shape, m, n)
        row_count, repeat_count = (
            int(np.prod(leading_shape)),
            repeats * (SHORT_CASE_REPEAT_FACTOR if len(leading_shape) == 1 else 1),
        )
        for dropout_rate in (DROPOUT_RATE, 0.0):
            case = f"{level}, {'dropout' if dropout_rate else 'no dropout'}"
            timers = {"ours": make_timer(make_our_pooling(arrays, dropout_rate))}
            if with_torch:
                timers["peer"] = make_timer(make_peer_pooling(arrays, dropout_rate))
            if not dropout_rate:
                timers["matrix"] = make_timer(make_matrix_product(arrays))
            median_seconds = measure_medians(timers, repeat_count)
            peer_rate = row_count / median_seconds["peer"] if with_torch else None
            yield make_row(
                case,
                "rows/s",
                row_count / median_seconds["ours"],
                peer_rate,
                peer_name="PyTorch MFB",
                repeats=repeat_count,
            )
        our_flops = 6 * row_count * (m + n) * FUSED_WIDTH * FACTORS / median_seconds["ours"]
        product_flops = 2 * row_count * m * FUSED_WIDTH * FACTORS / median_seconds["matrix"]
        yield make_row(
            f"{level}, arithmetic",
            "FLOP/s",
            our_flops,
            product_flops,
            peer_name="a bare product",
            repeats=repeat_count,
        )


def make_arrays(leading_shape: tuple[int, ...], m: int, n: int) -> dict[str, np.ndarray]:
    """Returns random inputs x and y, factors u and v, and weights w of the fused vectors in the loss."""
    rng = np.random.default_rng(0)
    columns = FUSED_WIDTH * FACTORS
    shapes = {
        "x": (*leading_shape, m),
        "y": (*leading_shape, n),
        "u": (m, columns),
        "v": (n, columns),
        "w": (*leading_shape, FUSED_WIDTH),
    }
    return {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


def make_our_pooling(arrays: dict[str, np.ndarray], dropout_rate: float) -> Callable:
    """Returns a compiled function: loss and gradient of MFB with respect to its inputs and factors."""
    device_arrays, w = {k: jnp.asarray(arrays[k]) for k in "xyuv"}, jnp.asarray(arrays["w"])

    def loss(a, key):
        fused = mfb(a["x"], a["y"], a["u"], a["v"], factors=FACTORS, dropout_rate=dropout_rate, key=key)
        return (fused * w).sum()

    compiled = jax.jit(jax.value_and_grad(loss)).lower(device_arrays, jax.random.key(0)).compile()
    return lambda: jax.block_until_ready(compiled(device_arrays, jax.random.key(0)))


def make_peer_pooling(arrays: dict[str, np.ndarray], dropout_rate: float) -> Callable:
    """Returns the same function in PyTorch, compiled on a GPU."""
    import torch

    from benchmarks.peers import bilinear

    device_name = torch_device()
    device_arrays = {k: torch.from_numpy(arrays[k]).to(device_name).requires_grad_() for k in "xyuv"}
    w = torch.from_numpy(arrays["w"]).to(device_name)

    def forward():
        joint = torch.nn.functional.dropout(bilinear.joint_products(**device_arrays), dropout_rate)
        pooled = joint.unflatten(-1, (FUSED_WIDTH, FACTORS)).sum(-1)
        return (bilinear.l2_normalize(bilinear.signed_root(pooled)) * w).sum()

    if device_name == "cuda":
        forward = torch.compile(forward)

    def run():
        for array in device_arrays.values():
            array.grad = None
        forward().backward()
        wait_for_torch()

    return run


def make_matrix_product(arrays: dict[str, np.ndarray]) -> Callable:
    """Returns a compiled function that computes one of the two projections of MFB, a matrix product."""
    x, u = jnp.asarray(arrays["x"]).reshape(-1, arrays["x"].shape[-1]), jnp.asarray(arrays["u"])
    compiled = jax.jit(jnp.matmul).lower(x, u).compile()
    return lambda: compiled(x, u).block_until_ready()


def measure_step(
    *, with_torch: bool, repeats: int, batch_sizes: tuple[int, ...] = (16, 32)
) -> Iterator[dict]:
    """Yields a row for each batch size: clips per second of AM-FBP's training step.

    The step goes from spectrograms and faces to updated parameters.
    """
    for batch_size in batch_sizes:
        config = settings.load_shipped("am_fbp")
        config.augment.update(AUGMENT_OFF)
        config.data.batch_size = batch_size
        if jax.default_backend() != "cpu":
            config.model.dtype = "bfloat16"
        timers = {"ours": make_timer(make_our_step(config))}
        if with_torch:
            timers["peer"] = make_timer(make_peer_step(config))
        median_seconds = measure_medians(timers, repeats)
        peer_rate = batch_size / median_seconds["peer"] if with_torch else None
        case = f"am_fbp, batches of {batch_size}, {config.model.dtype}"
        yield make_row(
            case,
            "clips/s",
            batch_size / median_seconds["ours"],
            peer_rate,
            peer_name="PyTorch",
            repeats=repeats,
        )


def make_unpadded_batch(model, size: int):
    """Returns a batch of random clips without padding, because the peer does not mask padding."""
    batch = model.fake_batch(size)
    ones = {name: np.ones_like(getattr(batch, name)) for name in ("audio_mask", "face_mask")}
    return dataclasses.replace(batch, **ones)


def make_our_step(config) -> Callable:
    """Returns a function that runs the training step of `emofuse train` on one batch."""
    mesh = make_mesh(config.mesh)
    model, tx = build_model(config.model, SPEC), make_optimizer(config.optimizer, 1000)
    statistics = np.full(SPEC.f, -4.0, np.float32), np.full(SPEC.f, 2.0, np.float32)
    carry = {"state": init_state(model, tx, jax.random.key(0), statistics)}
    batch = jax.device_put(make_unpadded_batch(model, config.data.batch_size))
    jitted = jit_train_step(make_train_step(model, tx, config), carry["state"], mesh, fsdp=False)
    compiled = jitted.lower(carry["state"], batch).compile()

    def run():
        carry["state"], metrics = compiled(carry["state"], batch)
        jax.block_until_ready(metrics)

    return run


def make_peer_step(config) -> Callable:
    """Returns a function that runs the same training step in PyTorch: same network, optimizer and batch."""
    import torch

    from benchmarks.peers.train_network import end_to_end, make_train_step

    batch, device_name = (
        make_unpadded_batch(build_model(config.model, SPEC), config.data.batch_size),
        torch_device(),
    )
    net = end_to_end(SPEC.classes).to(device_name, memory_format=torch.channels_last)
    net = torch.compile(net) if device_name == "cuda" else net
    train_step = make_train_step(net, config.optimizer.learning_rate, 1000)
    inputs = [
        torch.from_numpy(np.asarray(x)).to(device_name) for x in (batch.audio, batch.faces, batch.label)
    ]

    def run():
        with torch.autocast(device_name, torch.bfloat16, enabled=config.model.dtype == "bfloat16"):
            train_step(inputs[0], inputs[1], inputs[2].long())
        wait_for_torch()

    return run


def torch_device() -> str:
    """Returns PyTorch's name of the device that JAX uses: "cuda" or "cpu"."""
    import torch

    return "cuda" if torch.cuda.is_available() and jax.default_backend() == "gpu" else "cpu"


def wait_for_torch() -> None:
    """Waits until PyTorch's device has finished all operations."""
    import torch

    if torch_device() == "cuda":
        torch.cuda.synchronize()


def make_timer(function: Callable) -> Callable[[], float]:
    """Returns a function that measures the seconds of one call of `function`.

    It first calls `function` for SETTLING_SECONDS, because OpenMP threads of the other side may still be
    busy-waiting.
    """

    @functools.wraps(function)
    def time_call() -> float:
        deadline = time.perf_counter() + SETTLING_SECONDS
        while time.perf_counter() < deadline:
            function()
        start_time = time.perf_counter()
        function()
        return time.perf_counter() - start_time

    return time_call
