"""Trains replicas (one fold and seed each) together, for cross-validation and sweeps."""
