"""Feature-space augmentation: pairs of pooled vectors, generated for the rare classes of the training split.

Ma et al., Data augmentation for audio-visual emotion recognition with an efficient multimodal conditional
GAN, Appl. Sci. 2022, 12(1), 527: a generator and a discriminator per modality, conditioned on the class, and
soft-HGR between the generated pair. The details of the networks are a design choice.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jaxtyping import Array, Float, Int

from emofuse_jax.models.layers.linear import linear
from emofuse_jax.ops.hgr import soft_hgr
from emofuse_jax.types import Params, PRNGKey

VectorPair = tuple[Float[Array, "b d_a"], Float[Array, "b d_v"]]


class ConditionalMLP(nnx.Module):
    """Two hidden layers with leaky ReLU, on a vector beside the one-hot class."""

    def __init__(self, in_features: int, hidden: int, out_features: int, classes: int, *, rngs: nnx.Rngs):
        self.first = linear(in_features + classes, hidden, jnp.float32, rngs=rngs)
        self.second = linear(hidden, hidden, jnp.float32, rngs=rngs)
        self.last = linear(hidden, out_features, jnp.float32, rngs=rngs)
        self.classes = classes

    def __call__(self, x: Float[Array, "b d"], label: Int[Array, " b"]) -> Float[Array, "b e"]:
        """The answer for vectors of given classes."""
        x = jnp.concatenate([x, jax.nn.one_hot(label, self.classes)], axis=-1)
        return self.last(jax.nn.leaky_relu(self.second(jax.nn.leaky_relu(self.first(x)))))


class PairGenerator(nnx.Module):
    """Generators of both modalities from one noise, their discriminators, and heads for the correlation."""

    def __init__(self, d_a: int, d_v: int, classes: int, config, *, rngs: nnx.Rngs):
        hidden = config.hidden
        self.audio = ConditionalMLP(config.noise, hidden, d_a, classes, rngs=rngs)
        self.video = ConditionalMLP(config.noise, hidden, d_v, classes, rngs=rngs)
        self.audio_head = linear(d_a, config.common, jnp.float32, rngs=rngs)
        self.video_head = linear(d_v, config.common, jnp.float32, rngs=rngs)


class PairDiscriminator(nnx.Module):
    """A score for each vector of a pair: high where it looks like one of its class."""

    def __init__(self, d_a: int, d_v: int, classes: int, config, *, rngs: nnx.Rngs):
        self.audio = ConditionalMLP(d_a, config.hidden, 1, classes, rngs=rngs)
        self.video = ConditionalMLP(d_v, config.hidden, 1, classes, rngs=rngs)

    def __call__(self, pair: VectorPair, label: Int[Array, " b"]) -> Float[Array, "b 2"]:
        """Scores (audio, video)."""
        return jnp.concatenate([self.audio(pair[0], label), self.video(pair[1], label)], axis=-1)


def make_gan(d_a: int, d_v: int, classes: int, config, key: PRNGKey):
    """Pure functions over plain dicts.

    Args:
      d_a: width of the audio vectors.
      d_v: width of the video vectors.
      classes: number of classes.
      config: widths `noise`, `hidden` and `common`.
      key: of the initial values.

    Returns:
      `(generator, critic)` parameters, `generate(generator, key, label) -> pair`,
      `project_common(generator, pair) -> (f, g)` for soft-HGR, and `discriminate(critic, pair, label) ->
      scores [b 2]`.
    """
    rngs = nnx.Rngs(params=key)
    generator_def, generator = nnx.split(PairGenerator(d_a, d_v, classes, config, rngs=rngs))
    discriminator_def, discriminator = nnx.split(PairDiscriminator(d_a, d_v, classes, config, rngs=rngs))

    def generate(params: Params, key: PRNGKey, label: Int[Array, " b"]) -> VectorPair:
        network = nnx.merge(generator_def, params)
        noise = jax.random.normal(key, (label.shape[0], config.noise))
        return network.audio(noise, label), network.video(noise, label)

    def project_common(params: Params, pair: VectorPair):
        network = nnx.merge(generator_def, params)
        return network.audio_head(pair[0]), network.video_head(pair[1])

    def discriminate(params: Params, pair: VectorPair, label: Int[Array, " b"]) -> Float[Array, "b 2"]:
        return nnx.merge(discriminator_def, params)(pair, label)

    return (
        (nnx.to_pure_dict(generator), nnx.to_pure_dict(discriminator)),
        generate,
        project_common,
        discriminate,
    )


class LabelledVectors(NamedTuple):
    """Pooled vectors of both streams with their classes."""

    audio: Float[np.ndarray, "n d_a"]
    video: Float[np.ndarray, "n d_v"]
    label: Int[np.ndarray, " n"]


def choose_labels_to_generate(labels: Int[np.ndarray, " n"], num_classes: int) -> Int[np.ndarray, " m"]:
    """The classes to generate, so that every class is as frequent as the most frequent one."""
    counts = np.bincount(labels, minlength=num_classes)
    return np.repeat(np.arange(num_classes), counts.max() - counts).astype(np.int32)


def train_gan(pairs: LabelledVectors, num_classes: int, config, key: PRNGKey):
    """Trains generators and discriminators in turn; returns `sample` and the last losses.

    `sample(key, labels)` returns LabelledVectors.

    Hinge losses (Miyato et al., arXiv 1802.05957) on vectors standardised per entry; the generator's loss is
    `-mean D(G) - correlation H(f(G_a), g(G_v))`.

    Args:
      pairs: real vectors of training clips, and no others.
      num_classes: number of classes.
      config: `noise`, `hidden`, `common`, `correlation`, `learning_rate`, `batch_size`, `steps`.
      key: of the initial values, batches and noise.
    """
    key_init, key_train = jax.random.split(key)
    real = [jnp.asarray(x) for x in (pairs.audio, pairs.video)]
    moments = [(x.mean(0), jnp.maximum(x.std(0), 1e-4)) for x in real]
    real = [(x - mean) / std for x, (mean, std) in zip(real, moments, strict=True)]
    labels = jnp.asarray(pairs.label)
    params, *functions = make_gan(real[0].shape[1], real[1].shape[1], num_classes, config, key_init)
    tx = optax.adam(config.learning_rate, b1=0.5, b2=0.9)
    step = _make_step(functions, tx, real, labels, config)
    carry = (params, tuple(tx.init(x) for x in params))
    run_training = jax.jit(lambda carry, keys: jax.lax.scan(step, carry, keys))
    ((generator, _), _), losses = run_training(carry, jax.random.split(key_train, config.steps))
    generate = functions[0]

    @jax.jit
    def generate_vectors(key: PRNGKey, labels):
        generated = generate(generator, key, labels)
        return [x * std + mean for x, (mean, std) in zip(generated, moments, strict=True)]

    def sample(key: PRNGKey, labels: Int[np.ndarray, " m"]) -> LabelledVectors:
        return LabelledVectors(
            *map(np.asarray, generate_vectors(key, jnp.asarray(labels))), np.asarray(labels)
        )

    return sample, {name: float(step_losses[-100:].mean()) for name, step_losses in losses.items()}


def _make_step(functions, tx: optax.GradientTransformation, real: list, labels, config):
    """`(carry, key) -> carry, losses` for a scan: the discriminators' update, then the generators'."""
    generate, project_common, discriminate = functions

    def discriminator_loss(discriminator, generator, key, indices):
        generated = generate(generator, key, labels[indices])
        real_scores = discriminate(discriminator, tuple(x[indices] for x in real), labels[indices])
        generated_scores = discriminate(discriminator, generated, labels[indices])
        return jnp.mean(jax.nn.relu(1.0 - real_scores)) + jnp.mean(jax.nn.relu(1.0 + generated_scores))

    def generator_loss(generator, discriminator, key, indices):
        generated = generate(generator, key, labels[indices])
        correlation = soft_hgr(*project_common(generator, generated))
        return (
            -jnp.mean(discriminate(discriminator, generated, labels[indices]))
            - config.correlation * correlation
        )

    def step(carry, key):
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
