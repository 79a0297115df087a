"""Registers implementations of your own under names that configs and commands accept.

Installed packages can provide them instead, through entry points of the groups `emofuse.fusions`,
`emofuse.audio_encoders`, `emofuse.video_encoders`, `emofuse.objectives` and `emofuse.corpora`.
"""

from collections.abc import Callable
from typing import Literal

from emofuse_jax import losses
from emofuse_jax.data.writing.corpus import Corpus
from emofuse_jax.models.interfaces import EncoderClass, FusionClass
from emofuse_jax.models.registry import ENCODERS, FUSIONS, MODALITIES


def register_fusion(name: str, fusion: FusionClass, *, replace: bool = False) -> None:
    """Registers a fusion: `config(name)` returns its experiment, in full and small form.

    Args:
      name: an identifier.
      fusion: a class, usually a flax.nnx.Module, that is built and called as in the example: `d_a` and `d_v`
        are the widths of the audio and video vectors, `config` is `config.model.fusion`, `dtype` that of the
        activations, and `key` a random key for dropout, None unless `train`. It returns a FusionOutput:
        `logits` [b c] of b clips and c classes, `embedding` [b d], the input of the classifier, and `aux`, a
        dict of other arrays. Attributes: `modalities` ("audio" and/or "video" in a tuple), `defaults` (a
        dict: the fields of its config) and `takes`. "vectors": it is called with PooledVectors, `audio` [b n
        d_a] and `video` [b n d_v], for each clip a vector of all of it and then of its parts in time, and
        their masks `audio_mask` and `video_mask` [b n], True if valid. "sequences": it is called with
        EncodedSequences, `audio` and `video`, each with `values` [b l d] of l positions, `mask` (True if
        valid) and `time_index` [b l], and `length` [b] in time steps. In both cases it is the first argument,
        as `pooled` in the example. Optional: `small` (the fields that the small form changes), `small_epochs`
        (number of epochs in that form), and the static methods `count_trunks(config)` (number of equal parts
        in time; `config` is `config.model.fusion`), `calibrate(state, probabilities, labels)` (returns the
        part of the model state that depends on the n validation clips; `probabilities` [n m c] of m levels,
        `labels` [n], -1 without a label) and `check_training(config)` (raises ValueError or warns if the
        config of an experiment does not suit).
      replace: True replaces any fusion of this name, so that a notebook cell can run twice.

    Raises:
      ValueError: the name is taken or not an identifier, `fusion` is not a class, or an attribute of the
        class is missing or invalid.

    Example:
      >>> import jax
      >>> import jax.numpy as jnp
      >>> from flax import nnx
      >>> from jax.typing import DTypeLike
      >>> class Maxout(nnx.Module):
      ...     modalities, takes, defaults = ("audio", "video"), "vectors", {"width": 16}
      ...     def __init__(
      ...         self,
      ...         d_a: int,
      ...         d_v: int,
      ...         classes: int,
      ...         config: ef.ConfigDict,
      ...         dtype: DTypeLike,
      ...         *,
      ...         rngs: nnx.Rngs,
      ...     ) -> None:
      ...         self.audio = nnx.Linear(d_a, config.width, rngs=rngs)
      ...         self.video = nnx.Linear(d_v, config.width, rngs=rngs)
      ...         self.head = nnx.Linear(config.width, classes, rngs=rngs)
      ...     def __call__(
      ...         self, pooled: ef.PooledVectors, *, train: bool, key: jax.Array | None
      ...     ) -> ef.FusionOutput:
      ...         audio, _, video, _ = pooled.of_both_modalities()
      ...         z = jnp.maximum(self.audio(audio[:, 0]), self.video(video[:, 0]))
      ...         return ef.FusionOutput(self.head(z), z, {})
      >>> ef.register_fusion("maxout", Maxout)
      >>> ef.config("maxout", form="small").model.fusion.width
      16
    """
    FUSIONS.register(name, fusion, replace=replace)


def register_encoder(
    name: str, encoder: EncoderClass, *, modality: Literal["audio", "video"], replace: bool = False
) -> None:
    """Registers an encoder: `config.model.<modality>.encoder` and `settings.base` accept its name.

    Args:
      name: an identifier.
      encoder: a class with the attribute `defaults`, a dict of the fields of its config. It is built with
        `(config, spec, dtype, *, rngs)`: `config.model.<modality>`, the InputSpec (shape of one clip), the
        dtype of the activations and random keys (nnx.Rngs). It is called with `(batch, *, train)`, a Batch of
        b clips and True in training, and returns an EncoderOutput: `sequence` with `values` [b l d] of l
        positions, `mask` [b l] (True at valid ones), `time_index` [b l] (time step of each) and `length` [b]
        (number of time steps), and `aux`, a dict of other arrays. The attribute `width` of the built encoder
        is d. Optional attributes of the class: `reads` (the fields of the batch that it reads; by default
        `audio` and `audio_mask`, or `faces` and `face_mask`), `small` (the fields that the small form
        changes), `small_limits` (the largest values of fields there), `small_augment` (the fields of
        `config.augment` that change there), and the method `attention_map(weights)`, which reshapes attention
        over the l positions, [.. l], for a figure: [.. u] or [.. u g], u steps in time and g frequencies.
      modality: the modality that it encodes.
      replace: True replaces any encoder of this name.

    Raises:
      ValueError: the name is taken or not an identifier, `encoder` is not a class, an attribute of the class
        is missing or invalid, or an unknown modality.

    Example:
      >>> from emofuse_jax.models.encoders.audio_mel_cnn import MelCNN
      >>> class WideMelCNN(MelCNN):
      ...     defaults = MelCNN.defaults | {"widths": (64, 128, 256, 512)}
      >>> ef.register_encoder("wide_mel_cnn", WideMelCNN, modality="audio")
      >>> ef.settings.base("audio_only", audio="wide_mel_cnn").model.audio.widths
      (64, 128, 256, 512)
    """
    if modality not in MODALITIES:
        raise ValueError(f"modality={modality!r}: expected one of {', '.join(MODALITIES)}")
    ENCODERS[modality].register(name, encoder, replace=replace)


def register_objective(name: str, objective: losses.Objective, *, replace: bool = False) -> None:
    """Registers a training objective, whose factor a config sets as `loss.objectives.<name>`.

    A config that does not set the factor does not use the objective.

    Args:
      name: an identifier.
      objective: a function of `(outputs, batch, config.loss)` that returns the sum over the clips of a batch
        and the weight that it is divided by, both scalars. `outputs` has `logits` [b c] for b clips and c
        classes, `embedding` [b d], `audio_vector` and `video_vector` (or None), and `aux`, a dict of other
        arrays. `batch` has, besides the inputs, `label` [b] (class index, -1 without a label), `label_mask`
        [b] (False if the label must not be used) and `weight` [b] (0 in rows that are padding).
      replace: True replaces any objective of this name.

    Raises:
      ValueError: the name is taken or not an identifier, or the objective is not callable.

    Example:
      >>> import jax
      >>> def small_logits(
      ...     outputs: ef.Outputs, batch: ef.Batch, config: ef.ConfigDict
      ... ) -> tuple[jax.Array, jax.Array]:
      ...     return (batch.weight[:, None] * outputs.logits**2).sum(), batch.weight.sum()
      >>> ef.register_objective("small_logits", small_logits)
      >>> ef.config("concat", loss={"objectives": {"small_logits": 0.1}}).loss.objectives.small_logits
      0.1
    """
    losses.OBJECTIVES.register(name, objective, replace=replace)


def register_corpus(name: str, reader: Callable[[str], Corpus], *, replace: bool = False) -> None:
    """Registers a corpus: `prepare(source, output, corpus=name)` and `emofuse prepare --corpus=name` read it.

    Args:
      name: an identifier.
      reader: a function from the path of the source to its `Corpus`: `name`, `classes` (names), `clips`
        (MediaClips ordered by clip_id: clip_id, path (absolute or from the working directory), `label` as
        index into the classes or -1, speaker, and optionally `start` and `end` in seconds), `sex` ("f" or "m"
        by speaker, as far as known) and `notes` (texts for prep.json). Its errors pass through; a ValueError
        or OSError becomes one line in `emofuse prepare`.
      replace: True replaces any corpus of this name.

    Raises:
      ValueError: the name is taken or not an identifier, or the reader is not callable.

    Example:
      >>> def read_corpus(source: str) -> ef.Corpus:
      ...     clips = (ef.MediaClip("a", f"{source}/a.mp4", label=0, speaker="anna"),)
      ...     return ef.Corpus("mine", ("sad", "happy"), clips, sex={}, notes=())
      >>> ef.register_corpus("mine", read_corpus)
    """
    from data_prep.corpora import CORPORA

    CORPORA.register(name, reader, replace=replace)
