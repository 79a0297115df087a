"""Checks that the device computes correctly, before anything is timed on it."""

from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.suite_speed import make_unpadded_batch
from emofuse_jax import settings
from emofuse_jax.models.build import build_model
from emofuse_jax.ops.bilinear import factorized_bilinear_pooling
from emofuse_jax.parallel.mesh import make_mesh
from emofuse_jax.training.optimizer import make_optimizer
from emofuse_jax.training.step import init_state, jit_train_step, make_train_step
from emofuse_jax.types import InputSpec

FBP_SIZES = {"rows": 64, "m": 96, "n": 80, "outputs": 32, "factors": 4}
SMALL_SPEC = InputSpec(t=128, f=200, s=3, h=56, w=56, classes=4)
"""Clips for the small variant of AM-FBP."""
LOSS_STEPS = 8
"""Number of steps on one batch, after which the loss must be smaller."""


def check_device() -> Iterator[dict]:
    """Yields a dict for each check: `check`, `value`, `limit` (of the value), and `passed`.

    The checks: FBP in float32 and FBP in bfloat16 against NumPy in float64; AM-FBP on the device against the
    CPU of the same process, in float32; and for each dtype the ratio of the last and the first loss of a few
    training steps. Differences are relative to the largest value. Float32 is computed without TF32 here.
    """
    with jax.default_matmul_precision("highest"):
        yield make_check("FBP, float32, against NumPy", fbp_error(jnp.float32), 1e-4)
        yield make_check("FBP, bfloat16, against NumPy", fbp_error(jnp.bfloat16), 3e-2)
        yield make_check("AM-FBP, float32, against the CPU", network_error(), 1e-3)
    for dtype in ("float32", "bfloat16"):
        yield make_check(f"AM-FBP, {dtype}, loss after {LOSS_STEPS} steps / before", loss_ratio(dtype), 1.0)


def make_check(name: str, value: float, limit: float) -> dict:
    """Returns the result of a check; a value that is not finite does not pass."""
    return {"check": name, "value": value, "limit": limit, "passed": bool(value < limit)}


def relative_error(x, reference) -> float:
    """Returns the largest absolute difference, relative to the largest absolute value of `reference`."""
    x, reference = np.asarray(x, np.float64), np.asarray(reference, np.float64)
    return float(np.abs(x - reference).max() / np.abs(reference).max())


def fbp_error(dtype) -> float:
    """Returns the relative error of FBP in `dtype` against its formula in NumPy."""
    rng, sizes = np.random.default_rng(0), FBP_SIZES
    columns = sizes["outputs"] * sizes["factors"]
    shapes = (sizes["rows"], sizes["m"]), (sizes["rows"], sizes["n"]), (sizes["m"], columns)
    arrays = [rng.normal(size=shape) for shape in (*shapes, (sizes["n"], columns))]
    device_arrays = [jnp.asarray(array, dtype) for array in arrays]
    fused = jax.jit(lambda *a: factorized_bilinear_pooling(*a, factors=sizes["factors"]))(*device_arrays)
    x, y, u, v = arrays
    z = ((x @ u) * (y @ v)).reshape(len(x), sizes["outputs"], sizes["factors"]).sum(-1)
    return relative_error(fused.astype(jnp.float32), z / np.linalg.norm(z, axis=-1, keepdims=True))


def small_config(dtype: str = "float32"):
    """Returns the config of the small variant of AM-FBP, with a shorter ResNet and all frames."""
    config = settings.small("am_fbp")
    config.model.video.blocks = (1, 1)  # compiling is most of the time
    config.model.dtype, config.augment.frames = dtype, 0
    return config


def network_error() -> float:
    """Returns the relative difference of the logits on the device and on the CPU; 0 on a CPU."""
    model = build_model(small_config("float32").model, SMALL_SPEC)
    logits = []
    for device in (jax.devices()[0], jax.local_devices(backend="cpu")[0]):
        with jax.default_device(device):
            params, model_state = jax.jit(model.init)(jax.random.key(0))
            outputs, _ = jax.jit(model.apply)(params, model_state, make_unpadded_batch(model, 4))
            logits.append(np.asarray(outputs.logits))
    return relative_error(*logits)


def loss_ratio(dtype: str) -> float:
    """Returns the last loss of LOSS_STEPS training steps on one batch, divided by the first loss."""
    config = small_config(dtype)
    mesh, model = make_mesh(config.mesh), build_model(config.model, SMALL_SPEC)
    tx = make_optimizer(config.optimizer, 1000)
    statistics = np.full(SMALL_SPEC.f, -4.0, np.float32), np.full(SMALL_SPEC.f, 2.0, np.float32)
    state = init_state(model, tx, jax.random.key(0), statistics)
    batch = jax.device_put(make_unpadded_batch(model, 4))
    step = jit_train_step(make_train_step(model, tx, config), state, mesh, fsdp=False)
    losses = []
    for _ in range(LOSS_STEPS):
        state, metrics = step(state, batch)
        losses.append(float(metrics["loss"]))
    return losses[-1] / losses[0]
