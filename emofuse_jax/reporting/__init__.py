"""The parts of the report: look, pictures and tables; `emofuse_jax.report` is the entry."""
