import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.test_util import check_grads

from emofuse_jax.ops.conv3d import conv3d

RNG = np.random.default_rng(5)


def formula(x, kernel, stride):
    """Every output of one snippet as a sum over the window."""
    half = [k // 2 for k in kernel.shape[:3]]
    padded = np.pad(x, [(h, h) for h in half] + [(0, 0)])
    counts = [(p - k) // s + 1 for p, k, s in zip(padded.shape[:3], kernel.shape[:3], stride, strict=True)]
    out = np.zeros((*counts, kernel.shape[-1]))
    for place in np.ndindex(*counts):
        window = tuple(
            slice(i * s, i * s + k) for i, s, k in zip(place, stride, kernel.shape[:3], strict=True)
        )
        out[place] = np.tensordot(padded[window], kernel, 4)
    return out


def make_data(size, kernel, inputs=2, outputs=3):
    x = RNG.normal(size=(2, *size, inputs)).astype(np.float32)
    return x, RNG.normal(size=(*kernel, inputs, outputs)).astype(np.float32)


@pytest.mark.parametrize(
    ("size", "kernel", "stride"),
    [
        ((4, 5, 6), (3, 3, 3), (1, 1, 1)),
        ((4, 6, 5), (3, 3, 3), (2, 2, 2)),
        ((5, 7, 7), (3, 7, 7), (1, 2, 2)),
        ((1, 3, 3), (3, 3, 3), (1, 1, 1)),  # two of the three steps see only zeros
        ((1, 3, 3), (7, 3, 3), (1, 1, 1)),
        ((3, 4, 4), (1, 1, 1), (2, 2, 2)),
        ((3, 5, 5), (3, 3, 3), (1, 4, 4)),  # whose step is the one in time
    ],
)
def test_equals_the_formula(size, kernel, stride):
    x, k = make_data(size, kernel)
    y = conv3d(jnp.asarray(x), jnp.asarray(k), stride=stride)
    np.testing.assert_allclose(y, np.stack([formula(one, k, stride) for one in x]), atol=1e-4)


def test_gradients_equal_those_of_the_three_dimensional_one():
    x, k = map(jnp.asarray, make_data((3, 4, 4), (3, 3, 3)))

    def ours(x, k):
        return conv3d(x, k, stride=(2, 2, 2))

    native = lax.conv_general_dilated(
        x, k, (2, 2, 2), [(1, 1)] * 3, dimension_numbers=("NDHWC", "DHWIO", "NDHWC")
    )
    np.testing.assert_allclose(ours(x, k), native, atol=1e-5)
    check_grads(jax.jit(ours), (x, k), order=1, modes=["rev"], atol=2e-2, rtol=2e-2)
