"""Files of a checkpoint directory: bytes, JSON, absence; read as scoring, resuming and exporting do."""

import os

import jax

from emofuse_jax.models.build import build_model
from emofuse_jax.training.checkpoint import store
from emofuse_jax.training.checkpoint.saved_config import saved_config, saved_spec
from emofuse_jax.types import TrainState
from tests.robustness.fuzz.damage import damage_tree, make_rng, read_tree
from tests.robustness.fuzz.kinds import configs
from tests.support.bundles import save_checkpoint

NAMED = configs.NAMED
"""Of what a checkpoint says; else its path is in the text."""


def make(folder: str) -> None:
    """A checkpoint of a tiny network, of both kinds."""
    trained = save_checkpoint(folder, "audio_only")
    state = TrainState(
        jax.numpy.zeros((), "int32"), trained.params, trained.model_state, {"count": jax.numpy.zeros(())}
    )
    store.save(folder, "last", state, trained.metadata)


def load(folder: str):
    """The folder, its files, and what to restore into; it is read whole, so that all is imported."""
    metadata = store.read_metadata(folder, "best")
    model = build_model(saved_config(metadata).model, saved_spec(metadata))
    sharding = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    trees = jax.eval_shape(model.init, jax.random.key(0))
    scalar = jax.eval_shape(lambda: (jax.numpy.zeros((), "int32"), {"count": jax.numpy.zeros(())}))
    abstract = TrainState(scalar[0], *trees, scalar[1])
    abstract = store.abstract_like(abstract, jax.tree.map(lambda _: sharding, abstract))
    store.restore(folder, abstract)
    return folder, read_tree(folder), abstract, metadata


def attempt(case, seed: int, scratch: str) -> None:
    """Reads the damaged kind, best or last."""
    folder, files, abstract, metadata = case
    rng = make_rng("checkpoints", seed)
    kind = store.CHECKPOINT_KINDS[rng.integers(2)]
    files = {name: data for name, data in files.items() if name.startswith(os.path.join("checkpoints", kind))}
    if rng.integers(3) == 0:
        files = {name: data for name, data in files.items() if "CHECKPOINT_METADATA" in name}
    workdir = os.path.join(scratch, "run")
    damage_tree(folder, workdir, files, rng)
    damaged_metadata = store.read_metadata(workdir, kind)
    config, spec = saved_config(damaged_metadata), saved_spec(damaged_metadata)
    if damaged_metadata != metadata:
        build_model(config.model, spec)
    if kind == "last":
        store.restore(workdir, abstract)
    else:
        store.load_model(workdir, kind, (abstract.params, abstract.model_state))
