"""Deals the moments of the kills: seeded, each kind as often as any other, what matters most first."""

import random

from tests.chaos.watch import Usual

FIRST = {("write", "checkpoint"), ("rename", "shard")}
"""So that a short log has them."""


class Deck:
    """Moments at which a verb is struck."""

    def __init__(self, usual: Usual, rng: random.Random):
        self.usual, self.rng, self.cards = usual, rng, []

    def deal(self, directory: str) -> tuple[str, str]:
        """The next moment that a start in `directory` still has; it stays in the deck until it was struck."""
        if not self.cards:
            kinds = self.usual.moments()
            self.cards = sorted(self.rng.sample(kinds, len(kinds)), key=lambda moment: moment not in FIRST)
        possible = (m for m in self.cards if m[0] == "time" or self.usual.left(*m, directory))
        return next(possible, ("time", ""))

    def struck(self, moment: tuple[str, str]) -> None:
        """Takes it out."""
        if moment in self.cards:
            self.cards.remove(moment)
