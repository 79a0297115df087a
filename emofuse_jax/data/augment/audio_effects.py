"""Augments spectrograms on the device: crops, masks, loudness, speed, pitch, noise and reverberation.

Noise and reverberation add powers, which holds in expectation for uncorrelated signals. A recipe's values x
are converted to powers by `exp(2 x / units_per_neper)` (data/spectrogram_units.py) and back.
"""

import dataclasses

import jax
import jax.numpy as jnp
import ml_collections
from jaxtyping import Array, Bool, Float, Int, Shaped

from emofuse_jax.ops.masking import masked_mean
from emofuse_jax.types import Batch, PRNGKey

DecayAndSum = tuple[Float[Array, "b t f"], Float[Array, "b t f"]]
"""Decay over some steps, and the decayed sum of their powers: what the scan of `reverberate` combines."""


def augment_audio(
    batch: Batch, key: PRNGKey, config: ml_collections.ConfigDict, *, units_per_neper: float
) -> Batch:
    """Applies each effect whose field in `config` is not 0 to the spectrogram, and returns the new batch.

    The order is `crop`, `speed`, `pitch`, `equalizer`, `style`, `reverb`, `noise`. Audio features do not
    change.

    Args:
      batch: The batch; returned unchanged if it has no spectrogram.
      key: Random key of the step.
      config: `config.augment` of the experiment. Its fields are `crop` in steps; `speed` and `pitch`, the
        largest log of the factor; `equalizer`, the largest gain in nepers; the probabilities `style`,
        `reverb` and `noise`; `reverb_steps`, in which the longest reverberation falls by 60 dB; and the
        limits of the signal-to-noise ratio, `noise_snr_min` and `noise_snr_max`, in dB.
      units_per_neper: One neper in the unit of the spectrogram: 1 for log magnitudes, 2 for log energies,
        8.69 for decibels.

    Raises:
      ValueError: `config.crop` is larger than the number of steps.
    """
    if not batch.audio.size:  # records that store only features
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
    """Returns the batch with each clip cropped to a random window of `steps` steps.

    A shorter clip loses only padding. In the result the spectrogram has shape [b steps f], its mask
    [b steps].

    Raises:
      ValueError: `steps` is larger than the number of steps in the batch.
    """
    t, length = batch.audio.shape[1], batch.audio_mask.sum(1)
    if steps > t:
        raise ValueError(f"augment.crop={steps}: expected at most {t}, the steps of a clip in the batch")
    starts = jax.random.uniform(key, length.shape) * (jnp.maximum(length - steps, 0) + 1)

    def take_window(values: Shaped[Array, "t *rest"], start: Int[Array, ""]) -> Shaped[Array, "n *rest"]:
        return jax.lax.dynamic_slice_in_dim(values, start, steps)

    audio, mask = (
        jax.vmap(take_window)(x, starts.astype(jnp.int32)) for x in (batch.audio, batch.audio_mask)
    )
    return replace_audio(batch, audio, mask)


def change_speed(batch: Batch, key: PRNGKey, max_log_rate: float) -> Batch:
    """Makes each clip `exp(u)` times as fast, u uniform in +-`max_log_rate`; cuts steps that no longer fit.

    Returns the new batch; its mask is True at the steps of the new length, at most as many as before.
    Interpolates linearly between steps, so that only the tempo changes. (Ko et al., 2015, change the pitch
    too; see `shift_pitch`.)
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
    """Stretches each clip's frequency axis by `exp(u)`, u uniform in +-`max_log_rate`; repeats the last bin.

    Returns the new batch. Pitch and formants change together. If the bins are evenly spaced in Hz, all
    frequencies change by one factor; with mel filters this holds below 1 kHz, and higher frequencies change
    more (vocal tract length perturbation, Jaitly & Hinton, 2013).
    """
    f = batch.audio.shape[2]
    rate = jnp.exp(max_log_rate * jax.random.uniform(key, batch.label.shape, minval=-1.0))
    positions = jnp.clip(rate[:, None] * jnp.arange(f), 0, f - 1)  # b f
    audio = jax.vmap(interpolate)(jnp.swapaxes(batch.audio.astype(jnp.float32), 1, 2), positions)
    return replace_audio(batch, jnp.swapaxes(audio, 1, 2), batch.audio_mask)


def equalize(batch: Batch, key: PRNGKey, max_gain: float) -> Batch:
    """Adds a random curve over the bins to each clip: linear between five values in +-`max_gain`.

    Returns the new batch. The values are uniform, and evenly spaced from the first to the last bin;
    `max_gain` is in the unit of the spectrogram. This imitates another microphone or the long-term spectrum
    of another speaker (FilterAugment, arXiv 2110.03282).
    """
    f = batch.audio.shape[2]
    node_gains = max_gain * jax.random.uniform(key, (batch.label.shape[0], 5, 1), minval=-1.0)
    positions = jnp.broadcast_to(jnp.linspace(0.0, 4.0, f), (len(node_gains), f))
    curve = jax.vmap(interpolate)(node_gains, positions)[..., 0]  # b f
    return replace_audio(batch, batch.audio + curve[:, None], batch.audio_mask)


def mix_style(batch: Batch, key: PRNGKey, probability: float, *, alpha: float = 0.3) -> Batch:
    """Mixes the mean and deviation of each bin of a clip with those of another clip; returns the new batch.

    `x' = (x - mu_i) / sd_i * sd + mu` with `sd = s sd_i + (1 - s) sd_j`, mu likewise, s ~ Beta(alpha, alpha);
    i is the row of the clip and j = b - 1 - i that of the other one. A clip is changed with probability
    `probability`; clips without audio, or whose other clip has no audio, are not changed. The label does not
    change, because the long-term spectrum describes voice and room (MixStyle, Zhou et al., arXiv 2104.02008,
    applied to bins).
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
    """Adds reverberation to a clip with probability `probability`: `y_i = x_i + g sum_k a^k x_(i-k)`, k >= 1.

    x_i is the power in a bin of step i before, and y_i after it. `a` makes the power fall by 60 dB in a
    random number of steps, uniform from 10 to `steps` (10 if `steps` is smaller); `g` makes the summed
    reverberation 0 to 15 dB (uniform) weaker than the direct sound. `units_per_neper` is one neper in the
    unit of the spectrogram: 1 for log magnitudes, 2 for log energies. Returns the new batch. Reference:
    exponential decay in Polack's model of late reverberation.
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

    def combine(first: DecayAndSum, second: DecayAndSum) -> DecayAndSum:
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
    """Adds noise to a clip with probability `probability`, at a random signal-to-noise ratio.

    Returns the new batch. The ratio of the total powers is uniform in `snr_range_db` (lowest, highest, in
    dB). The spectrum of the noise falls or rises by up to 20 dB over the bins. Its power in each step and bin
    is exponentially distributed, like that of Gaussian noise. `units_per_neper` is one neper in the unit of
    the spectrogram: 1 for log magnitudes, 2 for log energies.
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
    """Returns the spectrogram in float32 with added noise; steps of padding get noise too.

    Args:
      batch: The batch.
      key: Random key.
      snr_db: Mean power of each clip over that of its noise, in dB.
      tilt_bels: Change of the noise's spectrum from the first to the last bin, in bels (10 dB).
      units_per_neper: One neper in the unit of the spectrogram: 1 for log magnitudes, 2 for log energies.
    """
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
    """Applies SpecAugment (arXiv 1904.08779) to the log spectrogram and changes its loudness at random.

    Returns the new batch. Masked intervals are filled with the clip's mean of each bin over its valid steps;
    they may overlap. Widths (from 0) and the change of loudness (up or down) are uniform.

    Args:
      batch: The batch, with `audio` [b t f].
      key: Random key of the step.
      time_masks: (number of masks, largest width in steps).
      frequency_masks: (number of masks, largest width in bins).
      max_gain: Largest change of loudness, in the unit of the spectrogram.
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
    """Returns a mask [batch_size size], True inside `count` random intervals of each row.

    An interval has 0 to `max_width` positions and is within the first `length` positions of its row; `length`
    has one number for each row. Intervals may overlap.
    """
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
    """Returns the rows of `values` at the m fractional `positions`, by linear interpolation.

    The positions must be from 0 to n - 1; this is not checked.
    """
    low = jnp.floor(positions).astype(jnp.int32)
    high, fraction = jnp.minimum(low + 1, len(values) - 1), (positions - low)[:, None]
    return (1 - fraction) * values[low] + fraction * values[high]


def replace_audio(batch: Batch, audio: Float[Array, "b t f"], mask: Bool[Array, "b t"]) -> Batch:
    """Returns the batch with another spectrogram and mask.

    The spectrogram is zero where `mask` is False and has the dtype of `batch.audio`.
    """
    audio = jnp.where(mask[..., None], audio, 0).astype(batch.audio.dtype)
    return dataclasses.replace(batch, audio=audio, audio_mask=mask)
