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
from jaxtyping import Float, Int

from emofuse_jax.models.gan import make_gan
from emofuse_jax.ops.hgr import soft_hgr
from emofuse_jax.types import PRNGKey


class Pairs(NamedTuple):
    """Pooled vectors of both streams with their classes."""

    audio: Float[np.ndarray, "n d_a"]
    video: Float[np.ndarray, "n d_v"]
    label: Int[np.ndarray, " n"]


def missing_labels(label: Int[np.ndarray, " n"], classes: int) -> Int[np.ndarray, " m"]:
    """The classes to generate, so that every class is as frequent as the most frequent one."""
    counts = np.bincount(label, minlength=classes)
    return np.repeat(np.arange(classes), counts.max() - counts).astype(np.int32)


def train_gan(pairs: Pairs, classes: int, config, key: PRNGKey):
    """Trains generators and discriminators in turn; gives `sample(key, label) -> Pairs` and the last losses.

    Hinge losses (Miyato et al., arXiv 1802.05957) on vectors standardised per entry; the generator's loss is
    `-mean D(G) - correlation H(f(G_a), g(G_v))`.

    Args:
      pairs: real vectors of training clips, and no others.
      classes: number of classes.
      config: `noise`, `hidden`, `common`, `correlation`, `learning_rate`, `batch_size`, `steps`.
      key: of the initial values, batches and noise.
    """
    key_init, key_train = jax.random.split(key)
    real = [jnp.asarray(x) for x in (pairs.audio, pairs.video)]
    scales = [(x.mean(0), jnp.maximum(x.std(0), 1e-4)) for x in real]
    real = [(x - mean) / std for x, (mean, std) in zip(real, scales, strict=True)]
    label = jnp.asarray(pairs.label)
    numbers, *functions = make_gan(real[0].shape[1], real[1].shape[1], classes, config, key_init)
    tx = optax.adam(config.learning_rate, b1=0.5, b2=0.9)
    step = _make_step(functions, tx, real, label, config)
    carry = (numbers, tuple(tx.init(x) for x in numbers))
    run = jax.jit(lambda carry, keys: jax.lax.scan(step, carry, keys))
    ((generator, _), _), losses = run(carry, jax.random.split(key_train, config.steps))
    generate = functions[0]

    @jax.jit
    def vectors(key: PRNGKey, label):
        fake = generate(generator, key, label)
        return [x * std + mean for x, (mean, std) in zip(fake, scales, strict=True)]

    def sample(key: PRNGKey, label: Int[np.ndarray, " m"]) -> Pairs:
        return Pairs(*map(np.asarray, vectors(key, jnp.asarray(label))), np.asarray(label))

    return sample, {name: float(values[-100:].mean()) for name, values in losses.items()}


def _make_step(functions, tx: optax.GradientTransformation, real: list, label, config):
    """`(carry, key) -> carry, losses` for a scan: the discriminators' update, then the generators'."""
    generate, common, judge = functions

    def critic_loss(critic, generator, key, chosen):
        fake = generate(generator, key, label[chosen])
        good = judge(critic, tuple(x[chosen] for x in real), label[chosen])
        bad = judge(critic, fake, label[chosen])
        return jnp.mean(jax.nn.relu(1.0 - good)) + jnp.mean(jax.nn.relu(1.0 + bad))

    def generator_loss(generator, critic, key, chosen):
        fake = generate(generator, key, label[chosen])
        agreement = soft_hgr(*common(generator, fake))
        return -jnp.mean(judge(critic, fake, label[chosen])) - config.correlation * agreement

    def step(carry, key):
        (generator, critic), (state_g, state_c) = carry
        key_rows, key_c, key_g = jax.random.split(key, 3)
        chosen = jax.random.randint(key_rows, (config.batch_size,), 0, len(label))
        loss_c, grads = jax.value_and_grad(critic_loss)(critic, generator, key_c, chosen)
        updates, state_c = tx.update(grads, state_c)
        critic = optax.apply_updates(critic, updates)
        loss_g, grads = jax.value_and_grad(generator_loss)(generator, critic, key_g, chosen)
        updates, state_g = tx.update(grads, state_g)
        generator = optax.apply_updates(generator, updates)
        return ((generator, critic), (state_g, state_c)), {"generator": loss_g, "discriminator": loss_c}

    return step
