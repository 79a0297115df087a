"""A network as pure functions over plain dicts; the one place where flax modules are split and merged."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float
from ml_collections import ConfigDict

from emofuse_jax.models.batch_checks import check_batch
from emofuse_jax.models.interfaces import PooledVectors
from emofuse_jax.models.layers.dropout_keys import dropout_key
from emofuse_jax.models.network import Network, network_input_fields
from emofuse_jax.types import Batch, InputSpec, Outputs, Params, PRNGKey
from emofuse_jax.utils.errors import format_error


@dataclasses.dataclass(frozen=True)
class Model:
    """A network without its parameters."""

    config: ConfigDict
    spec: InputSpec
    graphdef: nnx.GraphDef[Network]

    @property
    def input_fields(self) -> tuple[str, ...]:
        """Names of the Batch fields that scoring reads, audio first, such as `("audio", "audio_mask")`.

        They are the fields that the encoders of the network read, and, for a modality that the fusion does
        not use, its tensors if the records contain them. A model of `build_model` raises no error.
        """
        return network_input_fields(self.config, self.spec)

    def init(self, key: PRNGKey) -> tuple[Params, Params]:
        """Returns new `(params, model_state)`, both as nested dicts of float32 arrays.

        The first keys are parts of the network: `audio` and `video` (encoders), `audio_attention` and
        `video_attention` (pooling), `fusion` with the classifier, `relations` (margins) and `input`; parts
        without such arrays are left out. `params` are the parameters to train, with random initial values;
        `model_state` has what is measured and not trained: running statistics of norms, statistics of the
        fusion, and `input`, a dict with the `mean` (0) and the `std` (1) of each frequency bin. A model of
        `build_model` raises no error. Pure, jittable.
        """
        network = Network(self.config, self.spec, rngs=nnx.Rngs(params=key))
        return _split_state(network)

    def apply(
        self,
        params: Params,
        model_state: Params,
        batch: Batch,
        *,
        train: bool = False,
        key: PRNGKey | None = None,
    ) -> tuple[Outputs, Params]:
        """Computes the outputs of the network for a batch, and the new model state.

        Pure, jittable with `train` static.

        Args:
          params: nested dict of the parameters, from `init` or trained.
          model_state: nested dict of measured values, from `init` or from an earlier call.
          batch: clips as they are in the records: spectrograms not standardised, faces in uint8; the number
            of time steps and frames may differ from `spec`.
          train: uses the statistics of the batch in batch norms, and dropout. If False, the model state is
            returned unchanged.
          key: random key for dropout; needed if `train`.

        Returns:
          `(outputs, model_state)`. The outputs are `logits` [b c] of the c classes; `embedding` [b d], the
          input of the classifier; `audio_vector` [b d_a] and `video_vector` [b d_v], the pooled vectors of
          each clip (None if the fusion does not use the modality); and `aux`, a dict of intermediate results,
          such as attention weights, and of the inputs of the objectives.

        Raises:
          ValueError: `train` is True but `key` is None, `params` or `model_state` has other arrays than those
            of `init`, the shape of an array of the batch does not fit `spec`, the batch has too few steps or
            a wrong number of frames for an encoder, a dropout rate of the config is not in [0, 1), its
            `fusion.dropout_place` is unknown, or the fusion does not return a FusionOutput with `logits`
            [b c] and `embedding` [b d].
        """
        key = dropout_key(key, train=train)
        check_batch(batch, self.spec)
        batch = jax.tree.map(jnp.asarray, batch)
        network = nnx.merge(self.graphdef, params, model_state)
        outputs = network(batch, train=train, key=key)
        return outputs, _split_state(network)[1]

    def fuse(
        self,
        params: Params,
        model_state: Params,
        audio: Float[Array, "b d_a"],
        video: Float[Array, "b d_v"],
        *,
        train: bool = False,
        key: PRNGKey | None = None,
    ) -> Float[Array, "b c"]:
        """Computes the logits of the fusion alone, from one pooled vector of each modality.

        Every clip counts as having both modalities. Only for fusions of vectors (`takes = "vectors"`) without
        parts in time; this is not checked.

        Args:
          params: nested dict of the parameters, from `init` or trained.
          model_state: nested dict of measured values, from `init` or from an earlier call; it is not changed.
          audio: pooled audio vectors of b clips, as wide as those of the network (`audio_vector` of its
            outputs).
          video: pooled video vectors of the same clips, as wide as those of the network.
          train: whether dropout acts.
          key: random key for dropout; needed if `train`.

        Returns:
          The logits [b c] of the c classes.

        Raises:
          ValueError: `train` is True but `key` is None, `params` or `model_state` has other arrays than those
            of `init`, a dropout rate of the config is not in [0, 1), or its `fusion.dropout_place` is
            unknown.
          TypeError: `audio` or `video` has another width, or their numbers of clips differ (from JAX).
        """
        network = nnx.merge(self.graphdef, params, model_state)
        presence_mask = jnp.ones((audio.shape[0], 1), bool)
        pooled = PooledVectors(audio[:, None], presence_mask, video[:, None], presence_mask)
        return network.fusion(pooled, train=train, key=key).logits

    def with_statistics(
        self, model_state: Params, mean: Float[np.ndarray | Array, " f"], std: Float[np.ndarray | Array, " f"]
    ) -> Params:
        """Returns a copy of the model state with other statistics of the spectrograms.

        Args:
          model_state: nested dict; its key `input` is replaced by a dict with `mean` and `std` in float32.
          mean: mean of each of the f frequency bins.
          std: standard deviation of each bin.

        Raises:
          ValueError: `mean` or `std` has another shape than `[f]`, or values that are not finite.
        """
        mean, std = np.asarray(mean, np.float32), np.asarray(std, np.float32)
        for name, values in (("mean", mean), ("std", std)):
            if values.shape != (self.spec.f,):
                raise ValueError(
                    f"statistics: {name} has shape {values.shape}, expected ({self.spec.f},), one number for"
                    " each frequency bin"
                )
            if not np.all(np.isfinite(values)):
                raise ValueError(f"statistics: {name} has values that are not finite; pass finite numbers")
        return model_state | {"input": {"mean": jnp.asarray(mean), "std": jnp.asarray(std)}}

    def fake_batch(self, n: int, seed: int = 0) -> Batch:
        """Returns a valid random Batch of `n` clips, with NumPy arrays; the same `seed` gives the same batch.

        `audio` [n t f] has t steps of f frequency bins and `faces` [n s h w 3] s frames of h x w pixels, with
        the sizes of the spec; `audio`, `audio_features` and `face_features` are in float16, `faces` in uint8.
        Masks are True at valid steps and at frames with a face; everything else is zero. The first clip has
        all t steps and s faces; the others have at least t // 2 steps and at least one face. `label` is a
        random class, `speaker` a random number from 0 to 3, `clip` the row (all int32); all weights are 1 and
        all labels visible. Features that the spec does not have are None.

        Raises:
          ValueError: if `n` is below 1, `seed` is negative, or `spec.classes` is 0.
          IndexError: if `spec.s` is 0.
        """
        if n < 1:
            raise ValueError(f"fake_batch: {n} clips, expected at least 1")
        rng = np.random.default_rng(seed)
        spec = self.spec
        length = rng.integers(spec.t // 2, spec.t + 1, n)
        face_mask = rng.random((n, spec.s)) < 0.8
        face_mask[:, 0] = True
        length[0], face_mask[0] = spec.t, True
        audio_mask = np.arange(spec.t) < length[:, None]
        audio = rng.normal(-4.0, 2.0, (n, spec.t, spec.f)) * audio_mask[:, :, None]
        faces = rng.integers(0, 256, (n, spec.s, spec.h, spec.w, 3), np.uint8)
        # a batch on the host has NumPy arrays in the fields that are annotated as JAX arrays
        fields: dict[str, Any] = {
            "audio": audio.astype(np.float16),
            "audio_mask": audio_mask,
            "faces": faces * face_mask[:, :, None, None, None],
            "face_mask": face_mask,
            "label": rng.integers(0, spec.classes, n).astype(np.int32),
            "label_mask": np.ones(n, bool),
            "weight": np.ones(n, np.float32),
            "speaker": rng.integers(0, 4, n).astype(np.int32),
            "clip": np.arange(n, dtype=np.int32),
        }
        fields |= _fake_features(spec, rng, length / max(spec.t, 1), face_mask)
        return Batch(**fields)


def build_model(config: ConfigDict, spec: InputSpec) -> Model:
    """Builds the model of `config`, which is `config.model` of an experiment, for clips of shape `spec`.

    The config has the fields of `default_model_config` (settings/model.py): `dtype` of the activations;
    `audio` and `video`, each with the name of the `encoder` and its fields; `fusion`, its `name` and fields;
    `margins` between classes; and `polarity` of the classes. Errors of another type in a registered encoder
    or fusion pass through.

    Returns:
      A Model with the fields `config`, `spec` and `graphdef` (the structure of the network); it has no
      parameters. Its method `init` makes them, `apply` computes outputs.

    Raises:
      ValueError: a field of the config is missing or has an impossible value, an installed package provides
        an encoder or the fusion but it can't be imported, or the records (`spec`) lack what an encoder reads;
        names the field if it is known.
    """
    try:
        abstract_network = nnx.eval_shape(lambda: Network(config, spec, rngs=nnx.Rngs(0)))
    except (ArithmeticError, AssertionError, AttributeError, LookupError, TypeError) as error:
        message = format_error(error)[:300]
        raise ValueError(
            f"config.model: no network can be built for clips of {spec}: {message}; correct the field of"
            " config.model that this error is about"
        ) from error
    return Model(config, spec, nnx.graphdef(abstract_network))


def _split_state(network: Network) -> tuple[Params, Params]:
    _, *states = nnx.split(network, nnx.Param, ...)
    params, model_state = states
    return nnx.to_pure_dict(params), nnx.to_pure_dict(model_state)


def _fake_features(
    spec: InputSpec,
    rng: np.random.Generator,
    valid_fraction: Float[np.ndarray, " n"],
    face_mask: Bool[np.ndarray, "n s"],
) -> dict[str, np.ndarray]:
    """Returns random features as fields of a Batch by name; an empty dict if `spec` has no features.

    The fields are `audio_features` [n u d_a] in float16 and `audio_features_mask` [n u], True at valid steps
    (u is `spec.feature_steps`), and `face_features` [n s d_v] in float16; d_a and d_v are their widths in
    `spec`.

    Args:
      spec: shape of one clip.
      rng: source of the random numbers; its state changes.
      valid_fraction: fraction of the u steps that each of the n clips has, at least one step; the other steps
        are masked and zero. If `spec.t` is 0, only its length counts: the first clip has all steps, the
        others random fractions from 1/2 to 1.
      face_mask: True at the frames with a face, of s frames for each clip; features of the others are zero.
    """
    fields, n = {}, len(valid_fraction)
    if spec.audio_features:
        valid_fraction = valid_fraction if spec.t else np.append(1.0, rng.uniform(0.5, 1.0, n - 1))
        length = np.maximum(1, np.ceil(valid_fraction * spec.feature_steps))
        mask = np.arange(spec.feature_steps) < length[:, None]
        values = rng.normal(0.0, 1.0, (n, spec.feature_steps, spec.audio_features))
        fields["audio_features"] = (values * mask[..., None]).astype(np.float16)
        fields["audio_features_mask"] = mask
    if spec.face_features:
        values = rng.normal(0.0, 1.0, (n, spec.s, spec.face_features))
        fields["face_features"] = (values * face_mask[..., None]).astype(np.float16)
    return fields
