"""What every family shares: taking a tensor by name, checking its shape, and laying it out as ours."""

from collections.abc import Callable, Iterable

import numpy as np

Tensors = dict[str, np.ndarray]
Rule = tuple[str, str, Callable[[np.ndarray], np.ndarray]]
"""(our name, public name, layout)."""


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


def same(array: np.ndarray) -> np.ndarray:
    """As it is."""
    return array


def norm_rules(ours: str, theirs: str) -> list[Rule]:
    """A batch normalisation: scale, bias and running statistics."""
    names = {"scale": "weight", "bias": "bias", "mean": "running_mean", "var": "running_var"}
    return [(f"{ours}/{a}", f"{theirs}.{b}", same) for a, b in names.items()]
