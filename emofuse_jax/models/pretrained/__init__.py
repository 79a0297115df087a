"""Converts public weights to the parameters of emofuse."""
