"""Feature-space augmentation: a GAN generates pairs of pooled vectors for rare classes of the training split.

Each modality has a generator and a discriminator, both conditioned on the class, and soft-HGR correlates the
two generated vectors. Reference: Ma et al., 2022, Data augmentation for audio-visual emotion recognition with
an efficient multimodal conditional GAN, Appl. Sci. 12(1), 527. The details of the networks are a design
choice.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jaxtyping import Array, Float, Int
from ml_collections import ConfigDict

from emofuse_jax.models.layers.linear import linear
from emofuse_jax.ops.hgr import soft_hgr
from emofuse_jax.types import Params, PRNGKey

VectorPair = tuple[Float[Array, "b d_a"], Float[Array, "b d_v"]]
"""Pooled vectors (audio, video) of the same clips."""
NetworkParams = tuple[Params, Params]
"""Parameters of the generators and of the discriminators."""


class GanFunctions(NamedTuple):
    """Networks of the GAN as pure functions over plain dicts of parameters."""

    generate: Callable[[Params, PRNGKey, Int[Array, " b"]], VectorPair]
    """Function `(generator, key, label) -> pair`."""
    project_common: Callable[[Params, VectorPair], tuple[Float[Array, "b k"], Float[Array, "b k"]]]
    """Function `(generator, pair) -> (f, g)`, the features for soft-HGR."""
    discriminate: Callable[[Params, VectorPair, Int[Array, " b"]], Float[Array, "b 2"]]
    """Function `(discriminator, pair, label) -> scores`."""


class ConditionalMLP(nnx.Module):
    """Perceptron with two hidden layers and leaky ReLU; its input is a vector next to the one-hot class."""

    def __init__(
        self, in_features: int, hidden: int, out_features: int, classes: int, *, rngs: nnx.Rngs
    ) -> None:
        self.first = linear(in_features + classes, hidden, jnp.float32, rngs=rngs)
        self.second = linear(hidden, hidden, jnp.float32, rngs=rngs)
        self.last = linear(hidden, out_features, jnp.float32, rngs=rngs)
        self.classes = classes

    def __call__(self, x: Float[Array, "b d"], label: Int[Array, " b"]) -> Float[Array, "b e"]:
        """Computes output vectors of width e = `out_features` for b vectors `x` with the classes `label`.

        `x` is noise in a generator and a pooled vector in a discriminator. Labels outside 0 to `classes` - 1
        count as no class.
        """
        x = jnp.concatenate([x, jax.nn.one_hot(label, self.classes)], axis=-1)
        return self.last(jax.nn.leaky_relu(self.second(jax.nn.leaky_relu(self.first(x)))))


class PairGenerator(nnx.Module):
    """Generators of both modalities, which share their noise, and linear heads for the correlation."""

    def __init__(self, d_a: int, d_v: int, classes: int, config: ConfigDict, *, rngs: nnx.Rngs) -> None:
        hidden = config.hidden
        self.audio = ConditionalMLP(config.noise, hidden, d_a, classes, rngs=rngs)
        self.video = ConditionalMLP(config.noise, hidden, d_v, classes, rngs=rngs)
        self.audio_head = linear(d_a, config.common, jnp.float32, rngs=rngs)
        self.video_head = linear(d_v, config.common, jnp.float32, rngs=rngs)


class PairDiscriminator(nnx.Module):
    """Discriminators of both modalities; a high score means that a vector looks real for its class."""

    def __init__(self, d_a: int, d_v: int, classes: int, config: ConfigDict, *, rngs: nnx.Rngs) -> None:
        self.audio = ConditionalMLP(d_a, config.hidden, 1, classes, rngs=rngs)
        self.video = ConditionalMLP(d_v, config.hidden, 1, classes, rngs=rngs)

    def __call__(self, pair: VectorPair, label: Int[Array, " b"]) -> Float[Array, "b 2"]:
        """Returns one score for each vector of the pair, in the order (audio, video).

        `pair` has the audio vectors [b d_a] and the video vectors [b d_v] of b clips with classes `label`;
        labels outside 0 to `classes` - 1 count as no class. A score may be any number; a high one means that
        the vector looks real for its class.
        """
        return jnp.concatenate([self.audio(pair[0], label), self.video(pair[1], label)], axis=-1)


def make_gan(
    d_a: int, d_v: int, classes: int, config: ConfigDict, key: PRNGKey
) -> tuple[NetworkParams, GanFunctions]:
    """Makes the networks of the GAN as pure functions over plain dicts of parameters.

    Args:
      d_a: width of the audio vectors.
      d_v: width of the video vectors.
      classes: number of classes.
      config: the integers `noise`, `hidden` and `common`: width of the noise, of each hidden layer and of the
        features for soft-HGR.
      key: random key of the initial parameters.

    Returns:
      `((generator, discriminator), functions)`: the initial parameters of both networks, as nested dicts, and
      a named tuple of three functions for b clips with the classes `label` [b]:
      `generate(generator, key, label)` draws noise with `key` and returns a pair of audio [b d_a] and video
      vectors [b d_v], `project_common(generator, pair)` a pair of features [b common] for soft-HGR, and
      `discriminate(discriminator, pair, label)` scores [b 2] of (audio, video), any numbers, high if a vector
      looks real for its class.

    Raises:
      ZeroDivisionError: if `d_a`, `d_v`, `hidden` or `common` is 0.
    """
    rngs = nnx.Rngs(params=key)
    generator_def, generator = nnx.split(PairGenerator(d_a, d_v, classes, config, rngs=rngs))
    discriminator_def, discriminator = nnx.split(PairDiscriminator(d_a, d_v, classes, config, rngs=rngs))

    def generate(params: Params, key: PRNGKey, label: Int[Array, " b"]) -> VectorPair:
        network = nnx.merge(generator_def, params)
        noise = jax.random.normal(key, (label.shape[0], config.noise))
        return network.audio(noise, label), network.video(noise, label)

    def project_common(params: Params, pair: VectorPair) -> tuple[Float[Array, "b k"], Float[Array, "b k"]]:
        network = nnx.merge(generator_def, params)
        return network.audio_head(pair[0]), network.video_head(pair[1])

    def discriminate(params: Params, pair: VectorPair, label: Int[Array, " b"]) -> Float[Array, "b 2"]:
        return nnx.merge(discriminator_def, params)(pair, label)

    params = (nnx.to_pure_dict(generator), nnx.to_pure_dict(discriminator))
    return params, GanFunctions(generate, project_common, discriminate)


class LabelledVectors(NamedTuple):
    """Pooled vectors of both streams, and their classes."""

    audio: Float[np.ndarray, "n d_a"]
    video: Float[np.ndarray, "n d_v"]
    label: Int[np.ndarray, " n"]


Sampler = Callable[[PRNGKey, Int[np.ndarray, " m"]], LabelledVectors]
"""Function `(key, labels) -> generated`."""
Carry = tuple[NetworkParams, tuple[optax.OptState, optax.OptState]]
"""Parameters of both networks, and the states of their optimizers."""


def choose_labels_to_generate(labels: Int[np.ndarray, " n"], num_classes: int) -> Int[np.ndarray, " m"]:
    """Returns the classes of the vectors to generate, so that all classes become equally frequent.

    Class c appears in the result as many times as the most frequent class has more clips than c; the result
    is sorted, in int32, and empty if the classes are balanced. Raises ValueError if a label is negative or
    not below `num_classes`.
    """
    counts = np.bincount(labels, minlength=num_classes)
    return np.repeat(np.arange(num_classes), counts.max() - counts).astype(np.int32)


def train_gan(
    pairs: LabelledVectors, num_classes: int, config: ConfigDict, key: PRNGKey
) -> tuple[Sampler, dict[str, float]]:
    """Trains the generators and the discriminators in turn.

    The losses are hinge losses (Miyato et al., 2018, arXiv 1802.05957) on vectors standardised per entry; the
    loss of the generators is `-mean D(G) - correlation H(f(G_a), g(G_v))`: D is the score of the
    discriminator, G = (G_a, G_v) are the generated audio and video vectors, f and g linear projections to the
    width `common`, and H is the soft-HGR correlation.

    Args:
      pairs: real vectors `audio` [n d_a] and `video` [n d_v] with their classes `label` [n], from 0 to
        `num_classes` - 1 (others count as no class); only of training clips, at least one.
      num_classes: number of classes.
      config: the integers `noise`, `hidden` and `common` (width of the noise, of each hidden layer and of the
        features f and g), the factor of H (`correlation`), `learning_rate`, the number of random rows in a
        step (`batch_size`, may exceed n) and the number of `steps`.
      key: random key of the initial parameters, the batches and the noise.

    Returns:
      `(sample, losses)`: `sample(key, labels)` returns generated LabelledVectors, i.e. `audio` [m d_a] and
      `video` [m d_v] in the scale of `pairs`, and `label`, the m classes `labels`; `losses` has the mean
      `generator` and `discriminator` loss of the last 100 steps (of all if there are fewer; NaN if `steps` is
      0).

    Raises:
      ZeroDivisionError: if `hidden` or `common` is 0.
      TypeError: if `pairs` has no clips.

    Warns:
      UserWarning: if `common` is over a quarter of `batch_size`, as H is then badly biased.
    """
    key_init, key_train = jax.random.split(key)
    vectors = [jnp.asarray(x) for x in (pairs.audio, pairs.video)]
    moments = [(x.mean(0), jnp.maximum(x.std(0), 1e-4)) for x in vectors]
    audio, video = ((x - mean) / std for x, (mean, std) in zip(vectors, moments, strict=True))
    labels = jnp.asarray(pairs.label)
    params, functions = make_gan(audio.shape[1], video.shape[1], num_classes, config, key_init)
    tx = optax.adam(config.learning_rate, b1=0.5, b2=0.9)
    step = _make_step(functions, tx, (audio, video), labels, config)
    carry = (params, tuple(tx.init(x) for x in params))
    run_training = jax.jit(lambda carry, keys: jax.lax.scan(step, carry, keys))
    ((generator, _), _), losses = run_training(carry, jax.random.split(key_train, config.steps))

    @jax.jit
    def generate_vectors(key: PRNGKey, labels: Int[Array, " m"]) -> list[Float[Array, "m _"]]:
        generated = functions.generate(generator, key, labels)
        return [x * std + mean for x, (mean, std) in zip(generated, moments, strict=True)]

    def sample(key: PRNGKey, labels: Int[np.ndarray, " m"]) -> LabelledVectors:
        audio, video = map(np.asarray, generate_vectors(key, jnp.asarray(labels)))
        return LabelledVectors(audio, video, np.asarray(labels))

    return sample, {name: float(step_losses[-100:].mean()) for name, step_losses in losses.items()}


def _make_step(
    functions: GanFunctions,
    tx: optax.GradientTransformation,
    real: VectorPair,
    labels: Int[Array, " n"],
    config: ConfigDict,
) -> Callable[[Carry, PRNGKey], tuple[Carry, dict[str, Float[Array, ""]]]]:
    """Returns a function `(carry, key) -> (carry, losses)` that updates discriminators, then generators.

    One call draws `config.batch_size` random rows of the real vectors. `carry` is `((generator,
    discriminator), (generator_state, discriminator_state))`: the parameters of both networks and the states
    of their optimizers. `losses` has a number for each of the keys `generator` and `discriminator`.

    Args:
      functions: networks of the GAN as pure functions.
      tx: optimizer of both networks.
      real: standardised real vectors, audio [n d_a] and video [n d_v].
      labels: class of each real vector.
      config: `batch_size`, and `correlation`, the factor of soft-HGR in the loss of the generators.
    """
    generate, project_common, discriminate = functions

    def discriminator_loss(
        discriminator: Params, generator: Params, key: PRNGKey, indices: Int[Array, " b"]
    ) -> Float[Array, ""]:
        generated = generate(generator, key, labels[indices])
        real_scores = discriminate(discriminator, (real[0][indices], real[1][indices]), labels[indices])
        generated_scores = discriminate(discriminator, generated, labels[indices])
        return jnp.mean(jax.nn.relu(1.0 - real_scores)) + jnp.mean(jax.nn.relu(1.0 + generated_scores))

    def generator_loss(
        generator: Params, discriminator: Params, key: PRNGKey, indices: Int[Array, " b"]
    ) -> Float[Array, ""]:
        generated = generate(generator, key, labels[indices])
        correlation = soft_hgr(*project_common(generator, generated))
        return (
            -jnp.mean(discriminate(discriminator, generated, labels[indices]))
            - config.correlation * correlation
        )

    def step(carry: Carry, key: PRNGKey) -> tuple[Carry, dict[str, Float[Array, ""]]]:
        (generator, discriminator), (generator_state, discriminator_state) = carry
        key_rows, key_discriminator, key_generator = jax.random.split(key, 3)
        indices = jax.random.randint(key_rows, (config.batch_size,), 0, len(labels))
        loss_discriminator, grads = jax.value_and_grad(discriminator_loss)(
            discriminator, generator, key_discriminator, indices
        )
        updates, discriminator_state = tx.update(grads, discriminator_state)
        discriminator = optax.apply_updates(discriminator, updates)
        loss_generator, grads = jax.value_and_grad(generator_loss)(
            generator, discriminator, key_generator, indices
        )
        updates, generator_state = tx.update(grads, generator_state)
        generator = optax.apply_updates(generator, updates)
        return ((generator, discriminator), (generator_state, discriminator_state)), {
            "generator": loss_generator,
            "discriminator": loss_discriminator,
        }

    return step
