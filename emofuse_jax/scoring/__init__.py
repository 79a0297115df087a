"""Computes predictions of a model over a dataset, and their scores."""
