"""What every family shares: taking a tensor by name, checking its shape, and laying it out as ours."""

from collections.abc import Callable, Iterable

import jax
import numpy as np
from jaxtyping import PyTree

Tensors = dict[str, np.ndarray]
Rule = tuple[str, str, Callable[[np.ndarray], np.ndarray]]
"""(our name, public name, layout)."""


def by_name(tree: PyTree) -> dict:
    """Leaves of nested dicts by their path, `audio/kernel`, in the order of `jax.tree.leaves`."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}


def take(tensors: Tensors, shapes: dict[str, tuple], rules: Iterable[Rule]) -> Tensors:
    """Our arrays by our names.

    Raises:
      ValueError: a tensor is missing, or, laid out, has not the shape of our parameter; names it.
    """
    found = {}
    for ours, theirs, layout in rules:
        if theirs not in tensors:
            raise ValueError(f"no tensor {theirs!r}, expected it for {ours}")
        array = np.ascontiguousarray(layout(np.asarray(tensors[theirs], np.float32)))
        if array.shape != tuple(shapes[ours]):
            raise ValueError(
                f"tensor {theirs!r} gives {array.shape}, expected {tuple(shapes[ours])} of {ours}"
            )
        found[ours] = array
    return found


def kernel2d(weight: np.ndarray) -> np.ndarray:
    """PyTorch's [out in h w] as [h w in out]."""
    return weight.transpose(2, 3, 1, 0)


def meet_pixels(found: Tensors, kernel: str, norm: str, mean: tuple, std: tuple) -> Tensors:
    """Makes a stem for pixels in [-1, 1] of one for `(p / 255 - mean) / std`, by its kernel and norm's mean.

    Both see the same, but for the padding: a border of zeros is grey here, and the mean colour there.
    """
    scale, shift = 0.5 / np.asarray(std), (0.5 - np.asarray(mean)) / np.asarray(std)  # x' -> scale x' + shift
    weight = found[kernel]  # .. 3 d
    moved = found[norm] - np.einsum("icd,c->d", weight.reshape(-1, *weight.shape[-2:]), shift)
    scaled = weight * scale[:, None]
    return found | {kernel: scaled.astype(np.float32), norm: moved.astype(np.float32)}


def same(array: np.ndarray) -> np.ndarray:
    """As it is."""
    return array


def norm_rules(ours: str, theirs: str) -> list[Rule]:
    """A batch normalisation: scale, bias and running statistics."""
    names = {"scale": "weight", "bias": "bias", "mean": "running_mean", "var": "running_var"}
    return [(f"{ours}/{a}", f"{theirs}.{b}", same) for a, b in names.items()]
