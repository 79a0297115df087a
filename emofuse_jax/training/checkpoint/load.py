"""A trained network, whole, from its workdir."""

import jax
from jax.sharding import Sharding

from emofuse_jax.models.build import Model, build_model
from emofuse_jax.training.checkpoint import store
from emofuse_jax.training.checkpoint.saved_config import saved_config, saved_spec
from emofuse_jax.types import Params


def load_trained_model(workdir: str, kind: str, sharding: Sharding) -> tuple[Model, Params, Params, dict]:
    """The model, its parameters and model state, laid out as `sharding` says, and the checkpoint's metadata.

    Raises:
      FileNotFoundError: `workdir` holds no checkpoint of that kind (best, last).
      ValueError: the checkpoint is damaged, of another schema, or a field is missing.
    """
    metadata = store.read_metadata(workdir, kind)
    store.require_metadata_fields(workdir, kind, metadata, store.MODEL_METADATA_FIELDS)
    model = build_model(saved_config(metadata).model, saved_spec(metadata))
    variable_shapes = jax.eval_shape(model.init, jax.random.key(0))
    abstract_variables = store.abstract_like(
        variable_shapes, jax.tree.map(lambda _: sharding, variable_shapes)
    )
    return model, *store.load_model(workdir, kind, abstract_variables), metadata
