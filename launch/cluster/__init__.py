"""Templates of cluster jobs; installed as `emofuse_jax.cluster_templates`."""
