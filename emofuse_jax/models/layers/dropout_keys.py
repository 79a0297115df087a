"""Random keys for dropout: read in training only."""

import jax

from emofuse_jax.types import PRNGKey


def dropout_key(key: PRNGKey | None, *, train: bool) -> PRNGKey | None:
    """Returns the key to pass to dropout: `key` if `train`, otherwise None, which turns dropout off.

    Raises:
      ValueError: if `train` is True and `key` is None.
    """
    if train and key is None:
        raise ValueError("train=True needs a key for dropout; pass key=jax.random.key(seed)")
    return key if train else None


def split_dropout_key(key: PRNGKey | None, count: int, *, train: bool) -> list[PRNGKey | None]:
    """Returns a list of `count` keys, one for each layer: split from `key` if `train`, otherwise all None.

    Raises:
      ValueError: if `train` is True and `key` is None.
    """
    key = dropout_key(key, train=train)
    return [None] * count if key is None else list(jax.random.split(key, count))
