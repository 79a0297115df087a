import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from jax.test_util import check_grads

from emofuse_jax.ops.hgr import correct_ema_bias, covariance, moving_covariance, soft_hgr
from tests.golden import formulas

RNG = np.random.default_rng(4)


def whitened_features(m, k):
    """`k` centred features whose covariance, divided by m - 1, is exactly the identity."""
    x = RNG.normal(size=(m, k))
    q, _ = np.linalg.qr(x - x.mean(0))
    return q * np.sqrt(m - 1)


def test_identical_whitened_features_give_half_their_number():
    f = jnp.asarray(whitened_features(100, 4), jnp.float32)
    assert soft_hgr(f, f) == pytest.approx(2.0, abs=1e-5)


def test_correlated_features_at_the_best_scale():
    pair = whitened_features(200, 8)
    x, noise = pair[:, :4], pair[:, 4:]
    rho = 0.6
    y = rho * x + np.sqrt(1 - rho**2) * noise
    scale = np.sqrt(rho)
    features = [jnp.asarray(scale * a, jnp.float32) for a in (x, y)]
    assert soft_hgr(*features) == pytest.approx(0.72, abs=1e-5)


def test_a_label_term_is_at_most_half_of_the_classes_less_one():
    k, label = 5, np.repeat(np.arange(5), 12)
    onehot = np.eye(k)[label]
    basis, _ = np.linalg.qr(onehot - onehot.mean(0))
    f = jnp.asarray(basis[:, : k - 1] * np.sqrt(len(label) - 1), jnp.float32)
    assert soft_hgr(f, f) == pytest.approx((k - 1) / 2, abs=1e-5)
    for scale in (0.5, 0.9, 1.1, 2.0):
        assert soft_hgr(scale * f, f * scale) < (k - 1) / 2


@pytest.mark.parametrize(("m", "expected"), [(32, -35.0), (512, 28.0)])
def test_bias_on_white_noise(m, expected):
    f = jnp.asarray(RNG.normal(size=(40, m, 64)), jnp.float32)
    if m == 32:
        with pytest.warns(UserWarning, match="width 64 is over a quarter of the batch"):
            values = jax.vmap(soft_hgr)(f, f)
    else:
        values = jax.vmap(soft_hgr)(f, f)
    spread = np.asarray(values).std() / np.sqrt(len(values))
    assert abs(values.mean() - expected) < 4 * spread + 0.5


def test_equals_the_formula_and_weights_are_counts():
    f, g = RNG.normal(size=(9, 2)), RNG.normal(size=(9, 2))
    features = [jnp.asarray(a, jnp.float32) for a in (f, g)]
    assert soft_hgr(*features) == pytest.approx(formulas.soft_hgr(f, g), abs=1e-5)
    weight = np.array([1, 0, 1, 2, 1, 0, 1, 1, 3])
    repeated = formulas.soft_hgr(np.repeat(f, weight, 0), np.repeat(g, weight, 0))
    assert soft_hgr(*features, jnp.asarray(weight, jnp.float32)) == pytest.approx(repeated, abs=1e-5)


@pytest.mark.parametrize("counted", [0, 1])
def test_finite_when_fewer_than_two_rows_count(counted):
    f = jnp.asarray(RNG.normal(size=(8, 2)), jnp.float32)
    weight = (jnp.arange(8) < counted).astype(jnp.float32)
    value, gradient = jax.value_and_grad(soft_hgr)(f, f, weight)
    assert value == 0
    assert np.all(np.isfinite(gradient))


def test_gradients():
    with jax.enable_x64(True):
        features = RNG.normal(size=(12, 3)), RNG.normal(size=(12, 3))
        check_grads(jax.jit(soft_hgr), [jnp.asarray(a) for a in features], order=1, modes=["rev"])


def test_one_device_and_eight_agree():
    f, g = (jnp.asarray(RNG.normal(size=(64, 8)), jnp.float32) for _ in range(2))
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    rows = NamedSharding(mesh, PartitionSpec("data"))
    sharded = jax.jit(soft_hgr)(jax.device_put(f, rows), jax.device_put(g, rows))
    assert float(sharded) == pytest.approx(float(soft_hgr(f, g)), rel=1e-5)


def test_covariance_of_counted_rows():
    x, weight = RNG.normal(size=(9, 3)), np.array([1, 0, 1, 2, 1, 0, 1, 1, 3])
    rows = jnp.asarray(np.where(weight[:, None] > 0, x, np.nan), jnp.float32)
    actual = covariance(rows, jnp.asarray(weight, jnp.float32))
    np.testing.assert_allclose(actual, np.cov(np.repeat(x, weight, 0).T), atol=1e-5)
    assert np.all(np.asarray(covariance(rows[:1])) == 0)


def test_a_covariance_where_rows_count_in_part():
    x, weight = RNG.normal(size=(2, 3)), np.array([0.5, 1.0])
    actual = covariance(jnp.asarray(x, jnp.float32), jnp.asarray(weight, jnp.float32))
    centred = x - weight @ x / 1.5
    np.testing.assert_allclose(actual, (weight[:, None] * centred).T @ centred / 0.5, rtol=1e-5)
    assert np.all(np.asarray(covariance(jnp.asarray(x, jnp.float32), jnp.asarray(weight / 4))) == 0)


def test_given_covariances_replace_those_of_the_batch(recwarn):
    f, g, c_f, c_g = (jnp.asarray(RNG.normal(size=s), jnp.float32) for s in ((6, 3), (6, 3), (3, 3), (3, 3)))
    c_f, c_g = c_f @ c_f.T, c_g @ c_g.T
    shared = sum((f - f.mean(0)).T[i] @ (g - g.mean(0)).T[i] for i in range(3)) / 5
    expected = shared - 0.5 * np.trace(np.asarray(c_f) @ np.asarray(c_g))
    assert soft_hgr(f, g, covariances=(c_f, c_g)) == pytest.approx(float(expected), rel=1e-4)
    assert soft_hgr(f, g, jnp.zeros(6), covariances=(c_f, c_g)) == 0
    assert not recwarn.list
    batch_covariances = covariance(f), covariance(g)
    with pytest.warns(UserWarning, match="width 3 is over a quarter of the batch"):
        batch_value = soft_hgr(f, g)
    assert soft_hgr(f, g, covariances=batch_covariances) == pytest.approx(float(batch_value), rel=1e-5)


@pytest.mark.parametrize(("rows", "warned"), [(12, True), (15, True), (16, False)])
def test_only_a_width_above_a_quarter_of_the_batch_is_warned_of(rows, warned, recwarn):
    f = jnp.asarray(RNG.normal(size=(rows, 4)), jnp.float32)
    soft_hgr(f, f)
    assert bool(recwarn.list) == warned


def test_the_moving_covariance_is_the_average_of_the_batches():
    batches, decay = RNG.normal(size=(5, 8, 3)), 0.7
    total, count = jnp.zeros((3, 3)), jnp.zeros(())
    for x in batches:
        value, total, count = moving_covariance(jnp.asarray(x, jnp.float32), None, total, count, decay=decay)
    share = (1 - decay) * decay ** np.arange(4, -1, -1)
    expected = sum(s * np.cov(x.T) for s, x in zip(share, batches, strict=True)) / share.sum()
    np.testing.assert_allclose(value, expected, atol=1e-5)
    np.testing.assert_allclose(correct_ema_bias(total, count, decay=decay), expected, atol=1e-5)
    for counted in (0, 1):  # a batch of fewer than two rows changes nothing
        weight = (jnp.arange(8) < counted).astype(jnp.float32)
        arguments = jnp.asarray(batches[0], jnp.float32), weight, total, count
        new_value, new_total, new_count = moving_covariance(*arguments, decay=decay)
        np.testing.assert_array_equal(new_total, total)
        assert (new_count, count) == (5, 5)
        np.testing.assert_allclose(new_value, value, atol=1e-6)
    assert np.all(np.asarray(correct_ema_bias(jnp.zeros((3, 3)), jnp.zeros(()), decay=decay)) == 0)


def test_the_moving_covariance_passes_the_whole_gradient_of_the_batch():
    x, weights = jnp.asarray(RNG.normal(size=(8, 3)), jnp.float32), jnp.asarray(RNG.normal(size=(3, 3)))

    def of_moving(x):
        return jnp.sum(weights * moving_covariance(x, None, jnp.eye(3), jnp.float32(4), decay=0.9)[0])

    moving, batch = jax.grad(of_moving)(x), jax.grad(lambda x: jnp.sum(weights * covariance(x)))(x)
    np.testing.assert_allclose(moving, batch, atol=1e-6)


def test_small_batches_reach_the_best_scale_with_moving_covariances():
    """Eight white features in batches of eight rows: H of their scale s is best at s = 1."""
    x, decay = jnp.asarray(RNG.normal(size=(400, 8, 8)), jnp.float32), 0.95

    @jax.jit
    def climb(scale, total, count, rows):
        def value(scale):
            f = scale * rows
            c, new_total, new_count = moving_covariance(f, None, total, count, decay=decay)
            return soft_hgr(f, f, covariances=(c, c)), (new_total, new_count)

        slope, moments = jax.grad(value, has_aux=True)(scale)
        return scale + 0.004 * slope, *moments

    carry = jnp.float32(1.5), jnp.zeros((8, 8)), jnp.zeros(())
    scales = []
    for rows in x:
        carry = climb(*carry, rows)
        scales.append(float(carry[0]))
    assert np.mean(scales[200:]) == pytest.approx(1.0, abs=0.06)
