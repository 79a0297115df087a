"""A trained network, whole, from its workdir."""

import jax
from jax.sharding import Sharding

from emofuse_jax.models.build import Model, build_model
from emofuse_jax.training.checkpoint import store
from emofuse_jax.training.checkpoint.compat import saved_config, saved_spec
from emofuse_jax.types import Params


def load_trained(workdir: str, kind: str, sharding: Sharding) -> tuple[Model, Params, Params, dict]:
    """The model, its parameters and model state, laid out as `sharding` says, and the checkpoint's metadata.

    Raises:
      FileNotFoundError: `workdir` holds no checkpoint of that kind (best, last).
    """
    about = store.read_metadata(workdir, kind)
    model = build_model(saved_config(about).model, saved_spec(about))
    abstract = jax.eval_shape(model.init, jax.random.key(0))
    layout = store.abstract_like(abstract, jax.tree.map(lambda _: sharding, abstract))
    return model, *store.load_model(workdir, kind, layout), about
