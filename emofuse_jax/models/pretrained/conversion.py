"""What every family shares: taking a tensor by name, checking its shape, and laying it out as ours."""

from collections.abc import Callable, Iterable

import jax
import numpy as np
from jaxtyping import PyTree

Tensors = dict[str, np.ndarray]
ConversionRule = tuple[str, str, Callable[[np.ndarray], np.ndarray]]
"""(our name, public name, layout)."""


def flatten_by_path(tree: PyTree) -> dict:
    """Leaves of nested dicts by their path, `audio/kernel`, in the order of `jax.tree.leaves`."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}


def convert_tensors(tensors: Tensors, shapes: dict[str, tuple], rules: Iterable[ConversionRule]) -> Tensors:
    """Our arrays by our names.

    Raises:
      ValueError: a tensor is missing, or, laid out, has not the shape of our parameter; names it.
    """
    arrays = {}
    for our_name, public_name, change_layout in rules:
        if public_name not in tensors:
            raise ValueError(f"no tensor {public_name!r}, expected it for {our_name}")
        array = np.ascontiguousarray(change_layout(np.asarray(tensors[public_name], np.float32)))
        if array.shape != tuple(shapes[our_name]):
            raise ValueError(
                f"tensor {public_name!r} gives {array.shape}, expected {tuple(shapes[our_name])} of"
                f" {our_name}"
            )
        arrays[our_name] = array
    return arrays


def transpose_kernel(weight: np.ndarray) -> np.ndarray:
    """Lays out PyTorch's kernel [out in ...] as [... in out], for any number of spatial axes."""
    return np.moveaxis(weight, (1, 0), (-2, -1))


def conv_norm_rules(
    our_prefix: str, conv_name: str, norm_name: str, *, kernel: str = "kernel"
) -> list[ConversionRule]:
    """Returns the rules of a convolution, whose kernel we name `kernel`, and the batch norm after it."""
    return [
        (f"{our_prefix}/{kernel}", f"{conv_name}.weight", transpose_kernel),
        *batch_norm_rules(f"{our_prefix}/norm", norm_name),
    ]


def fold_pixel_normalization(
    arrays: Tensors, kernel_name: str, norm_mean_name: str, mean: tuple, std: tuple
) -> Tensors:
    """Makes a stem for pixels in [-1, 1] of one for `(p / 255 - mean) / std`, by its kernel and norm's mean.

    Both see the same, but for the padding: a border of zeros is grey here, and the mean colour there.
    """
    scale, shift = 0.5 / np.asarray(std), (0.5 - np.asarray(mean)) / np.asarray(std)  # x' -> scale x' + shift
    stem_kernel = arrays[kernel_name]  # .. 3 d
    shifted_mean = arrays[norm_mean_name] - np.einsum(
        "icd,c->d", stem_kernel.reshape(-1, *stem_kernel.shape[-2:]), shift
    )
    scaled_kernel = stem_kernel * scale[:, None]
    return arrays | {
        kernel_name: scaled_kernel.astype(np.float32),
        norm_mean_name: shifted_mean.astype(np.float32),
    }


def keep_layout(array: np.ndarray) -> np.ndarray:
    """As it is."""
    return array


def batch_norm_rules(our_prefix: str, public_prefix: str) -> list[ConversionRule]:
    """A batch normalisation: scale, bias and running statistics."""
    names = {"scale": "weight", "bias": "bias", "mean": "running_mean", "var": "running_var"}
    return [
        (f"{our_prefix}/{our_field}", f"{public_prefix}.{public_field}", keep_layout)
        for our_field, public_field in names.items()
    ]
