"""Suites `fbp` and `step`: bilinear pooling, and a complete training step; the peer is PyTorch.

Both run in one process and take turns on arrays in the device's memory. The peer uses channels-last and, if
emofuse does, bfloat16. On a GPU it is compiled, and float32 products use TF32 on both sides, as JAX does by
default; on a CPU the peer runs eagerly.
"""

import dataclasses
import functools
import os
import time
from collections.abc import Callable, Iterator, Sequence

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

StepCase = tuple[str, int, int]
"""Case of the suite `step`: dtype, batch size, and steps per call."""
SETTLING_SECONDS = 0.05
"""Seconds of untimed calls before the timed call."""
SHORT_CASE_REPEAT_FACTOR = 20
"""Factor of the number of repeats in cases that take milliseconds."""


def measure_fbp(
    *, with_torch: bool, repeats: int, pooling_shapes: dict = POOLING_SHAPES, dtype: str = "float32"
) -> Iterator[dict]:
    """Yields rows for MFB, forward and backward: rows per second with and without dropout, and FLOP/s.

    The peer of the last one is a single matrix product of the same sizes.

    Args:
      with_torch: True: measure PyTorch too.
      repeats: Number of timed calls; the median is reported.
      pooling_shapes: See POOLING_SHAPES.
      dtype: "float32" or "bfloat16", that of all arrays.
    """
    suffix = "" if dtype == "float32" else f", {dtype}"
    for level, (leading_shape, m, n) in pooling_shapes.items():
        arrays = make_arrays(leading_shape, m, n)
        row_count, repeat_count = (
            int(np.prod(leading_shape)),
            repeats * (SHORT_CASE_REPEAT_FACTOR if len(leading_shape) == 1 else 1),
        )
        for dropout_rate in (DROPOUT_RATE, 0.0):
            case = f"{level}, {'dropout' if dropout_rate else 'no dropout'}{suffix}"
            timers = {"ours": make_timer(make_our_pooling(arrays, dropout_rate, dtype))}
            if with_torch:
                timers["peer"] = make_timer(make_peer_pooling(arrays, dropout_rate, dtype))
            if not dropout_rate:
                timers["matrix"] = make_timer(make_matrix_product(arrays, dtype))
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
            f"{level}, arithmetic{suffix}",
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


def make_our_pooling(arrays: dict[str, np.ndarray], dropout_rate: float, dtype: str) -> Callable:
    """Returns a compiled function: loss and gradient of MFB with respect to its inputs and factors."""
    device_arrays = {k: jnp.asarray(arrays[k], dtype) for k in "xyuv"}
    w = jnp.asarray(arrays["w"], dtype)

    def loss(a, key):
        fused = mfb(a["x"], a["y"], a["u"], a["v"], factors=FACTORS, dropout_rate=dropout_rate, key=key)
        return (fused * w).sum()

    compiled = jax.jit(jax.value_and_grad(loss)).lower(device_arrays, jax.random.key(0)).compile()
    return lambda: jax.block_until_ready(compiled(device_arrays, jax.random.key(0)))


def make_peer_pooling(arrays: dict[str, np.ndarray], dropout_rate: float, dtype: str) -> Callable:
    """Returns the same function in PyTorch, compiled on a GPU."""
    import torch

    from benchmarks.peers import bilinear

    allow_tf32()
    device_name, torch_dtype = torch_device(), getattr(torch, dtype)
    tensors = {k: torch.from_numpy(array).to(device_name, torch_dtype) for k, array in arrays.items()}
    device_arrays, w = {k: tensors[k].requires_grad_() for k in "xyuv"}, tensors["w"]

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


def make_matrix_product(arrays: dict[str, np.ndarray], dtype: str) -> Callable:
    """Returns a compiled function that computes one of the two projections of MFB, a matrix product."""
    x = jnp.asarray(arrays["x"], dtype).reshape(-1, arrays["x"].shape[-1])
    u = jnp.asarray(arrays["u"], dtype)
    compiled = jax.jit(jnp.matmul).lower(x, u).compile()
    return lambda: compiled(x, u).block_until_ready()


def load_am_fbp():
    """Returns the config of AM-FBP at the sizes of the papers."""
    return settings.load_shipped("am_fbp")


def measure_step(
    *,
    with_torch: bool,
    repeats: int,
    batch_sizes: tuple[int, ...] = (16, 32),
    cases: Sequence[StepCase] = (),
    make_config: Callable = load_am_fbp,
    workdir: str = "",
    spec: InputSpec = SPEC,
) -> Iterator[dict]:
    """Yields a row for each case: clips per second of AM-FBP's training step.

    The step goes from spectrograms and faces to updated parameters. In resident cases, several steps are one
    program that gathers its batches from clips in the device's memory; the peer then runs as many steps on
    one batch before it is waited for, and gathers nothing.

    Args:
      with_torch: True: measure PyTorch too.
      repeats: Number of timed calls; the median is reported.
      batch_sizes: Sizes of the batches if there are no `cases`: one step per call, in float32 on a CPU, else
        in bfloat16.
      cases: Tuples of dtype, batch size and steps per call; more than one step per call: resident.
      make_config: Function that returns the config. The peer has the sizes of the papers in any case.
      workdir: Directory for the records of resident cases.
      spec: Sizes of a clip.
    """
    dtype = "float32" if jax.default_backend() == "cpu" else "bfloat16"
    for case in cases or [(dtype, batch_size, 1) for batch_size in batch_sizes]:
        config = make_step_config(make_config, *case)
        run = make_our_step(config, spec) if case[2] == 1 else make_resident_step(config, workdir, spec)[0]
        timers = {"ours": make_timer(run)}
        if with_torch:
            timers["peer"] = make_timer(make_peer_step(config, spec))
        median_seconds = measure_medians(timers, repeats)
        clip_count = config.data.batch_size * config.train.steps_per_call
        yield make_row(
            name_step_case(config),
            "clips/s",
            clip_count / median_seconds["ours"],
            clip_count / median_seconds["peer"] if with_torch else None,
            peer_name="PyTorch",
            repeats=repeats,
        )


def make_step_config(make_config: Callable, dtype: str, batch_size: int, steps_per_call: int):
    """Returns a config without augmentation for one case of `measure_step`."""
    config = make_config()
    config.augment.update(AUGMENT_OFF)
    config.model.dtype, config.data.batch_size = dtype, batch_size
    config.train.steps_per_call = steps_per_call
    return config


def name_step_case(config) -> str:
    """Returns the name of a case of `measure_step`."""
    steps = config.train.steps_per_call
    resident = "" if steps == 1 else f", resident, {steps} steps per call"
    return f"{config.name}, batches of {config.data.batch_size}, {config.model.dtype}{resident}"


def make_resident_step(config, workdir: str, spec: InputSpec = SPEC) -> tuple[Callable, jax.stages.Compiled]:
    """Returns a function that trains for several steps on resident clips, and its program."""
    from benchmarks import resident_step

    path = os.path.join(workdir, "clips", f"batches_of_{config.data.batch_size}")
    return resident_step.make_resident_step(config, spec, path)


def make_unpadded_batch(model, size: int):
    """Returns a batch of random clips without padding, because the peer does not mask padding."""
    batch = model.fake_batch(size)
    ones = {name: np.ones_like(getattr(batch, name)) for name in ("audio_mask", "face_mask")}
    return dataclasses.replace(batch, **ones)


def make_our_step(config, spec: InputSpec = SPEC) -> Callable:
    """Returns a function that runs the training step of `emofuse train` on one batch."""
    mesh = make_mesh(config.mesh)
    model, tx = build_model(config.model, spec), make_optimizer(config.optimizer, 1000)
    statistics = np.full(spec.f, -4.0, np.float32), np.full(spec.f, 2.0, np.float32)
    carry = {"state": init_state(model, tx, jax.random.key(0), statistics)}
    batch = jax.device_put(make_unpadded_batch(model, config.data.batch_size))
    jitted = jit_train_step(make_train_step(model, tx, config), carry["state"], mesh, fsdp=False)
    compiled = jitted.lower(carry["state"], batch).compile()

    def run():
        carry["state"], metrics = compiled(carry["state"], batch)
        jax.block_until_ready(metrics)

    return run


def make_peer_step(config, spec: InputSpec = SPEC) -> Callable:
    """Returns a function that runs the same training steps in PyTorch: same network, optimizer and batch."""
    import torch

    from benchmarks.peers.train_network import end_to_end, make_train_step

    batch, device_name = (
        make_unpadded_batch(build_model(config.model, spec), config.data.batch_size),
        torch_device(),
    )
    allow_tf32()
    net = end_to_end(spec.classes).to(device_name, memory_format=torch.channels_last)
    net = torch.compile(net) if device_name == "cuda" else net
    train_step = make_train_step(net, config.optimizer.learning_rate, 1000)
    inputs = [
        torch.from_numpy(np.asarray(x)).to(device_name) for x in (batch.audio, batch.faces, batch.label)
    ]

    def run():
        with torch.autocast(device_name, torch.bfloat16, enabled=config.model.dtype == "bfloat16"):
            for _ in range(config.train.steps_per_call):
                train_step(inputs[0], inputs[1], inputs[2].long())
        wait_for_torch()

    return run


def torch_device() -> str:
    """Returns PyTorch's name of the device that JAX uses: "cuda" or "cpu"."""
    import torch

    return "cuda" if torch.cuda.is_available() and jax.default_backend() == "gpu" else "cpu"


def allow_tf32() -> None:
    """Lets PyTorch use TF32 for float32 products on GPUs, as JAX does by default."""
    import torch

    torch.set_float32_matmul_precision("high")


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
