"""Adds what pyproject.toml can't say: folders outside the library that are installed as parts of it."""

from setuptools import find_packages, setup

FOLDERS = {"emofuse_jax.shipped": "configs", "emofuse_jax.cluster_templates": "launch/cluster"}

setup(packages=[*find_packages(include=["emofuse_jax*", "data_prep*"]), *FOLDERS], package_dir=FOLDERS)
