"""Predictions of a model over a dataset, and their scores."""
