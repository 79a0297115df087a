"""Tracks the best validation result of a run, and decides when to stop early."""

import dataclasses
from typing import cast

from emofuse_jax.training.checkpoint.metadata import TrackerFields


@dataclasses.dataclass
class EarlyStoppingTracker:
    """Best validation result so far; stored in every checkpoint."""

    best_ua: float | None = -1.0
    """Best validation UA; None if no clips are held out, so that the last epoch counts as the best."""
    best_step: int = 0
    """Step of the best epoch."""
    since_best: int = 0
    """Number of epochs since the best one."""
    temperature: float = 1.0
    """Temperature for the predictions of the best parameters (emofuse_jax/scoring/calibration.py)."""

    def update(self, ua: float | None, step: int) -> bool:
        """Updates the best result with the validation UA of an epoch (a fraction), which ended at `step`.

        Returns True if this epoch is better than all before, also for the first epoch; then sets `best_ua`
        and `best_step`, and `since_best` to 0. Else returns False, and adds 1 to `since_best`. Without
        validation (`ua` is None), every epoch counts as the best. Does not change `temperature`.
        """
        if ua is None:
            is_best = True
        else:
            assert self.best_ua is not None  # a run validates in all of its epochs or in none
            is_best = ua > self.best_ua
        if is_best:
            self.best_ua, self.best_step, self.since_best = ua, step, 0
        else:
            self.since_best += 1
        return is_best

    def to_json(self) -> TrackerFields:
        """Returns a dict for JSON of the fields `best_ua`, `best_step`, `since_best` and `temperature`.

        They are the best validation UA (a fraction, or None), its step, the number of epochs since then, and
        the temperature for predictions. `EarlyStoppingTracker(**saved)` restores them.
        """
        return cast(TrackerFields, dataclasses.asdict(self))

    def should_stop_early(self, patience: int) -> bool:
        """Returns True after at least `patience` epochs without improvement, else False; 0 never stops."""
        return 0 < patience <= self.since_best
