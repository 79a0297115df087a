"""What every iterator over batches must do."""

import numpy as np


def check_resuming(make_batches, num_before, num_after):
    """An iterator that begins with batch `num_before` gives the same `num_after` ones."""
    batches = make_batches()
    for _ in range(num_before):
        next(batches)
    expected = [next(batches) for _ in range(num_after)]
    resumed = make_batches(start=num_before)
    for batch in expected:
        actual = next(resumed)
        np.testing.assert_array_equal(actual.clip, batch.clip)
        np.testing.assert_array_equal(actual.audio, batch.audio)
