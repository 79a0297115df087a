"""Product of vectors and a matrix whose gradient is fast on every backend."""

from typing import Any

import jax
from jaxtyping import Array, Float


def matmul_last_axis(
    x: Float[Array, "*batch m"],
    kernel: Float[Array, "m n"],
    **options: Any,  # noqa: ANN401
) -> Float[Array, "*batch n"]:
    """Multiplies the last axis of `x` by a matrix: `x W`.

    The other axes are first merged into one, because XLA's CPU backend is slow at summing the gradient of W
    over two axes.

    Args:
      x: vectors.
      kernel: matrix W.
      **options: keyword arguments of `jax.lax.dot_general`, such as `preferred_element_type`.

    Returns:
      The products, with the leading axes of `x` and the columns of W as the last axis; in
      `preferred_element_type` if it is passed, otherwise in the dtype of `x` and W (promoted as in NumPy if
      they differ, such as bfloat16 and float32 to float32).

    Raises:
      TypeError: if the width m of `x` is not the number of rows of W.
    """
    rows = x.reshape(-1, x.shape[-1])
    return jax.lax.dot_general(rows, kernel, (((1,), (0,)), ((), ())), **options).reshape(*x.shape[:-1], -1)
