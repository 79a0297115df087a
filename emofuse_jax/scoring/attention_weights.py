"""Scales attention weights so that 1 means uniform attention.

``r_i = n a_i / sum_j a_j``: a value of 1 is the weight that uniform attention over `n` positions would give,
independent of the length of the clip.
"""

import numpy as np
from jaxtyping import Bool, Float


def relative_attention(
    weights: Float[np.ndarray, "..."] | None, valid: Bool[np.ndarray, "..."] | None = None
) -> Float[np.ndarray, "..."] | None:
    """Returns attention weights divided by the weight of uniform attention, as float64 in the same shape.

    Weights at positions that are not `valid` become 0; NaN counts as 0. The valid positions have a mean of 1.

    Returns None if `weights` is None or empty, or if no valid position has a positive weight.
    """
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
    """Computes the relative attention of each video frame, 0 at frames that are not valid.

    Args:
      weights: attention over `l` positions; each position covers `s / l` consecutive frames (a snippet).
      valid: mask of the `s` frames. A position is valid if at least one of its frames is.

    Returns:
      The weight of each frame divided by the weight of uniform attention, as float64; all frames of a snippet
      have the same value. None if `weights` is None or empty, or if no valid position has a positive weight.

    Raises:
      ValueError: if `s` is not a multiple of `l`.
    """
    if weights is None or np.size(weights) == 0:
        return None
    valid_by_position = valid.reshape(len(weights), -1)  # s -> l s/l
    relative = relative_attention(weights, np.asarray(valid_by_position.any(axis=1)))
    return None if relative is None else np.where(valid, np.repeat(relative, valid_by_position.shape[1]), 0.0)


def attended_length(weights: Float[np.ndarray, " l"]) -> int:
    """Returns the number of positions up to the last one with a non-zero weight; 0 if there is none.

    Padding has weight 0, so this is the number of positions over the audio of the clip.
    """
    positions = np.flatnonzero(weights)
    return int(positions[-1]) + 1 if len(positions) else 0


def attended_columns(weights: Float[np.ndarray, "u *g"]) -> Float[np.ndarray, "v *g"] | None:
    """Returns attention weights without the padding at the end of the audio.

    The first axis has u audio positions; an optional second axis has g bands of frequency. The result has the
    first v of the u positions, up to the last one whose weights are not all 0. Returns None if all weights
    are 0, as for a clip without audio.
    """
    column_count = attended_length(weights.reshape(len(weights), -1).sum(axis=1))
    return weights[:column_count] if column_count else None
