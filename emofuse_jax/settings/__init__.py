"""Defines every config field with its default, the small and feature variants, and the shipped configs."""

from emofuse_jax.settings.experiment import base as base
from emofuse_jax.settings.feature_variant import with_features as with_features
from emofuse_jax.settings.shipped import load_shipped as load_shipped, shipped_names as shipped_names
from emofuse_jax.settings.small_variant import small as small
