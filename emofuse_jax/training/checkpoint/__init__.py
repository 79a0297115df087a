"""Checkpoints: written, read, and checked against the current config."""
