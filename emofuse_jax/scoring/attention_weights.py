"""Scales attention weights so that 1 means uniform attention.

``r_i = n a_i / sum_j a_j``: a value of 1 is the weight that uniform attention over `n` positions would give,
independent of the length of the clip.
"""

import numpy as np
from jaxtyping import Bool, Float


def relative_attention(
    weights: Float[np.ndarray, "..."] | None, valid: Bool[np.ndarray, "..."] | None = None
) -> Float[np.ndarray, "..."] | None:
    """Computes attention relative to uniform attention: `r_i = n a_i / sum_j a_j` over the n valid positions.

    Args:
      weights: attention weights `a`, of any shape and sum; NaN counts as 0.
      valid: boolean array of the same shape, False at positions to leave out. None: all positions are valid.

    Returns:
      The values `r` in float64, in the shape of `weights`: 0 at positions that are not valid, and with a mean
      of 1 over the others. None if `weights` is None or empty, or if no valid position has a positive weight.

    Raises:
      ValueError: if the shape of `valid` does not fit that of `weights`.
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
    """Computes the attention to each video frame relative to uniform attention; 0 at invalid frames.

    Args:
      weights: attention over `l` positions; each position covers `s / l` consecutive frames (a snippet).
      valid: mask of the `s` frames. A position is valid if at least one of its frames is.

    Returns:
      For each frame the weight of its position divided by the mean weight of the valid positions, as float64
      [s]; 0 at frames that are not valid. None if `weights` is None or empty, or if no valid position has a
      positive weight.

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
    are 0, as for a clip without audio. Raises ValueError if u is 0.
    """
    column_count = attended_length(weights.reshape(len(weights), -1).sum(axis=1))
    return weights[:column_count] if column_count else None
