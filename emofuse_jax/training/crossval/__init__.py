"""Cross-validation and sweeps: replicas (one fold and seed each) trained together."""
