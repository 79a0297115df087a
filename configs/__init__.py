"""Shipped experiments, one config file each; installed as `emofuse_jax.shipped`."""
