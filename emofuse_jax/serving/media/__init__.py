"""Prepares media files as model inputs; the only part of serving that imports `data_prep`."""

from emofuse_jax.utils.prep_package import check_prep_package

check_prep_package()  # must run before a module of this package imports data_prep
