"""How far a run has come, and the best that it reached."""

import dataclasses


@dataclasses.dataclass
class EarlyStoppingTracker:
    """Progress that a checkpoint carries: the best validation so far."""

    best_ua: float | None = -1.0
    """None where no clips are held out: then the last epoch is kept."""
    best_step: int = 0
    since_best: int = 0
    temperature: float = 1.0
    """For the answers of the parameters that are kept (emofuse_jax/scoring/calibration.py)."""

    def update(self, ua: float | None, step: int) -> bool:
        """Notes an epoch's validation, None where there is none; True when it is the best so far."""
        is_best = ua is None or ua > self.best_ua
        if is_best:
            self.best_ua, self.best_step, self.since_best = ua, step, 0
        else:
            self.since_best += 1
        return is_best

    def should_stop_early(self, patience: int) -> bool:
        """Whether so many epochs have brought nothing better; 0 never does."""
        return 0 < patience <= self.since_best
