"""Conversion of public weights, shared by all network families: rules, layouts and shape checks."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import numpy as np
from jaxtyping import PyTree

Tensors = dict[str, np.ndarray]
"""Arrays by name."""
ConversionRule = tuple[str, str, Callable[[np.ndarray], np.ndarray]]
"""Rule for one tensor: (our name, public name, function that changes its layout to ours)."""


def flatten_by_path(tree: PyTree) -> dict[str, Any]:
    """Returns a dict of the leaves of nested dicts by path (`audio/kernel`).

    The leaves are in the order of their paths: at each level, keys are sorted.
    """
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}


def convert_tensors(
    tensors: Tensors, shapes: Mapping[str, tuple[int, ...]], rules: Iterable[ConversionRule]
) -> Tensors:
    """Converts public tensors with the given rules; returns a dict of float32 arrays by the names of emofuse.

    Args:
      tensors: NumPy arrays of the public network by their public name.
      shapes: expected shapes by the name in emofuse.
      rules: one rule `(our_name, public_name, change_layout)` for each array: its names in emofuse and in
        `tensors`, and a function that changes the layout of the public array to that of emofuse.

    Returns:
      One array for each rule; other entries of `tensors` and `shapes` are left out.

    Raises:
      ValueError: if a tensor is missing, `shapes` has no entry for our name of a rule, or a tensor does not
        have the shape of our parameter after its layout is changed; the message names the tensor.
    """
    arrays = {}
    for our_name, public_name, change_layout in rules:
        if public_name not in tensors:
            raise ValueError(
                f"no tensor {public_name!r}, needed for parameter {our_name}; use a file with the weights of"
                " the public network that this encoder copies (docs/pretrained.md)"
            )
        if our_name not in shapes:
            raise ValueError(
                f"tensor {public_name!r}: the network has no parameter {our_name} for it; set"
                " config.model.audio.widths or config.model.video.blocks to the layers of the public network"
                " (docs/pretrained.md)"
            )
        array, expected_shape = np.asarray(tensors[public_name], np.float32), tuple(shapes[our_name])
        if array.ndim == len(expected_shape):
            array = np.ascontiguousarray(change_layout(array))
        if array.shape != expected_shape:
            raise ValueError(
                f"tensor {public_name!r} has shape {array.shape} in the layout of emofuse, expected"
                f" {expected_shape} for parameter {our_name}; set the sizes of the encoder"
                " (config.model.audio.widths and kernels, or config.model.video.width and stem_kernel) to"
                " those of the public network (docs/pretrained.md)"
            )
        arrays[our_name] = array
    return arrays


def transpose_kernel(weight: np.ndarray) -> np.ndarray:
    """Returns a PyTorch kernel [out in ...] in the layout [... in out], for any spatial axes `...`."""
    return np.moveaxis(weight, (1, 0), (-2, -1))


def conv_norm_rules(
    our_prefix: str, conv_name: str, norm_name: str, *, kernel: str = "kernel"
) -> list[ConversionRule]:
    """Returns the rules (our name, public name, layout function) of a convolution and of its batch norm.

    The first rule is for the kernel: `<our_prefix>/<kernel>` from `<conv_name>.weight`, whose layout
    `transpose_kernel` changes from [out in ...] to [... in out]. Four rules of the norm follow, without a
    change of layout: `<our_prefix>/norm/` with `scale`, `bias`, `mean` and `var` from `<norm_name>.` with
    `weight`, `bias`, `running_mean` and `running_var`.
    """
    return [
        (f"{our_prefix}/{kernel}", f"{conv_name}.weight", transpose_kernel),
        *batch_norm_rules(f"{our_prefix}/norm", norm_name),
    ]


def fold_pixel_normalization(
    arrays: Tensors, kernel_name: str, norm_mean_name: str, mean: tuple[float, ...], std: tuple[float, ...]
) -> Tensors:
    """Converts a stem for pixels `(p / 255 - mean) / std` to a stem for pixels in [-1, 1].

    It changes the kernel and the mean of the batch norm. Both stems compute the same, except at the border:
    padding with zeros is grey here, and the mean colour there.

    Args:
      arrays: arrays by our names.
      kernel_name: name of the kernel of the stem.
      norm_mean_name: name of the running mean of its batch norm.
      mean: mean of each colour channel, for pixels in [0, 1], in the order of the kernel's input channels
        (red, green, blue).
      std: standard deviation of each colour channel, in the same order.

    Returns:
      A copy of `arrays` with both arrays replaced, in float32.

    Raises:
      KeyError: if `arrays` has no array of one of the two names.
      ValueError: if the kernel does not have one input channel for each number of `mean` and `std`.
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
    """Returns the array unchanged: its layout is already ours."""
    return array


def batch_norm_rules(our_prefix: str, public_prefix: str) -> list[ConversionRule]:
    """Returns the rules (our name, public name, layout function) of a batch norm.

    There are four: `<our_prefix>/` with `scale`, `bias`, `mean` and `var`, from `<public_prefix>.` with
    `weight`, `bias`, `running_mean` and `running_var`; their layout does not change.
    """
    names = {"scale": "weight", "bias": "bias", "mean": "running_mean", "var": "running_var"}
    return [
        (f"{our_prefix}/{our_field}", f"{public_prefix}.{public_field}", keep_layout)
        for our_field, public_field in names.items()
    ]
