"""Writes and reads checkpoints, and validates them against the current config."""
