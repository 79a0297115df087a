"""Class-conditional generators and discriminators of pooled vectors, one of each per modality."""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

from emofuse_jax.models.layers import linear
from emofuse_jax.types import Params, PRNGKey

Pair = tuple[Float[Array, "b d_a"], Float[Array, "b d_v"]]


class Perceptron(nnx.Module):
    """Two hidden layers with leaky ReLU, on a vector beside the one-hot class."""

    def __init__(self, inputs: int, hidden: int, outputs: int, classes: int, *, rngs: nnx.Rngs):
        self.first = linear(inputs + classes, hidden, jnp.float32, rngs=rngs)
        self.second = linear(hidden, hidden, jnp.float32, rngs=rngs)
        self.last = linear(hidden, outputs, jnp.float32, rngs=rngs)
        self.classes = classes

    def __call__(self, x: Float[Array, "b d"], label: Int[Array, " b"]) -> Float[Array, "b e"]:
        """The answer for vectors of given classes."""
        x = jnp.concatenate([x, jax.nn.one_hot(label, self.classes)], axis=-1)
        return self.last(jax.nn.leaky_relu(self.second(jax.nn.leaky_relu(self.first(x)))))


class PairGan(nnx.Module):
    """Generators of both modalities from one noise, their discriminators, and heads for the correlation."""

    def __init__(self, d_a: int, d_v: int, classes: int, config, *, rngs: nnx.Rngs):
        hidden = config.hidden
        self.audio = Perceptron(config.noise, hidden, d_a, classes, rngs=rngs)
        self.video = Perceptron(config.noise, hidden, d_v, classes, rngs=rngs)
        self.audio_head = linear(d_a, config.common, jnp.float32, rngs=rngs)
        self.video_head = linear(d_v, config.common, jnp.float32, rngs=rngs)


class PairCritic(nnx.Module):
    """A score for each vector of a pair: high where it looks like one of its class."""

    def __init__(self, d_a: int, d_v: int, classes: int, config, *, rngs: nnx.Rngs):
        self.audio = Perceptron(d_a, config.hidden, 1, classes, rngs=rngs)
        self.video = Perceptron(d_v, config.hidden, 1, classes, rngs=rngs)

    def __call__(self, pair: Pair, label: Int[Array, " b"]) -> Float[Array, "b 2"]:
        """Scores (audio, video)."""
        return jnp.concatenate([self.audio(pair[0], label), self.video(pair[1], label)], axis=-1)


def make_gan(d_a: int, d_v: int, classes: int, config, key: PRNGKey):
    """Pure functions over plain dicts.

    Args:
      d_a: width of the audio vectors.
      d_v: width of the video vectors.
      classes: number of classes.
      config: `noise`, `hidden` and `common` widths.
      key: of the initial values.

    Returns:
      `(generator, critic)` parameters, `generate(generator, key, label) -> pair`,
      `common(generator, pair) -> (f, g)` for soft-HGR, and `judge(critic, pair, label) -> scores [b 2]`.
    """
    rngs = nnx.Rngs(params=key)
    generator_def, generator = nnx.split(PairGan(d_a, d_v, classes, config, rngs=rngs))
    critic_def, critic = nnx.split(PairCritic(d_a, d_v, classes, config, rngs=rngs))

    def generate(params: Params, key: PRNGKey, label: Int[Array, " b"]) -> Pair:
        network = nnx.merge(generator_def, params)
        noise = jax.random.normal(key, (label.shape[0], config.noise))
        return network.audio(noise, label), network.video(noise, label)

    def common(params: Params, pair: Pair):
        network = nnx.merge(generator_def, params)
        return network.audio_head(pair[0]), network.video_head(pair[1])

    def judge(params: Params, pair: Pair, label: Int[Array, " b"]) -> Float[Array, "b 2"]:
        return nnx.merge(critic_def, params)(pair, label)

    return (nnx.to_pure_dict(generator), nnx.to_pure_dict(critic)), generate, common, judge
