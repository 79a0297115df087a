"""A network as pure functions over plain dicts; the one place where flax modules are split and merged."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from emofuse_jax.models.interfaces import PooledVectors
from emofuse_jax.models.network import Network, network_input_fields
from emofuse_jax.types import Batch, InputSpec, Outputs, Params, PRNGKey
from emofuse_jax.utils.errors import format_error


@dataclasses.dataclass(frozen=True)
class Model:
    """A network without its numbers."""

    config: object
    spec: InputSpec
    graphdef: nnx.GraphDef

    @property
    def input_fields(self) -> tuple[str, ...]:
        """Fields of the batch that scoring reads."""
        return network_input_fields(self.config, self.spec)

    def init(self, key: PRNGKey) -> tuple[Params, Params]:
        """Fresh `(params, model_state)`: what is trained, and running and input statistics. Pure."""
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
        """The network's outputs and the new model state. Pure, jittable with `train` static.

        Training uses the batch's statistics in batch norms, and dropout from `key`; scoring uses neither,
        and gives the model state back unchanged. Times and frames may differ from `spec.t` and `spec.s`.

        Raises:
          ValueError: training without a key, or arrays whose shape does not fit `spec`.
        """
        if train and key is None:
            raise ValueError("apply: train=True needs a key for dropout")
        _validate_batch(batch, self.spec)
        batch = jax.tree.map(jnp.asarray, batch)
        network = nnx.merge(self.graphdef, params, model_state)
        outputs = network(batch, train=train, key=key if train else None)
        return outputs, _split_state(network)[1]

    def fuse(
        self,
        params: Params,
        model_state: Params,
        audio: Float[Array, "b d_a"],
        video: Float[Array, "b d_v"],
        *,
        key: PRNGKey | None = None,
    ) -> Float[Array, "b c"]:
        """Logits of the fusion alone, from pooled vectors of both streams; `key` turns dropout on."""
        network = nnx.merge(self.graphdef, params, model_state)
        presence_mask = jnp.ones((audio.shape[0], 1), bool)
        return network.fusion(
            PooledVectors(audio[:, None], presence_mask, video[:, None], presence_mask), key
        ).logits

    def with_statistics(
        self, model_state: Params, mean: Float[np.ndarray | Array, " f"], std: Float[np.ndarray | Array, " f"]
    ) -> Params:
        """The model state with the input statistics of the training clips; raises ValueError on a bad one."""
        mean, std = np.asarray(mean, np.float32), np.asarray(std, np.float32)
        for name, values in (("mean", mean), ("std", std)):
            if values.shape != (self.spec.f,):
                raise ValueError(f"statistics: {name} has shape {values.shape}, expected ({self.spec.f},)")
            if not np.all(np.isfinite(values)):
                raise ValueError(f"statistics: {name} has values that are not finite")
        return model_state | {"input": {"mean": jnp.asarray(mean), "std": jnp.asarray(std)}}

    def fake_batch(self, n: int, seed: int = 0) -> Batch:
        """Valid random input of `n` clips; the first is whole, the others have padding and lost faces."""
        rng = np.random.default_rng(seed)
        spec = self.spec
        length = rng.integers(spec.t // 2, spec.t + 1, n)
        face_mask = rng.random((n, spec.s)) < 0.8
        face_mask[:, 0] = True
        length[0], face_mask[0] = spec.t, True
        audio_mask = np.arange(spec.t) < length[:, None]
        audio = rng.normal(-4.0, 2.0, (n, spec.t, spec.f)) * audio_mask[:, :, None]
        faces = rng.integers(0, 256, (n, spec.s, spec.h, spec.w, 3), np.uint8)
        batch = Batch(
            audio=audio.astype(np.float16),
            audio_mask=audio_mask,
            faces=faces * face_mask[:, :, None, None, None],
            face_mask=face_mask,
            label=rng.integers(0, spec.classes, n).astype(np.int32),
            label_mask=np.ones(n, bool),
            weight=np.ones(n, np.float32),
            speaker=rng.integers(0, 4, n).astype(np.int32),
            clip=np.arange(n, dtype=np.int32),
        )
        return dataclasses.replace(batch, **_fake_features(spec, rng, length / max(spec.t, 1), face_mask))


def build_model(config, spec: InputSpec) -> Model:
    """A model of `config` (settings/model.py) for clips of `spec`; raises ValueError naming a bad field."""
    try:
        abstract_network = nnx.eval_shape(lambda: Network(config, spec, rngs=nnx.Rngs(0)))
    except (ArithmeticError, AssertionError, AttributeError, LookupError, TypeError) as error:
        message = format_error(error)[:300]
        raise ValueError(f"config.model: no network can be built of it for {spec}: {message}") from error
    return Model(config, spec, nnx.graphdef(abstract_network))


def _split_state(network: Network) -> tuple[Params, Params]:
    _, params, model_state = nnx.split(network, nnx.Param, ...)
    return nnx.to_pure_dict(params), nnx.to_pure_dict(model_state)


def _fake_features(
    spec: InputSpec, rng, valid_fraction: Float[np.ndarray, " n"], face_mask: np.ndarray
) -> dict:
    """Random features over `valid_fraction` of the steps, at least one; nothing where the spec has none."""
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


def _validate_batch(batch: Batch, spec: InputSpec) -> None:
    expected_shapes = {"audio": (spec.f,), "faces": (spec.h, spec.w, 3)}
    feature_shapes = {"audio_features": (spec.audio_features,), "face_features": (spec.face_features,)}
    expected_shapes |= {
        name: feature_shape for name, feature_shape in feature_shapes.items() if any(feature_shape)
    }
    for name, trailing_shape in expected_shapes.items():
        shape = getattr(getattr(batch, name), "shape", None)
        if shape is None or shape[2:] != trailing_shape:
            raise ValueError(f"batch.{name}: shape {shape}, expected {('b', 'any', *trailing_shape)}")
