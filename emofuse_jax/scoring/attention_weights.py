"""Attention weights relative to even attention.

``r_i = n a_i / sum_j a_j``, so 1 is what a network without attention would give, whatever the length of the
clip.
"""

import numpy as np
from jaxtyping import Bool, Float


def relative_attention(
    weights: Float[np.ndarray, "..."] | None, valid: Bool[np.ndarray, "..."] | None = None
) -> Float[np.ndarray, "..."] | None:
    """Attention over even attention, 0 where not `valid`; None where there is none to show."""
    if weights is None or np.size(weights) == 0:
        return None
    weights = np.nan_to_num(np.asarray(weights, np.float64))
    if valid is not None:
        weights = np.where(valid, weights, 0.0)
    count = weights.size if valid is None else int(np.sum(valid))
    total = weights.sum()
    return weights * count / total if total > 0 else None


def relative_frame_attention(
    weights: Float[np.ndarray, " l"] | None, valid: Bool[np.ndarray, " s"]
) -> Float[np.ndarray, " s"] | None:
    """Relative attention of each frame, where `l` positions are equal runs of the `s` frames (snippets)."""
    if weights is None or np.size(weights) == 0:
        return None
    valid_by_position = valid.reshape(len(weights), -1)  # s -> l s/l
    relative = relative_attention(weights, valid_by_position.any(axis=1))
    return None if relative is None else np.where(valid, np.repeat(relative, valid_by_position.shape[1]), 0.0)


def attended_length(weights: Float[np.ndarray, " l"]) -> int:
    """Positions up to the last one with a weight: those over a clip's sound, since padding has none."""
    positions = np.flatnonzero(weights)
    return int(positions[-1]) + 1 if len(positions) else 0


def attended_columns(weights: Float[np.ndarray, "u *g"]) -> Float[np.ndarray, "v *g"] | None:
    """The columns of a clip's attention that lie over its sound, not over its padding; None without sound."""
    column_count = attended_length(weights.reshape(len(weights), -1).sum(axis=1))
    return weights[:column_count] if column_count else None
