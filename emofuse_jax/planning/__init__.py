"""Plans training on hardware that is not present: compiles the real training step ahead of time."""
