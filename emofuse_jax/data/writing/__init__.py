"""Writes datasets: shards, manifest, splits, statistics, TFDS metadata."""
