"""Checks that the shapes of a caller's arrays fit together."""

from collections.abc import Mapping


def check_shapes(arrays: Mapping[str, tuple[object, str]], sizes: Mapping[str, int] | None = None) -> None:
    """Raises ValueError if a value is no array or does not have the shape that its pattern describes.

    A pattern lists the names of dimensions, such as `"b t f"`; the same name means the same size in all
    arrays. `...` at the beginning stands for any leading dimensions.

    Args:
      arrays: pairs (array, pattern) by the name of the array.
      sizes: known sizes by name of the dimension, which the arrays must have.

    Raises:
      ValueError: for the first array that does not fit: one line with its name, its shape (or its type if it
        has no shape), the pattern and the expected sizes.

    Example:
      >>> check_shapes({"x": (np.zeros((2, 3)), "... m"), "u": (np.zeros((4, 8)), "m k")})
      Traceback (most recent call last):
      ValueError: u: shape (4, 8), expected (m, k) with m=3
    """
    known = dict(sizes or {})
    for name, (array, pattern) in arrays.items():
        dimensions, shape = pattern.split(), getattr(array, "shape", None)
        expected = ", ".join(dimensions)
        if shape is None:
            raise ValueError(f"{name}: {type(array).__name__}, expected an array of shape ({expected})")
        is_trailing = dimensions[0] == "..."
        letters = dimensions[is_trailing:]
        fits = len(shape) >= len(letters) if is_trailing else len(shape) == len(letters)
        trailing = shape[len(shape) - len(letters) :] if fits else ()
        bound = {letter: known[letter] for letter in letters if letter in known}
        if not fits or any(
            known.setdefault(*pair) != pair[1] for pair in zip(letters, trailing, strict=True)
        ):
            details = ", ".join(f"{letter}={size}" for letter, size in bound.items())
            raise ValueError(
                f"{name}: shape {shape}, expected ({expected})" + (f" with {details}" if details else "")
            )
