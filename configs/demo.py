"""The small form of an experiment, for the demo corpus on two cores: configs/demo.py:<experiment>.

Narrow encoders with batch norm, four sampled frames of 56x56, and a short schedule. The second moment of
AdamW is forgotten quickly (b2): the streams are learned one after the other, and the gradients of the
first would hold the steps of the second small for hundreds of updates.

Receipt: make demo; emofuse benchmark --suite=systems. Scores and times stand in README.md.
"""

import importlib
import importlib.util

import ml_collections

SMALL_AUDIO = {
    "fcn": {"widths": (16, 32, 48, 48, 48), "norms": ("batch",) * 5, "attention_width": 64},
    "mel_cnn": {"widths": (16, 32, 48, 64), "attention_width": 64},
    "ecapa": {"width": 32, "bottleneck": 16, "output": 64, "attention_width": 64},
    "segments": {"segments": 8, "segment_steps": 32, "widths": (8, 16, 32, 64), "attention_width": 64},
    "features": {"embedding": 64, "attention_width": 64},
    "resnet": {"width": 8, "blocks": (1, 1, 1), "stem_kernel": 5, "stem_stride": 4, "attention_width": 64},
}
"""Fields of `config.model.audio` that each encoder changes."""

SMALL_VIDEO = {
    "frames": {
        "width": 16,
        "blocks": (2, 2, 2),
        "stem_kernel": 3,
        "downsample": 2,
        "embedding": 64,
        "attention_width": 64,
    },
    "features": {"embedding": 64, "attention_width": 64},
    "snippets": {
        "width": 16,
        "blocks": (1, 1, 1),
        "stem_kernel": (3, 3, 3),
        "stem_stride": (2, 2, 2),
        "downsample": 2,
        "attention_width": 64,
    },
}
"""Fields of `config.model.video` that each encoder changes."""

SMALL_FUSION: dict[str, dict] = {
    "hgr": {"segments": 8, "width": 16, "label_hidden": 32, "hidden": 64},
    "emodal": {"width": 16, "hidden": 64},
    "joint_cross_attention": {"steps": 4, "width": 64, "attention_width": 64},
    "cross_attention": {"positions": 3, "common_width": 64, "head_dropout": 0.1},
    "avef": {"hidden": (64, 64)},
    "bottleneck": {"width": 64, "hidden": 128, "layers": 3, "fusion_layer": 1},
}
"""Fields of `config.model.fusion` that a fusion changes, beside `dropout`, which is .1 for all."""

SMALL_AUGMENT = {"resnet": {"frequency_masks": 2, "frequency_width": 60}}
"""Fields of `config.augment` by audio encoder: a ResNet over whole spectra learns speakers by heart."""

EPOCHS = {"audio_only": 10, "video_only": 10, "avef": 18}
"""Of a fusion; 12 for the others."""


def get_config(experiment: str = "am_fbp") -> ml_collections.ConfigDict:
    """The shipped experiment of that name, made small."""
    if importlib.util.find_spec(f"configs.{experiment}") is None or experiment in ("base", "demo", "gan"):
        raise LookupError(f"configs/demo.py:{experiment}: there is no shipped experiment of that name")
    config = importlib.import_module(f"configs.{experiment}").get_config()
    model = config.model
    config.name = f"demo_{experiment}"
    config.data.update(audio_steps=350, batch_size=16)  # of 10 ms or more; a clip is 3.5 s at most
    config.augment.update(shift=4, brightness=0.1, contrast=0.1)
    config.augment.update(SMALL_AUGMENT.get(model.audio.encoder, {}))
    if model.video.encoder == "frames":
        config.augment.frames = 4
    for part, name in ((model.audio, "parts"), (model.video, "snippets")):
        if name in part:
            part[name] = min(part[name], 3)
    for part, small in ((model.audio, SMALL_AUDIO), (model.video, SMALL_VIDEO)):
        there = {k: v for k, v in small[part.encoder].items() if k in part}  # not all fusions have attention
        part.update(there)
    if config.data.recipe == "hgr" and model.video.encoder == "frames":
        model.video.downsample = 1  # the demo's records of this recipe hold faces of 56x56
    if "dropout" in model.fusion:
        model.fusion.dropout = 0.1
    model.fusion.update(SMALL_FUSION.get(model.fusion.name, {}))
    config.optimizer.b2 = 0.95
    rate = config.optimizer.learning_rate
    config.optimizer.learning_rate = max(rate, min(rate * 20 / 3, 2e-3))  # 2e-3 for 3e-4
    config.train.epochs = EPOCHS.get(model.fusion.name, 12)
    return config
