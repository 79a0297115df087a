"""Writes directories of records: shards, manifest, splits, statistics, TFDS metadata."""
