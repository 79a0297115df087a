"""One file per experiment; installed as `emofuse_jax.shipped`."""
