"""How categories relate, for the objectives: their polarity, and learnable margins between them.

Reference: Mocanu et al., 2023.
"""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Int

MARGIN_KINDS = ("none", "triplet", "hierarchical")

MARGIN_DEFAULTS = {"kind": "none", "mean": 0.2, "across": 2.0}
"""`none`, `triplet` (all equal at first) or `hierarchical` (at first `across` times larger between classes of
different polarity); `mean` over all pairs of different classes, which training does not change."""


class Margins(nnx.Module):
    """`M_ij = M_ji = m0 P softmax(theta)_{ij}` over the P pairs i < j, 0 on the diagonal.

    So M is symmetric, not negative, and its mean off the diagonal is m0 whatever theta becomes. Without known
    polarities all classes share one. Raises ValueError, naming the field.
    """

    def __init__(self, config, polarity: Int[np.ndarray, " c"]):
        if config.kind not in MARGIN_KINDS[1:]:
            raise ValueError(f"margins.kind: {config.kind!r}, expected one of {', '.join(MARGIN_KINDS)}")
        for name in ("mean", "across"):
            if config[name] <= 0:
                raise ValueError(f"margins.{name}: {config[name]}, expected a positive number")
        self.classes, self.mean = len(polarity), config.mean
        i, j = np.triu_indices(self.classes, k=1)
        is_across = (polarity[i] != polarity[j]) & (config.kind == "hierarchical")
        self.theta = nnx.Param(jnp.where(is_across, jnp.log(config.across), 0.0))

    def __call__(self) -> Float[Array, "c c"]:
        """M."""
        i, j = np.triu_indices(self.classes, k=1)
        pair_margins = self.mean * len(i) * jax.nn.softmax(self.theta[...])
        upper = jnp.zeros((self.classes, self.classes)).at[i, j].set(pair_margins)
        return upper + upper.T


class ClassRelations(nnx.Module):
    """What is known or learned of pairs of classes, for the objectives: `polarity` [c], `margins` [c c]."""

    def __init__(self, config, classes: int):
        polarity = _read_polarity(tuple(config.polarity), classes)
        self.polarity = None if polarity is None else tuple(polarity.tolist())
        if config.margins.kind != "none":
            self.margins = Margins(config.margins, np.zeros(classes, int) if polarity is None else polarity)

    def __call__(self) -> dict[str, Array]:
        """Those that there are, by name."""
        aux = {"margins": self.margins()} if hasattr(self, "margins") else {}
        return aux if self.polarity is None else aux | {"polarity": jnp.array(self.polarity)}


def _read_polarity(values: tuple, classes: int) -> Int[np.ndarray, " c"] | None:
    """`config.polarity` as an array, None where it is empty; raises ValueError on a wrong number."""
    if not len(values):
        return None
    if len(values) != classes:
        raise ValueError(f"model.polarity: {len(values)} numbers, expected one for each of {classes} classes")
    return np.asarray(values, np.int64)
