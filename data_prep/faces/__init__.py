"""Finds, tracks, chooses and aligns faces."""
