"""Augmentation of spectrograms on the device: crops, masks, loudness, speed, pitch, noise and reverberation.

Noise and reverberation add up powers, as they do in expectation for sounds that do not know of each other: a
recipe's numbers become powers by `exp(2 x / neper)` (data/spectrogram_units.py) and numbers again.
"""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from emofuse_jax.ops.masking import masked_mean
from emofuse_jax.types import Batch, PRNGKey


def augment_audio(batch: Batch, key: PRNGKey, config, *, units_per_neper: float) -> Batch:
    """Crop, speed, pitch, reverberation and noise, as `config` asks (`augment_defaults`)."""
    if not batch.audio.size:  # records of features alone
        return batch
    keys = jax.random.split(key, 7)
    if config.crop:
        batch = crop_time(batch, keys[4], config.crop)
    if config.speed:
        batch = change_speed(batch, keys[0], config.speed)
    if config.pitch:
        batch = shift_pitch(batch, keys[1], config.pitch)
    if config.equalizer:
        batch = equalize(batch, keys[5], config.equalizer * units_per_neper)
    if config.style:
        batch = mix_style(batch, keys[6], config.style)
    if config.reverb:
        batch = reverberate(
            batch, keys[2], config.reverb, steps=config.reverb_steps, units_per_neper=units_per_neper
        )
    if config.noise:
        batch = add_noise(
            batch,
            keys[3],
            config.noise,
            snr_range_db=(config.noise_snr_min, config.noise_snr_max),
            units_per_neper=units_per_neper,
        )
    return batch


def crop_time(batch: Batch, key: PRNGKey, steps: int) -> Batch:
    """A random window of each clip; a shorter clip stays whole. ValueError where all clips are shorter."""
    t, length = batch.audio.shape[1], batch.audio_mask.sum(1)
    if steps > t:
        raise ValueError(f"augment.crop={steps}: clips have {t} steps")
    starts = jax.random.uniform(key, length.shape) * (jnp.maximum(length - steps, 0) + 1)

    def take_window(values, start):
        return jax.lax.dynamic_slice_in_dim(values, start, steps)

    audio, mask = (
        jax.vmap(take_window)(x, starts.astype(jnp.int32)) for x in (batch.audio, batch.audio_mask)
    )
    return replace_audio(batch, audio, mask)


def change_speed(batch: Batch, key: PRNGKey, max_log_rate: float) -> Batch:
    """Each clip `exp(u)` times as fast, u in +-`max_log_rate`; what then lies past the last step is cut.

    Linear interpolation between steps (tempo; Ko et al., 2015, change the pitch with it: see `shift_pitch`).
    """
    t, length = batch.audio.shape[1], batch.audio_mask.sum(1)
    rate = jnp.exp(max_log_rate * jax.random.uniform(key, length.shape, minval=-1.0))
    positions = rate[:, None] * jnp.arange(t)  # b t
    mask = positions <= (length - 1)[:, None]
    audio = jax.vmap(interpolate)(
        batch.audio.astype(jnp.float32), jnp.clip(positions, 0, (length - 1)[:, None])
    )
    return replace_audio(batch, audio, mask & batch.audio_mask[:, :1])


def shift_pitch(batch: Batch, key: PRNGKey, max_log_rate: float) -> Batch:
    """Stretches the axis of bins of each clip by `exp(u)`, u in +-`max_log_rate`: formants too.

    A change of all by one factor where bins are even in Hz; of mel filters so below 1 kHz, and more of it
    above (vocal tract length perturbation, Jaitly & Hinton, 2013). Past the last bin it repeats.
    """
    f = batch.audio.shape[2]
    rate = jnp.exp(max_log_rate * jax.random.uniform(key, batch.label.shape, minval=-1.0))
    positions = jnp.clip(rate[:, None] * jnp.arange(f), 0, f - 1)  # b f
    audio = jax.vmap(interpolate)(jnp.swapaxes(batch.audio.astype(jnp.float32), 1, 2), positions)
    return replace_audio(batch, jnp.swapaxes(audio, 1, 2), batch.audio_mask)


def equalize(batch: Batch, key: PRNGKey, max_gain: float) -> Batch:
    """Adds to each clip's bins a curve through five random heights in +-`max_gain`, linear between them.

    As another microphone, or another speaker's long-term spectrum, would (FilterAugment, arXiv 2110.03282).
    """
    f = batch.audio.shape[2]
    node_gains = max_gain * jax.random.uniform(key, (batch.label.shape[0], 5, 1), minval=-1.0)
    positions = jnp.broadcast_to(jnp.linspace(0.0, 4.0, f), (len(node_gains), f))
    curve = jax.vmap(interpolate)(node_gains, positions)[..., 0]  # b f
    return replace_audio(batch, batch.audio + curve[:, None], batch.audio_mask)


def mix_style(batch: Batch, key: PRNGKey, probability: float, *, alpha: float = 0.3) -> Batch:
    """With probability `probability` a clip's mean and deviation of each bin, mixed with those of another
    clip.

    `x' = (x - mu_i) / sd_i * sd + mu`, `sd = s sd_i + (1 - s) sd_j`, likewise mu; s ~ Beta(alpha, alpha), j
    is row b - 1 - i. The label stays: what differs in the long-term spectrum is voice and room (MixStyle,
    Zhou et al., arXiv 2104.02008, over bins). Clips without sound stay as they are.
    """
    key_weight, key_mixed = jax.random.split(key)
    mask = batch.audio_mask
    has_audio = mask.any(axis=1)
    is_mixed = jax.random.bernoulli(key_mixed, probability, has_audio.shape) & has_audio & has_audio[::-1]
    weight = jnp.where(is_mixed, jax.random.beta(key_weight, alpha, alpha, has_audio.shape), 1.0)[
        :, None, None
    ]
    x = batch.audio.astype(jnp.float32)
    mean = masked_mean(x, mask)[:, None]  # b 1 f
    deviation = jnp.sqrt(masked_mean((x - mean) ** 2, mask)[:, None] + 1e-5)
    new_mean, new_deviation = (weight * v + (1 - weight) * v[::-1] for v in (mean, deviation))
    return replace_audio(batch, (x - mean) / deviation * new_deviation + new_mean, mask)


def reverberate(
    batch: Batch, key: PRNGKey, probability: float, *, steps: int, units_per_neper: float
) -> Batch:
    """With probability `probability` a room: `y_i = x_i + g sum_k a^k x_(i-k)` of powers.

    `a` lets power fall by 60 dB in 10 to `steps` steps; the sum of what comes back is 0 to 15 dB below the
    direct sound. Reference: the exponential decay of Polack's model of late reverberation.
    """
    keys = jax.random.split(key, 3)
    batch_shape = batch.label.shape
    decay_steps = jax.random.uniform(keys[0], batch_shape, minval=10.0, maxval=float(steps))
    decay = jnp.power(10.0, -6.0 / decay_steps)[:, None, None]
    level = jnp.power(10.0, -0.1 * jax.random.uniform(keys[1], batch_shape, maxval=15.0))[:, None, None]
    has_reverb = jax.random.bernoulli(keys[2], probability, batch_shape)[:, None, None]
    power = jnp.where(
        batch.audio_mask[..., None], jnp.exp(batch.audio.astype(jnp.float32) * 2 / units_per_neper), 0
    )

    def combine(first, second):
        return first[0] * second[0], second[0] * first[1] + second[1]

    _, total = jax.lax.associative_scan(combine, (jnp.broadcast_to(decay, power.shape), power), axis=1)
    reverb_power = (total - power) * level * (1 - decay) / decay
    reverberant = batch.audio + (jnp.log1p(reverb_power / jnp.maximum(power, 1e-30)) * units_per_neper / 2)
    return replace_audio(batch, jnp.where(has_reverb, reverberant, batch.audio), batch.audio_mask)


def add_noise(
    batch: Batch,
    key: PRNGKey,
    probability: float,
    *,
    snr_range_db: tuple[float, float],
    units_per_neper: float,
) -> Batch:
    """With probability `probability` noise, its power in all bins `snr_range_db` dB (lowest, highest) below
    the clip's.

    Its spectrum falls or rises by up to 20 dB over the bins; in each step and bin it is exponentially
    distributed, as the power of Gaussian noise is.
    """
    keys = jax.random.split(key, 4)
    batch_shape = batch.label.shape
    snr_db = jax.random.uniform(keys[0], batch_shape, minval=snr_range_db[0], maxval=snr_range_db[1])
    tilt_bels = jax.random.uniform(keys[1], batch_shape, minval=-2.0, maxval=2.0)
    has_noise = jax.random.bernoulli(keys[2], probability, batch_shape)[:, None, None]
    return replace_audio(
        batch,
        jnp.where(
            has_noise,
            noisy_spectrogram(batch, keys[3], snr_db, tilt_bels, units_per_neper=units_per_neper),
            batch.audio,
        ),
        batch.audio_mask,
    )


def noisy_spectrogram(
    batch: Batch,
    key: PRNGKey,
    snr_db: Float[Array, " b"],
    tilt_bels: Float[Array, " b"],
    *,
    units_per_neper: float,
) -> Float[Array, "b t f"]:
    """The spectrogram with noise `snr_db` dB below each clip's mean power; `tilt_bels` in bels over the
    bins."""
    f = batch.audio.shape[2]
    step_mask = batch.audio_mask[..., None]
    x = batch.audio.astype(jnp.float32) * 2 / units_per_neper
    power = jnp.where(step_mask, jnp.exp(x), 0)
    mean = power.sum((1, 2)) / jnp.maximum(f * batch.audio_mask.sum(1), 1)  # b
    spectrum = jnp.power(10.0, tilt_bels[:, None] * jnp.linspace(-0.5, 0.5, f))  # b f
    spectrum *= (mean * jnp.power(10.0, -snr_db / 10))[:, None] / spectrum.mean(1, keepdims=True)
    noise = spectrum[:, None] * jax.random.exponential(key, power.shape)  # b t f
    return jnp.logaddexp(x, jnp.log(jnp.maximum(noise, 1e-30))) * units_per_neper / 2


def spec_augment(
    batch: Batch,
    key: PRNGKey,
    *,
    time_masks: tuple[int, int],
    frequency_masks: tuple[int, int],
    max_gain: float,
) -> Batch:
    """SpecAugment (arXiv 1904.08779) on the log spectrogram, and a random loudness.

    Masked stripes take the clip's mean per bin over its valid steps, so that no foreign value enters.

    Args:
      batch: with `audio` [b t f].
      key: of the step.
      time_masks: (number of masks, largest width in steps).
      frequency_masks: (number of masks, largest width in bins).
      max_gain: largest change of loudness, in the unit of the spectrogram.
    """
    key_time, key_frequency, key_gain = jax.random.split(key, 3)
    b, t, f = batch.audio.shape
    audio = batch.audio.astype(jnp.float32)
    mean = masked_mean(audio, batch.audio_mask)[:, None]  # b 1 f
    length = batch.audio_mask.sum(1)
    is_masked = random_intervals(key_time, b, t, length, *time_masks)[:, :, None]
    is_masked |= random_intervals(key_frequency, b, f, jnp.full(b, f), *frequency_masks)[:, None, :]
    audio = jnp.where(is_masked, mean, audio)
    audio += max_gain * jax.random.uniform(key_gain, (b, 1, 1), minval=-1.0)
    return replace_audio(batch, audio, batch.audio_mask)


def random_intervals(
    key: PRNGKey, batch_size: int, size: int, length: Int[Array, " b"], count: int, max_width: int
) -> Bool[Array, "b n"]:
    """`count` random intervals of up to `max_width` positions inside the first `length` of `size`."""
    is_inside = jnp.zeros((batch_size, size), bool)
    position = jnp.arange(size)
    for interval_key in jax.random.split(key, count):
        key_width, key_start = jax.random.split(interval_key)
        widths = jax.random.randint(key_width, (batch_size,), 0, max_width + 1)
        start = jax.random.uniform(key_start, (batch_size,)) * jnp.maximum(length - widths, 0)
        start = start.astype(jnp.int32)
        is_inside |= (position >= start[:, None]) & (position < (start + widths)[:, None])
    return is_inside & (position < length[:, None])


def interpolate(values: Float[Array, "n d"], positions: Float[Array, " m"]) -> Float[Array, "m d"]:
    """Rows of `values` at fractional places, linear between two; `positions` in 0 to n - 1."""
    low = jnp.floor(positions).astype(jnp.int32)
    high, fraction = jnp.minimum(low + 1, len(values) - 1), (positions - low)[:, None]
    return (1 - fraction) * values[low] + fraction * values[high]


def replace_audio(batch: Batch, audio: Float[Array, "b t f"], mask: Bool[Array, "b t"]) -> Batch:
    """The batch with another spectrogram, zero at padding, in the dtype that it had."""
    audio = jnp.where(mask[..., None], audio, 0).astype(batch.audio.dtype)
    return dataclasses.replace(batch, audio=audio, audio_mask=mask)
