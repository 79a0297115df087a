"""Every field of an experiment with its default; a config file changes what it needs."""

from collections.abc import Mapping

import ml_collections

from emofuse_jax import losses
from emofuse_jax.settings.model import default_model_config
from emofuse_jax.utils.validation import reject_unknown_fields


def base(fusion: str = "am_fbp", *, audio: str = "fcn", video: str = "frames") -> ml_collections.ConfigDict:
    """The defaults of a fusion of two encoders (models/registry.py), at the sizes of the papers."""
    config = ml_collections.ConfigDict()
    config.name = fusion
    config.seed = 0
    config.model = default_model_config(fusion, audio=audio, video=video)
    # Where a stream's encoder starts: a workdir that trained it, or public weights (.safetensors).
    config.init = ml_collections.ConfigDict({"audio": "", "video": ""})
    config.data = data_defaults()
    config.augment = augment_defaults()
    config.loss = ml_collections.ConfigDict(losses.LOSS_DEFAULTS)
    config.optimizer = optimizer_defaults()
    config.train = train_defaults()
    config.crossval = crossval_defaults()
    # Devices that share a batch; -1: all of them. fsdp splits large parameters over them.
    config.mesh = ml_collections.ConfigDict({"data": -1, "fsdp": False})
    return config


def default_fields(model: Mapping) -> dict:
    """Returns every field at its default, for the fusion and the encoders of a `config.model`."""
    encoders = {name: model[name]["encoder"] for name in ("audio", "video")}
    defaults = base(model["fusion"]["name"], **encoders).to_dict()
    defaults["loss"]["objectives"] = dict.fromkeys(losses.OBJECTIVES, 0.0)
    return defaults


def check_fields(config: ml_collections.ConfigDict) -> None:
    """Raises ValueError naming the first field of a config that an experiment does not have."""
    reject_unknown_fields(config.to_dict(), default_fields(config.model), "config")


def data_defaults() -> ml_collections.ConfigDict:
    """Which records, and how they become batches."""
    return ml_collections.ConfigDict(
        {
            "path": "",  # directory written by emofuse prepare
            "recipe": "fbp",
            "protocol": "",  # empty: the only one that is there
            "fold": 0,
            "hold_out": True,  # False: validation clips are trained on too, and the last parameters are kept
            "audio_steps": 400,  # longer sounds are cut to their middle
            "batch_size": 32,  # of all processes together
            "balanced": False,  # every batch holds the same number of each class
            "labelled_fraction": 1.0,  # of the training clips; the others' labels are hidden, by clip
            "labelled_share": 0.0,  # of the rows of a batch, where labels are hidden; 0: as they come
            "keep_unlabelled": True,  # False: training clips without a label are left out
            "threads": 2,  # readers
            "on_corrupt": "stop",  # at a damaged training record; skip: it is left out, counted and told
            # stream: batches are read as they come; resident: the split lies in the devices' memory; auto:
            # resident on accelerators that hold it in a third of their memory.
            "mode": "auto",
            # More than one: so many lengths of streamed batches at most, clips of like length share a batch.
            "buckets": 1,
        }
    )


def augment_defaults() -> ml_collections.ConfigDict:
    """Augmentation on the device; a zero turns a part off."""
    return ml_collections.ConfigDict(
        {
            "frames": 0,  # random frames a clip in training, one from each equal part; 0: all
            "flip": True,
            "shift": 6,  # pixels
            "brightness": 0.15,  # share of the range
            "contrast": 0.2,
            "time_masks": 1,
            "time_width": 40,  # steps
            "frequency_masks": 1,
            "frequency_width": 24,  # bins
            "gain": 0.3,  # nepers
            "crop": 0,  # random steps in a row of each clip; 0: all
            "speed": 0.0,  # a clip is up to e^speed times as fast or as slow
            "pitch": 0.0,  # its frequencies are up to e^pitch times as high or as low
            "equalizer": 0.0,  # nepers that a clip's spectrum is raised or lowered, smoothly over its bins
            "style": 0.0,  # probability that each bin takes a share of another clip's mean and deviation
            "reverb": 0.0,  # probability of a room
            "reverb_steps": 60,  # steps in which the longest one falls by 60 dB
            "noise": 0.0,  # probability of noise
            "noise_snr_min": 5.0,  # dB
            "noise_snr_max": 40.0,  # dB
            "mixup": 0.0,  # alpha of the Beta distribution of the share of another clip
            "audio_dropout": 0.0,  # probability of a clip without sound
            "video_dropout": 0.0,  # probability of a clip without faces
        }
    )


def optimizer_defaults() -> ml_collections.ConfigDict:
    """`warmup` and `final_rate` are shares."""
    return ml_collections.ConfigDict(
        {
            "name": "adamw",  # or muon
            "learning_rate": 3e-4,
            "warmup": 0.05,
            "final_rate": 0.01,
            "weight_decay": 0.05,
            "b1": 0.9,
            "b2": 0.999,
            "clip_norm": 1.0,
            "accumulate": 1,  # batches whose gradients are averaged into one update
            "ema": 0.0,  # decay of the parameters' running average, an update; 0: none
        }
    )


def train_defaults() -> ml_collections.ConfigDict:
    """Length of the run and when to look."""
    return ml_collections.ConfigDict(
        {
            "epochs": 40,
            "patience": 0,  # epochs without a better validation UA before it stops; 0: never
            "temperature": 1.0,  # of the probabilities, where no clips are held out to fit it to
            "eval_batch_size": 32,
            "log_every": 10,  # steps
            "steps_per_call": 0,  # steps of resident data in one dispatch; 0: 10 on accelerators, 1 on a CPU
        }
    )


def crossval_defaults() -> ml_collections.ConfigDict:
    """How `emofuse crossval` runs the folds and seeds; no number depends on it beyond rounding."""
    return ml_collections.ConfigDict(
        {
            "mode": "auto",  # vmap: side by side; loop: one a device; auto: vmap without convolutions
            "memory": 0.0,  # GB a device that replicas may take; 0: nine tenths of what is there
            "save_seconds": 60.0,  # at an epoch's end, when so long ago the last save was
        }
    )
