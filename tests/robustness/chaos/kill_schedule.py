"""Deals the moments of the kills: seeded, each kind as often as any other, what matters most first."""

import random

from tests.robustness.chaos.file_watcher import BaselineRun

FIRST_MOMENTS = {("write", "checkpoint"), ("rename", "shard")}
"""So that a short log has them."""


class KillSchedule:
    """Moments at which a verb is struck."""

    def __init__(self, baseline: BaselineRun, rng: random.Random):
        self.baseline, self.rng, self.remaining_moments = baseline, rng, []

    def next_moment(self, directory: str) -> tuple[str, str]:
        """The next moment that a start in `directory` still has; it stays in the deck until it was struck."""
        if not self.remaining_moments:
            kinds = self.baseline.list_moments()
            self.remaining_moments = sorted(
                self.rng.sample(kinds, len(kinds)), key=lambda moment: moment not in FIRST_MOMENTS
            )
        possible = (
            m
            for m in self.remaining_moments
            if m[0] == "time" or self.baseline.remaining_paths(*m, directory)
        )
        return next(possible, ("time", ""))

    def mark_struck(self, moment: tuple[str, str]) -> None:
        """Takes it out."""
        if moment in self.remaining_moments:
            self.remaining_moments.remove(moment)
