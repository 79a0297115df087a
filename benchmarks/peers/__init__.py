"""Counterparts in PyTorch, without emofuse."""
