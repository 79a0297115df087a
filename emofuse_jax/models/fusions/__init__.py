"""Fusions, one file each; `registry.FUSIONS` lists them by name."""
