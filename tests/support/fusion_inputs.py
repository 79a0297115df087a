"""Fusions without encoders: random sequences or vectors in, so that every fusion is tested in a moment."""

import functools

import jax.numpy as jnp
import numpy as np
from flax import nnx

from emofuse_jax import settings
from emofuse_jax.models.interfaces import EncodedSequence, EncodedSequences, PooledVectors, trunk_masks
from emofuse_jax.models.layers.margins import ClassRelations
from emofuse_jax.models.registry import FUSIONS
from emofuse_jax.ops.masking import masked_mean
from emofuse_jax.types import Batch, Outputs
from tests.support.small_models import small_config

WIDTHS = {"audio": 8, "video": 12}
LENGTHS = {"audio": 7, "video": 5}
CLASSES = 5


def build_fusion(fusion, name, **fields):
    """A fusion class at small sizes, as it is: not split into pure functions."""
    config = small_config(name).fusion
    config.update(fields)
    return fusion(*WIDTHS.values(), CLASSES, config, jnp.float32, rngs=nnx.Rngs(0))


@functools.cache
def small_fusion(name, **fields):
    """`(params, state, apply)` of a fusion alone; `apply(params, state, inputs, train, key) ->
    FusionOutput`, not jitted.

    What the network of the shipped experiment knows of pairs of classes is in `aux`, as the losses need it.
    """
    config = small_config(name).fusion
    config.update(fields)
    fusion = FUSIONS[name]
    widths = [WIDTHS[m] if m in fusion.modalities else 0 for m in WIDTHS]
    module = fusion(*widths, CLASSES, config, jnp.float32, rngs=nnx.Rngs(0))
    relations = ClassRelations(load_experiment(name).model, CLASSES)()
    graphdef, params, state = nnx.split(module, nnx.Param, ...)

    def apply(params, state, inputs, *, train=False, key=None):
        fused = nnx.merge(graphdef, params, state)(inputs, train=train, key=key)
        return fused._replace(aux=fused.aux | relations)

    return nnx.to_pure_dict(params), nnx.to_pure_dict(state), apply


def without_dropout(name):
    """The fields that turn a fusion's dropout off."""
    return {field: 0.0 for field in ("dropout", "head_dropout") if field in small_config(name).fusion}


def random_inputs(name, n=4, seed=0):
    """`EncodedSequences` or `PooledVectors` of a fusion; the second clip has no sound, the third no face."""
    fusion, rng = FUSIONS[name], np.random.default_rng(seed)
    parts = small_config(name).fusion.get("parts", 0)
    inputs = {}
    for i, modality in enumerate(WIDTHS):
        if modality not in fusion.modalities:
            inputs[modality] = None
            continue
        sequence = random_sequence(rng, n, LENGTHS[modality], WIDTHS[modality], absent_row=i + 1)
        inputs[modality] = sequence if fusion.takes == "sequences" else pool_sequence(sequence, parts)
    if fusion.takes == "sequences":
        return EncodedSequences(**inputs)
    pairs = [(None, None) if pair is None else pair for pair in inputs.values()]
    return PooledVectors(*pairs[0], *pairs[1])


def random_sequence(rng, n, length, width, absent_row):
    valid = rng.integers(2, length + 1, n)
    valid[0], valid[absent_row] = length, 0
    mask = np.arange(length) < valid[:, None]
    values = rng.normal(size=(n, length, width)) * mask[..., None]
    order = np.broadcast_to(np.arange(length), mask.shape)
    return EncodedSequence(*map(jnp.asarray, (values.astype(np.float32), mask, order, valid)))


def pool_sequence(sequence, parts):
    """Means of the whole and of its parts, as `PooledVectors` has them."""
    masks = trunk_masks(sequence, parts)
    return masked_mean(sequence.values[:, None] * masks[..., None], masks), masks.any(-1)


def make_batch(n, seed=1):
    """A batch whose labels and weights count; what the encoders see is empty."""
    rng = np.random.default_rng(seed)
    return Batch(
        audio=jnp.zeros((n, 1, 1)),
        audio_mask=jnp.ones((n, 1), bool),
        faces=jnp.zeros((n, 1, 1, 1, 3), jnp.uint8),
        face_mask=jnp.ones((n, 1), bool),
        label=jnp.asarray(rng.integers(0, CLASSES, n), jnp.int32),
        label_mask=jnp.ones(n, bool),
        weight=jnp.ones(n),
        speaker=jnp.zeros(n, jnp.int32),
        clip=jnp.arange(n),
    )


def make_outputs(inputs, fused):
    """What the network answers around a fusion."""
    if isinstance(inputs, PooledVectors):
        audio, video = (None if v is None else v[:, 0] for v in (inputs.audio, inputs.video))
    else:
        audio, video = (None if s is None else masked_mean(s.values, s.mask) for s in inputs)
    return Outputs(fused.logits, fused.embedding, audio, video, fused.aux)


@functools.cache
def load_experiment(fusion):
    """The experiment of that fusion: configs/<fusion>.py, or the first that names it."""
    names = [name for name in settings.shipped_names() if name not in ("demo", "gan")]
    for name in [fusion, *names] if fusion in names else names:
        config = settings.load_shipped(name)
        if config.model.fusion.name == fusion:
            return config
    raise LookupError(f"no config names {fusion}")
