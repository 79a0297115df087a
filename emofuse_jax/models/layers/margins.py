"""Relations between classes that the objectives use: polarities, and learned margins.

Reference: Mocanu et al., 2023, Image and Vision Computing 133.
"""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Int
from ml_collections import ConfigDict

MARGIN_KINDS = ("none", "triplet", "hierarchical")

MARGIN_DEFAULTS = {"kind": "none", "mean": 0.2, "across": 2.0}
"""Default config fields of the margins.

`kind` is `none`, `triplet` (all margins are equal at first) or `hierarchical` (margins between classes of
different polarity are at first `across` times larger). `mean` is the mean margin over all pairs of different
classes; training does not change it.
"""


class Margins(nnx.Module):
    """Learned margins between classes: `M_ij = M_ji = m0 P softmax(theta)_{ij}` over the P pairs i < j.

    M is symmetric, not negative, and 0 on the diagonal. Its mean off the diagonal is always m0
    (`config.mean`).

    Raises:
      ValueError: if `config.kind` is not "triplet" or "hierarchical", or `mean` or `across` is not positive.
    """

    def __init__(self, config: ConfigDict, polarity: Int[np.ndarray, " c"]) -> None:
        if config.kind not in MARGIN_KINDS[1:]:
            raise ValueError(
                f"config.model.margins.kind: {config.kind!r}, expected one of {', '.join(MARGIN_KINDS)}"
            )
        for name in ("mean", "across"):
            if config[name] <= 0:
                raise ValueError(f"config.model.margins.{name}: {config[name]}, expected a positive number")
        self.classes, self.mean = len(polarity), config.mean
        i, j = np.triu_indices(self.classes, k=1)
        is_across = (polarity[i] != polarity[j]) & (config.kind == "hierarchical")
        self.theta = nnx.Param(jnp.where(is_across, jnp.log(config.across), 0.0))

    def __call__(self) -> Float[Array, "c c"]:
        """Returns the symmetric matrix M of margins, one for each pair of classes; 0 on the diagonal.

        The others are positive, and their mean is `config.mean`.
        """
        i, j = np.triu_indices(self.classes, k=1)
        pair_margins = self.mean * len(i) * jax.nn.softmax(self.theta[...])
        upper = jnp.zeros((self.classes, self.classes)).at[i, j].set(pair_margins)
        return upper + upper.T


class ClassRelations(nnx.Module):
    """Polarities and learned margins of the classes, for the objectives.

    If margins are on and the polarities are not known, all classes have the same polarity.

    Raises:
      ValueError: if `config.polarity` is not empty and its length is not the number of classes, or if a field
        of `config.margins` has a value that is not possible.
    """

    def __init__(self, config: ConfigDict, classes: int) -> None:
        polarity = _read_polarity(tuple(config.polarity), classes)
        self.polarity = None if polarity is None else tuple(polarity.tolist())
        if config.margins.kind != "none":
            self.margins = Margins(config.margins, np.zeros(classes, int) if polarity is None else polarity)

    def __call__(self) -> dict[str, Array]:
        """Returns a dict with `margins` [c c], one for each pair of classes, and `polarity` [c].

        `margins` is symmetric, with 0 on the diagonal, and missing if `config.margins.kind` is "none".
        `polarity`, the integers of `config.polarity` (-1, 0 or 1), is missing if that is empty.
        """
        aux = {"margins": self.margins()} if hasattr(self, "margins") else {}
        return aux if self.polarity is None else aux | {"polarity": jnp.array(self.polarity)}


def _read_polarity(values: tuple[int, ...], classes: int) -> Int[np.ndarray, " c"] | None:
    """Returns the polarities as an int64 array, or None if `values` is empty.

    Raises ValueError if there is not one for each of the `classes`; the values are not checked.
    """
    if not len(values):
        return None
    if len(values) != classes:
        raise ValueError(
            f"config.model.polarity: {len(values)} numbers, expected one for each of {classes} classes: -1, 0"
            " or 1"
        )
    return np.asarray(values, np.int64)
