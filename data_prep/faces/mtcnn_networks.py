"""Implements the three networks of MTCNN as pure functions of an input and a list of weights.

K. Zhang, Z. Zhang, Z. Li, Y. Qiao, Joint Face Detection and Alignment using Multi-task Cascaded Convolutional
Networks, IEEE Signal Processing Letters 23(10), 2016. The weights come from David Sandberg's facenet, which
converted the authors' Caffe models. Those models read transposed patches, so rows and columns are swapped
before the dense layers.
"""

import functools

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, UInt8

from data_prep.faces.weights import load_weights

PNET_CELL_SIZE, PNET_STRIDE = 12, 2
"""Side of P-net's receptive field and its stride, in pixels."""
PNET_BORDER_CELLS = 5
"""Cells lost at the border: a side of even length `l` has `l / 2 - 5` cells."""
Weights = list[Array]


@functools.cache
def get_weights(name: str) -> Weights:
    """Returns the weights of one network (`pnet`, `rnet` or `onet`) on the default device, cached by name.

    They are a list of float32 JAX arrays: for each layer, in order, kernel ([height width in out], or [in
    out] of a dense layer), bias and, if PReLU follows, its slope. Raises ModuleNotFoundError if the `mtcnn`
    wheel with the weights, or joblib, is not installed, OSError if the wheel has no such file or it can't be
    read, ValueError if the file has another SHA-256 or lz4 is not installed.
    """
    return [jnp.asarray(array) for array in load_weights(name)]


def _normalise(images: UInt8[Array, "n h w 3"]) -> Float[Array, "n h w 3"]:
    return (images.astype(jnp.float32) - 127.5) / 128


def _conv(
    x: Float[Array, "n h w c"],
    kernel: Float[Array, "_ _ c d"],
    bias: Float[Array, "..."],
    slope: Float[Array, "..."],
) -> Float[Array, "n _ _ d"]:
    dims = ("NHWC", "HWIO", "NHWC")
    return _prelu(lax.conv_general_dilated(x, kernel, (1, 1), "VALID", dimension_numbers=dims) + bias, slope)


def _prelu(x: Float[Array, "*shape"], slope: Float[Array, "..."]) -> Float[Array, "*shape"]:
    return jnp.maximum(x, 0) + slope * jnp.minimum(x, 0)


def _max_pool(x: Float[Array, "n h w c"], size: int, padding: str = "VALID") -> Float[Array, "n _ _ c"]:
    return lax.reduce_window(x, -jnp.inf, lax.max, (1, size, size, 1), (1, 2, 2, 1), padding)


def _flatten(x: Float[Array, "n h w d"]) -> Float[Array, "n w*h*d"]:
    return x.swapaxes(1, 2).reshape(x.shape[0], -1)


def _face_probability(logits: Float[Array, "*shape 2"]) -> Float[Array, "*shape 1"]:
    return jax.nn.softmax(logits)[..., 1:]  # class 1 is "face"


def _run_pnet_level(level: UInt8[Array, "n h w 3"], w: Weights) -> Float[Array, "n p 5"]:
    x = _max_pool(_conv(_normalise(level), *w[0:3]), 2, "SAME")
    x = _conv(_conv(x, *w[3:6]), *w[6:9])
    offset = x @ w[9][0, 0] + w[10]  # n i j 4
    score = _face_probability(x @ w[11][0, 0] + w[12])  # n i j 1
    return jnp.concatenate([offset, score], -1).reshape(x.shape[0], -1, 5)  # n i*j 5


@jax.jit
def pnet(levels: tuple[UInt8[Array, "n _ _ 3"], ...], w: Weights) -> Float[Array, "n p 5"]:
    """Computes offsets of x0, y0, x1, y1 and a face score, 0 to 1, for each cell of an image pyramid.

    `levels` has one array for each pyramid level, with n RGB frames at the size of the level. Cells are
    squares of 12 pixels, 2 pixels apart; offsets are fractions of their side. The p cells of a frame are
    those of all levels, one level after the other, row by row. `w` are the weights of P-net.
    """
    return jnp.concatenate([_run_pnet_level(level, w) for level in levels], 1)


@jax.jit
def rnet(patches: UInt8[Array, "n 24 24 3"], w: Weights) -> Float[Array, "n 5"]:
    """Computes offsets of x0, y0, x1, y1 and a face score, 0 to 1, for each of n patches.

    The patches are RGB; offsets are fractions of their side. `w` are the weights of R-net.
    """
    x = _max_pool(_conv(_normalise(patches), *w[0:3]), 3, "SAME")
    x = _max_pool(_conv(x, *w[3:6]), 3)
    x = _flatten(_conv(x, *w[6:9]))
    x = _prelu(x @ w[9] + w[10], w[11])
    return jnp.concatenate([x @ w[12] + w[13], _face_probability(x @ w[14] + w[15])], -1)


@jax.jit
def onet(patches: UInt8[Array, "n 48 48 3"], w: Weights) -> Float[Array, "n 15"]:
    """Computes 15 numbers for each of n patches: four box offsets, a face score, five landmarks.

    The patches are RGB. The offsets are of x0, y0, x1, y1, the score is from 0 to 1, and the landmarks are
    all x, then all y, from the patch's top left corner; offsets and landmarks are fractions of the patch's
    side. `w` are the weights of O-net.
    """
    x = _max_pool(_conv(_normalise(patches), *w[0:3]), 3, "SAME")
    x = _max_pool(_conv(x, *w[3:6]), 3)
    x = _max_pool(_conv(x, *w[6:9]), 2, "SAME")
    x = _flatten(_conv(x, *w[9:12]))
    x = _prelu(x @ w[12] + w[13], w[14])
    return jnp.concatenate([x @ w[15] + w[16], _face_probability(x @ w[19] + w[20]), x @ w[17] + w[18]], -1)
