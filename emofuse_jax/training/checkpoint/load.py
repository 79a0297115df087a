"""Loads a complete trained model from its workdir."""

import jax
from jax.sharding import Sharding

from emofuse_jax.models.build import Model, build_model
from emofuse_jax.training.checkpoint import store
from emofuse_jax.training.checkpoint.metadata import CheckpointMetadata
from emofuse_jax.training.checkpoint.saved_config import saved_config, saved_spec
from emofuse_jax.types import Params


def load_trained_model(
    workdir: str, kind: str, sharding: Sharding
) -> tuple[Model, Params, Params, CheckpointMetadata]:
    """Loads a model from a checkpoint.

    Args:
      workdir: workdir of the run.
      kind: `best` or `last`.
      sharding: sharding of all arrays.

    Returns:
      A tuple: the model (without parameters); its parameters and its model state, nested dicts of arrays; and
      the metadata of the checkpoint, a dict such as `config`, `classes`, `settings`, `spec`, `statistics`,
      `step` and `temperature`, which has all fields that scoring and serving need.

    Raises:
      FileNotFoundError: if `workdir` has no checkpoint of this kind.
      ValueError: if the checkpoint is damaged, has another schema, if a field of its metadata is missing or
        invalid, or if its arrays do not fit the model.
      OSError: if a file of the checkpoint cannot be read.
    """
    metadata = store.read_model_metadata(workdir, kind)
    with store.name_checkpoint_in_errors(workdir, kind):
        config, spec = saved_config(metadata), saved_spec(metadata)
    model = build_model(config.model, spec)
    variable_shapes = jax.eval_shape(model.init, jax.random.key(0))
    abstract_variables = store.abstract_like(
        variable_shapes, jax.tree.map(lambda _: sharding, variable_shapes)
    )
    return model, *store.load_model(workdir, kind, abstract_variables), metadata
