"""What every iterator over batches must do."""

import numpy as np


def check_position(make, before, after):
    """An iterator that begins with batch `before` gives the same `after` ones."""
    batches = make()
    for _ in range(before):
        next(batches)
    expected = [next(batches) for _ in range(after)]
    again = make(start=before)
    for batch in expected:
        other = next(again)
        np.testing.assert_array_equal(other.clip, batch.clip)
        np.testing.assert_array_equal(other.audio, batch.audio)
