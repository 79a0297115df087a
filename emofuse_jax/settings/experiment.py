"""Defines every config field of an experiment with its default; a config file changes some of them."""

from collections.abc import Mapping
from typing import Any, cast

import ml_collections

from emofuse_jax import losses
from emofuse_jax.settings.model import default_model_config
from emofuse_jax.types import ConfigFields
from emofuse_jax.utils.validation import reject_unknown_fields


def base(fusion: str = "am_fbp", *, audio: str = "fcn", video: str = "frames") -> ml_collections.ConfigDict:
    """Returns a complete experiment config: a fusion of two encoders at the sizes of the papers.

    The fields are `name` (that of the fusion) and `seed` (0) of the experiment, and the groups `init`
    (workdir or file with the initial parameters of `audio` and `video`; empty: random), `loss` (`smoothing`
    of the labels, and `objectives`, the factor of each built-in objective by name), `mesh` (`data`, the
    number of devices that share a batch, -1 for all; and `fsdp`, True if large parameters are sharded over
    them), and `model`, `data`, `augment`, `optimizer`, `train` and `crossval`, which `default_model_config`,
    `data_defaults`, `augment_defaults` and so on describe.

    Args:
      fusion: Name of the fusion, such as `am_fbp`, `concat` or one that was registered.
      audio: Name of the audio encoder: `fcn`, `mel_cnn`, `ecapa`, `segments`, `resnet`, `features` or one
        that was registered.
      video: Name of the video encoder: `frames`, `snippets`, `features` or one that was registered.

    Raises:
      ValueError: The name of the fusion or of an encoder is unknown, or an installed package provides it but
        it cannot be imported or used.
    """
    config = ml_collections.ConfigDict()
    config.name = fusion
    config.seed = 0
    config.model = default_model_config(fusion, audio=audio, video=video)
    # Initial parameters of each encoder: the workdir of a run that trained it, or public weights
    # (.safetensors); empty: random.
    config.init = ml_collections.ConfigDict({"audio": "", "video": ""})
    config.data = data_defaults()
    config.augment = augment_defaults()
    config.loss = losses.loss_defaults()
    config.optimizer = optimizer_defaults()
    config.train = train_defaults()
    config.crossval = crossval_defaults()
    # data: number of devices that share a batch; -1: all. fsdp: large parameters are sharded over them.
    config.mesh = ml_collections.ConfigDict({"data": -1, "fsdp": False})
    return config


def default_fields(model: Mapping[str, Any]) -> ConfigFields:
    """Returns every experiment field at its default, as nested dicts, for the names in a `config.model`.

    `model` needs `fusion.name`, `audio.encoder` and `video.encoder`. In the result, `loss.objectives` lists
    every objective with weight 0.

    Raises:
      ValueError: One of these three fields is missing or names an unknown fusion or encoder, or an installed
        package provides it but it cannot be imported or used.
    """
    return with_registered_objectives(required_fields(model))


def required_fields(model: Mapping[str, Any]) -> ConfigFields:
    """Returns the fields that every experiment has, at their defaults, as nested dicts.

    `loss.objectives` lists only the built-in objectives: `cross_entropy` with weight 1, the others with 0.
    `model`, a `config.model`, needs `fusion.name`, `audio.encoder` and `video.encoder`.

    Raises:
      ValueError: One of these three fields is missing or names an unknown fusion or encoder, or an installed
        package provides it but it cannot be imported or used.
    """
    encoders = {name: _required_name(model, name, "encoder") for name in ("audio", "video")}
    return base(_required_name(model, "fusion", "name"), **encoders).to_dict()


def _required_name(model: Mapping[str, Any], section: str, field: str) -> str:
    """Returns `model[section][field]`; raises ValueError if it is missing, and names it in the message."""
    fields = model.get(section)
    if not isinstance(fields, Mapping | ml_collections.ConfigDict) or field not in fields:
        raise ValueError(
            f"config.model.{section}.{field}: this field is missing; start from a shipped config or from"
            " emofuse_jax.settings.base()"
        )
    return cast(str, fields[field])


def with_registered_objectives(fields: ConfigFields) -> ConfigFields:
    """Returns a copy of the fields in which `loss.objectives` lists every objective with weight 0.

    These are the built-in objectives and the registered ones; other fields do not change.
    """
    return fields | {"loss": fields["loss"] | {"objectives": dict.fromkeys(losses.OBJECTIVES, 0.0)}}


def check_fields(config: ml_collections.ConfigDict) -> None:
    """Raises ValueError if a config has a field that experiments do not have; names the first such field.

    Also raises ValueError if it names no fusion or encoder, an unknown one, or one of an installed package
    that cannot be imported or used. Other missing fields and the types of values are not checked.
    """
    fields = config.to_dict()
    model = fields.get("model")
    reject_unknown_fields(fields, default_fields(model if isinstance(model, Mapping) else {}), "config")


def data_defaults() -> ml_collections.ConfigDict:
    """Returns the defaults of `config.data`: the records to read, and how batches are made of them.

    Records: `path`, their directory; `recipe`, the name of the preprocessing recipe that they must have
    (others are rejected); `protocol`, the name of the evaluation protocol, empty for the only one; `fold`,
    from 0; and `hold_out`, False to train on validation clips too. Clips: `audio_steps`, the spectrogram
    steps; `labelled_fraction`, the fraction of each class's clips whose labels are used; and
    `keep_unlabelled`, False to leave out the others. Batches: `batch_size`, the clips in a batch, all
    processes together; `balanced`, True for equally many clips of each class;
    `labelled_share`, the fraction of labelled rows, 0 for that of the data; `buckets`, the largest number of
    different lengths to which streamed batches are padded (1: all have `audio_steps`); `threads` that read
    records; `on_corrupt`, at a damaged record "stop" or "skip"; and `mode`, "stream", "resident" (all clips
    in the devices' memory) or "auto".
    """
    return ml_collections.ConfigDict(
        {
            "path": "",  # directory written by emofuse prepare
            "recipe": "fbp",  # preprocessing recipe of the records
            "protocol": "",  # name of the evaluation protocol; empty: the only one of the records
            "fold": 0,
            "hold_out": True,  # False: train on the validation clips too and save the last parameters
            "audio_steps": 400,  # spectrogram steps; of a longer clip only the middle is used
            "batch_size": 32,  # clips in a batch, all processes together
            "balanced": False,  # True: every batch has the same number of clips of each class
            "labelled_fraction": 1.0,  # fraction of each class's training clips whose label is used
            "labelled_share": 0.0,  # fraction of labelled rows in a batch; 0: as in the data
            "keep_unlabelled": True,  # False: training clips without a label are not used
            "threads": 2,  # threads that read records
            "on_corrupt": "stop",  # at a damaged training record; skip: leave it out, count it and warn
            # stream: read each batch when it is needed; resident: hold the split in the devices' memory;
            # auto: resident on accelerators if it needs at most a third of their memory, else stream.
            "mode": "auto",
            # Largest number of lengths of streamed batches; with more than 1, clips of similar length share
            # a batch.
            "buckets": 1,
        }
    )


def augment_defaults() -> ml_collections.ConfigDict:
    """Returns the defaults of `config.augment`: augmentation on the device; 0 or False turns a part off.

    Probabilities for a clip: `style` (its mean and deviation per bin are mixed with another clip's),
    `reverb`, `noise`, `audio_dropout` and `video_dropout` (its audio or faces are masked). Largest changes:
    `shift` in pixels, `brightness` and `contrast` as fractions, `gain` and `equalizer` in nepers, `speed` and
    `pitch` as logs of the factor. Numbers: `frames` that are sampled; `time_masks` of at most `time_width`
    steps; `frequency_masks` of at most `frequency_width` bins; `crop`, the steps of a random window;
    `reverb_steps`, in which the longest reverberation falls by 60 dB. `noise_snr_min` and `noise_snr_max` are
    the limits of the signal-to-noise ratio in dB (0 is a ratio too), `flip` mirrors the faces of half of the
    clips, and `mixup` is the alpha of a Beta distribution.
    """
    return ml_collections.ConfigDict(
        {
            "frames": 0,  # random frames of each clip, one from each of as many equal parts; 0: all
            "flip": True,  # mirror the faces of half of the clips
            "shift": 6,  # largest shift of the faces in pixels
            "brightness": 0.15,  # largest change, as a fraction of the range 0 to 255
            "contrast": 0.2,  # largest relative change
            "time_masks": 1,  # number of masked intervals in time
            "time_width": 40,  # largest width of one in steps
            "frequency_masks": 1,  # number of masked intervals in frequency
            "frequency_width": 24,  # largest width of one in bins
            "gain": 0.3,  # largest change of loudness in nepers
            "crop": 0,  # length in steps of a random window of each clip; 0: the complete clip
            "speed": 0.0,  # largest log of the change of speed: up to e^speed times as fast or as slow
            "pitch": 0.0,  # largest log of the change of all frequencies: up to e^pitch times as high or low
            "equalizer": 0.0,  # largest change of a clip's spectrum in nepers, a random curve over the bins
            "style": 0.0,  # probability that a clip's per-bin mean and deviation are mixed with another's
            "reverb": 0.0,  # probability of reverberation
            "reverb_steps": 60,  # steps in which the longest reverberation falls by 60 dB
            "noise": 0.0,  # probability of noise
            "noise_snr_min": 5.0,  # lowest signal-to-noise ratio in dB
            "noise_snr_max": 40.0,  # highest signal-to-noise ratio in dB
            "mixup": 0.0,  # alpha of the Beta distribution that the mixing weight is drawn from
            "audio_dropout": 0.0,  # probability that a clip's audio is masked
            "video_dropout": 0.0,  # probability that a clip's faces are masked
        }
    )


def optimizer_defaults() -> ml_collections.ConfigDict:
    """Returns the defaults of `config.optimizer`, which is AdamW.

    The fields are `name`, "adamw" or "muon"; `learning_rate`, the peak; `warmup`, a fraction of all updates;
    `final_rate`, the end of the cosine decay, a fraction of the peak; `weight_decay`; `b1` and `b2`, decays
    of the moments; `clip_norm`, the largest norm of all gradients together, above 0; `accumulate`, batches
    per update; and `ema`, the decay of the moving average of the parameters, 0 for none.
    """
    return ml_collections.ConfigDict(
        {
            "name": "adamw",  # or muon
            "learning_rate": 3e-4,  # peak, at the end of the warm-up
            "warmup": 0.05,  # fraction of all updates in which the rate rises from 0 to its peak
            "final_rate": 0.01,  # learning rate at the end, as a fraction of the peak
            "weight_decay": 0.05,
            "b1": 0.9,
            "b2": 0.999,
            "clip_norm": 1.0,  # largest global norm of a gradient
            "accumulate": 1,  # batches whose gradients are averaged into one update
            "ema": 0.0,  # decay per update of the moving average of the parameters; 0: no average
        }
    )


def train_defaults() -> ml_collections.ConfigDict:
    """Returns the defaults of `config.train`: length of the run, validation and logging.

    The fields are `epochs`; `patience`, the epochs without a better validation UA (mean recall of the
    classes) before the run stops, 0 for no limit; `temperature` of the probabilities if no clips are held out
    to fit it; `eval_batch_size`, the clips in a validation batch, all processes together; `log_every`, the
    steps between two log lines, 0 for none; and `steps_per_call`, the steps of resident data in one dispatch,
    0 for 10 on accelerators and 1 on a CPU.
    """
    return ml_collections.ConfigDict(
        {
            "epochs": 40,
            "patience": 0,  # epochs without a better validation UA before the run stops; 0: never
            "temperature": 1.0,  # of the predicted probabilities if no clips are held out to fit it
            "eval_batch_size": 32,  # clips in a validation batch, all processes together
            "log_every": 10,  # steps between two log lines
            "steps_per_call": 0,  # steps of resident data in one dispatch; 0: 10 on accelerators, 1 on a CPU
        }
    )


def crossval_defaults() -> ml_collections.ConfigDict:
    """Returns the defaults of `config.crossval`: how `emofuse crossval` runs the folds and seeds.

    The fields are `mode`, "vmap" (several replicas at once on a device), "loop" (one at a time on a device),
    "single" (one at a time on all devices) or "auto" ("vmap" for models without convolutions, else "loop");
    `memory`, the GB (10^9 bytes) of each device that replicas may use, 0 for nine tenths of it; and
    `save_seconds`, the shortest time between two saves. Scores do not depend on them beyond rounding.
    """
    return ml_collections.ConfigDict(
        {
            # vmap: several replicas at once on a device; loop: one at a time on a device; single: one at a
            # time on all devices, as emofuse train, also with buckets, fsdp or streamed data; auto: vmap for
            # models without convolutions, else loop.
            "mode": "auto",
            "memory": 0.0,  # GB of each device that replicas may use; 0: nine tenths of its memory
            "save_seconds": 60.0,  # shortest time between two saves, which happen at the end of an epoch
        }
    )
