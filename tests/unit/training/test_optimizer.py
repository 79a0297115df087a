import functools

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import optax
import pytest

from emofuse_jax import settings
from emofuse_jax.parallel.mesh import make_mesh, state_sharding
from emofuse_jax.training.optimizer import (
    evaluation_params,
    make_optimizer,
    make_schedule,
    muon_dimension_numbers,
    weight_decay_mask,
)


@pytest.fixture
def config():
    config = settings.experiment.optimizer_defaults()
    config.learning_rate = 0.1
    return config


def run_optimizer(tx, params, gradients):
    state = tx.init(params)
    for gradient in gradients:
        updates, state = tx.update(gradient, state, params)
        params = optax.apply_updates(params, updates)
    return params, state


def test_schedule_warms_up_then_falls_to_its_end(config):
    config.warmup, config.final_rate = 0.1, 0.01
    rate = make_schedule(config, 100)
    np.testing.assert_allclose([rate(0), rate(5), rate(10)], [0.0, 0.05, 0.1], rtol=1e-6)
    half = 0.1 * (0.01 + 0.99 * 0.5)
    np.testing.assert_allclose(rate(55), half, rtol=1e-5)
    np.testing.assert_allclose(rate(100), 0.001, rtol=1e-5)


@pytest.mark.parametrize(("warmup", "updates"), [(0.05, 624), (0.1, 7), (0.0, 50), (0.5, 1), (1.0, 20)])
def test_schedule_is_that_of_optax(config, warmup, updates):
    config.warmup, first = warmup, round(warmup * updates)
    theirs = optax.warmup_cosine_decay_schedule(
        0.0, 0.1, first, max(updates, first + 1), end_value=config.final_rate * 0.1
    )
    counts = jnp.arange(updates + 3)
    ours = jax.jit(lambda updates: make_schedule(config, updates)(counts))(updates)  # traced
    np.testing.assert_allclose(ours, theirs(counts), rtol=2e-5, atol=1e-8)


def test_only_kernels_decay():
    params = {"conv": {"kernel": jnp.ones((3, 3)), "bias": jnp.ones(3)}, "norm": {"scale": jnp.ones(3)}}
    mask = weight_decay_mask(params)
    assert mask == {"conv": {"kernel": True, "bias": False}, "norm": {"scale": False}}


def test_gradients_are_clipped(config):
    config.warmup, config.weight_decay = 0.0, 0.0
    small = run_optimizer(make_optimizer(config, 10), {"w": jnp.zeros(4)}, [{"w": jnp.full(4, 5.0)}] * 3)
    large = run_optimizer(make_optimizer(config, 10), {"w": jnp.zeros(4)}, [{"w": jnp.full(4, 5e6)}] * 3)
    np.testing.assert_allclose(small[0]["w"], large[0]["w"], rtol=1e-4)


def test_accumulated_halves_equal_the_whole_batch(config):
    config.weight_decay = 0.0
    rng = np.random.default_rng(0)
    halves = [{"w": jnp.asarray(rng.normal(size=4), jnp.float32)} for _ in range(8)]
    means = [jax.tree.map(lambda a, b: (a + b) / 2, *halves[i : i + 2]) for i in range(0, 8, 2)]
    full_batch_params, _ = run_optimizer(make_optimizer(config, 4), {"w": jnp.ones(4)}, means)
    config.accumulate = 2
    accumulated_params, _ = run_optimizer(make_optimizer(config, 8), {"w": jnp.ones(4)}, halves)
    np.testing.assert_allclose(accumulated_params["w"], full_batch_params["w"], rtol=1e-6)


def test_the_average_follows_its_formula(config):
    config.ema = 0.9
    params = {"w": jnp.ones(4)}
    tx = make_optimizer(config, 5)
    state, average = tx.init(params), np.ones(4)
    for _ in range(5):
        updates, state = tx.update({"w": jnp.array([1.0, -1.0, 2.0, 0.5])}, state, params)
        params = optax.apply_updates(params, updates)
        average = 0.9 * average + 0.1 * np.asarray(params["w"])
    np.testing.assert_allclose(evaluation_params(params, state)["w"], average, rtol=1e-6)
    assert (np.abs(np.asarray(params["w"]) - average) > 1e-3).all()


def test_the_average_of_gathered_batches_is_that_of_whole_ones(config):
    config.ema = 0.9
    gradients = [{"w": jnp.full(4, value)} for value in (1.0, -2.0, 3.0, 0.5)]
    full_batch_run = run_optimizer(make_optimizer(config, 4), {"w": jnp.ones(4)}, gradients)
    config.accumulate = 2
    accumulated_run = run_optimizer(
        make_optimizer(config, 8), {"w": jnp.ones(4)}, [g for g in gradients for _ in range(2)]
    )
    np.testing.assert_allclose(
        evaluation_params(*accumulated_run)["w"], evaluation_params(*full_batch_run)["w"], rtol=1e-6
    )


def first_step(config, params, gradients):
    config.update(name="muon", warmup=0.0, weight_decay=0.0)
    return run_optimizer(make_optimizer(config, 1000), params, [gradients])[0]


def test_muon_makes_steps_of_kernels_orthogonal(config):
    gradient = np.random.default_rng(0).normal(size=(6, 4))
    x = gradient.T / np.linalg.norm(gradient)
    for _ in range(5):  # Newton-Schulz, Jordan et al., 2024
        a = x @ x.T
        x = 3.4445 * x + (-4.775 * a + 2.0315 * a @ a) @ x
    after = first_step(config, {"kernel": jnp.zeros((6, 4))}, {"kernel": jnp.asarray(gradient)})["kernel"]
    np.testing.assert_allclose(after, -0.1 * 0.2 * np.sqrt(6) * x.T, rtol=1e-4, atol=1e-6)
    singular_values = np.linalg.svd(after, compute_uv=False) / (0.1 * 0.2 * np.sqrt(6))
    assert (singular_values > 0.6).all()
    assert (singular_values < 1.3).all()


def test_muon_takes_a_convolution_as_the_matrix_of_its_inputs_by_its_outputs(config):
    gradient = jnp.asarray(np.random.default_rng(1).normal(size=(3, 2, 5, 4)), jnp.float32)
    convolution_kernel = first_step(config, {"kernel": jnp.zeros((3, 2, 5, 4))}, {"kernel": gradient})[
        "kernel"
    ]
    matrix_kernel = first_step(config, {"kernel": jnp.zeros((30, 4))}, {"kernel": gradient.reshape(30, 4)})[
        "kernel"
    ]
    np.testing.assert_allclose(convolution_kernel.reshape(30, 4), matrix_kernel, rtol=1e-5)


def test_muon_leaves_classifiers_and_vectors_to_adam(config):
    params = {"head": {"linear": {"kernel": jnp.zeros((3, 2))}}, "norm": {"scale": jnp.ones(3)}}
    assert jax.tree.leaves(muon_dimension_numbers(params)) == []
    after = first_step(config, params, jax.tree.map(lambda p: 0.1 * (p + 2), params))
    moved = jax.tree.map(lambda a, b: np.abs(np.asarray(a - b)), after, params)
    step = 0.1 * (1 + 0.9 * 0.1 / (1 - 0.9**2))  # the first one of Nesterov's, for any gradient
    np.testing.assert_allclose(moved["head"]["linear"]["kernel"], step, rtol=1e-3)
    np.testing.assert_allclose(moved["norm"]["scale"], step, rtol=1e-3)


def test_muon_under_an_average_counts_its_updates(config):
    config.update(name="muon", ema=0.9)
    tx, params = make_optimizer(config, 4), {"kernel": jnp.ones((3, 2))}
    state, average = tx.init(params), np.ones((3, 2))
    for k in range(4):
        gradient = np.random.default_rng(k).normal(size=(3, 2))
        updates, state = tx.update({"kernel": jnp.asarray(gradient, jnp.float32)}, state, params)
        params = optax.apply_updates(params, updates)
        average = 0.9 * average + 0.1 * np.asarray(params["kernel"])
    np.testing.assert_allclose(evaluation_params(params, state)["kernel"], average, rtol=1e-5)


def test_muon_steps_alike_where_kernels_are_split_over_eight_devices(config):
    config.update(name="muon")
    tx, rng = make_optimizer(config, 10), np.random.default_rng(2)
    params = {"kernel": rng.normal(size=(512, 256)).astype(np.float32)}
    state, gradient = tx.init(params), {"kernel": rng.normal(size=(512, 256)).astype(np.float32)}
    mesh = make_mesh(ml_collections.ConfigDict({"data": -1}))
    inputs = (gradient, state, params)
    sharded_inputs = jax.device_put(inputs, state_sharding(inputs, mesh, fsdp=True))
    assert sharded_inputs[0]["kernel"].addressable_shards[0].data.shape == (64, 256)
    assert_close = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-6)
    jax.tree.map(assert_close, jax.jit(tx.update)(*sharded_inputs), jax.jit(tx.update)(*inputs))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"name": "sgd"}, r"config\.optimizer\.name='sgd': expected one of adamw, muon"),
        ({"accumulate": 0}, r"config\.optimizer\.accumulate=0: expected at least 1"),
        ({"ema": 1.0}, r"config\.optimizer\.ema=1.0: expected a number in \[0, 1\)"),
    ],
)
def test_what_can_not_be_is_refused(config, fields, message):
    config.update(fields)
    with pytest.raises(ValueError, match=message):
        make_optimizer(config, 10)


def test_without_an_average_the_parameters_themselves_are_scored(config):
    params = {"w": jnp.ones(2)}
    assert evaluation_params(params, make_optimizer(config, 5).init(params)) is params
