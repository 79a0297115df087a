"""The parts of the report: look, pictures and tables; `emofuse_jax.reporting.run_report` is the entry."""
