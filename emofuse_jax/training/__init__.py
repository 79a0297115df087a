"""Trains models: loop, step, optimizer, batch sources, checkpoints and cross-validation."""
