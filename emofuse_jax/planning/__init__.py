"""Plans for hardware that is not at hand: the real training step, compiled ahead of time."""
