"""The three networks of MTCNN as pure functions over their list of weights.

K. Zhang, Z. Zhang, Z. Li, Y. Qiao, Joint Face Detection and Alignment using Multi-task Cascaded
Convolutional Networks, IEEE Signal Processing Letters 23(10), 2016. The weights are those that David
Sandberg's facenet took from the authors' Caffe models; these read each patch transposed, hence the swap of
rows and columns before the dense layers.
"""

import functools

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, UInt8

from data_prep.faces.weights import load_weights

PNET_CELL_SIZE, PNET_STRIDE = 12, 2
"""P-net looks at squares of 12 pixels, one every 2 pixels."""
PNET_BORDER_CELLS = 5
"""A side of even length `l` gives `l / 2 - 5` cells."""
Weights = list[Array]


@functools.cache
def get_weights(name: str) -> Weights:
    """Weights of one network on the default device, read once per process."""
    return [jnp.asarray(array) for array in load_weights(name)]


def _normalise(images):
    return (images.astype(jnp.float32) - 127.5) / 128


def _conv(x, kernel, bias, slope):
    dims = ("NHWC", "HWIO", "NHWC")
    return _prelu(lax.conv_general_dilated(x, kernel, (1, 1), "VALID", dimension_numbers=dims) + bias, slope)


def _prelu(x, slope):
    return jnp.maximum(x, 0) + slope * jnp.minimum(x, 0)


def _max_pool(x, size, padding="VALID"):
    return lax.reduce_window(x, -jnp.inf, lax.max, (1, size, size, 1), (1, 2, 2, 1), padding)


def _flatten(x):
    return x.swapaxes(1, 2).reshape(x.shape[0], -1)  # n h w d -> n w*h*d


def _face_probability(logits):
    return jax.nn.softmax(logits)[..., 1:]  # class 1 is "face"


def _run_pnet_level(x, w: Weights):
    x = _max_pool(_conv(_normalise(x), *w[0:3]), 2, "SAME")
    x = _conv(_conv(x, *w[3:6]), *w[6:9])
    offset = x @ w[9][0, 0] + w[10]  # n i j 4
    score = _face_probability(x @ w[11][0, 0] + w[12])  # n i j 1
    return jnp.concatenate([offset, score], -1).reshape(x.shape[0], -1, 5)  # n i*j 5


@jax.jit
def pnet(levels: tuple[UInt8[Array, "n _ _ 3"], ...], w: Weights) -> Float[Array, "n p 5"]:
    """Proposals of every cell of every pyramid level: four box offsets (shares of the cell) and a score."""
    return jnp.concatenate([_run_pnet_level(level, w) for level in levels], 1)


@jax.jit
def rnet(patches: UInt8[Array, "n 24 24 3"], w: Weights) -> Float[Array, "n 5"]:
    """Four box offsets (shares of the patch) and a score for each candidate."""
    x = _max_pool(_conv(_normalise(patches), *w[0:3]), 3, "SAME")
    x = _max_pool(_conv(x, *w[3:6]), 3)
    x = _flatten(_conv(x, *w[6:9]))
    x = _prelu(x @ w[9] + w[10], w[11])
    return jnp.concatenate([x @ w[12] + w[13], _face_probability(x @ w[14] + w[15])], -1)


@jax.jit
def onet(patches: UInt8[Array, "n 48 48 3"], w: Weights) -> Float[Array, "n 15"]:
    """Four box offsets, a score, and five landmarks (all x, then all y; shares of the patch)."""
    x = _max_pool(_conv(_normalise(patches), *w[0:3]), 3, "SAME")
    x = _max_pool(_conv(x, *w[3:6]), 3)
    x = _max_pool(_conv(x, *w[6:9]), 2, "SAME")
    x = _flatten(_conv(x, *w[9:12]))
    x = _prelu(x @ w[12] + w[13], w[14])
    return jnp.concatenate([x @ w[15] + w[16], _face_probability(x @ w[19] + w[20]), x @ w[17] + w[18]], -1)
