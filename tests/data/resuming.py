"""What every iterator over batches must do."""

import numpy as np


def check_position(make, before, after):
    """A fresh iterator that is given the position after `before` batches gives the same `after` ones."""
    batches = make()
    for _ in range(before):
        next(batches)
    position = batches.get_state()
    expected = [next(batches) for _ in range(after)]
    again = make()
    again.set_state(position)
    for batch in expected:
        other = next(again)
        np.testing.assert_array_equal(other.clip, batch.clip)
        np.testing.assert_array_equal(other.audio, batch.audio)
