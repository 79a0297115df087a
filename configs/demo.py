"""The small form of an experiment, for the demo corpus on two cores: configs/demo.py:<fusion>.

Narrow encoders with batch norm, four sampled frames of 56x56, and a short schedule. The second moment of
AdamW is forgotten quickly (b2): the streams are learned one after the other, and the gradients of the
first would hold the steps of the second small for hundreds of updates.

Receipt: make demo. Scores and times stand in README.md, "The demo".
"""

import importlib
import importlib.util

import ml_collections

SINGLE_STREAM = ("audio_only", "video_only")


def get_config(fusion: str = "am_fbp") -> ml_collections.ConfigDict:
    """The shipped experiment of a fusion, made small."""
    if importlib.util.find_spec(f"configs.{fusion}") is None or fusion in ("base", "demo"):
        raise LookupError(f"configs/demo.py:{fusion}: there is no shipped experiment of that name")
    config = importlib.import_module(f"configs.{fusion}").get_config()
    config.name = f"demo_{fusion}"
    config.data.update(audio_steps=350, batch_size=16)  # the longest clip is 3.5 s
    config.augment.update(frames=4, shift=4, brightness=0.1, contrast=0.1)
    config.model.audio.update(widths=(16, 32, 48, 48, 48), norms=("batch",) * 5, attention_width=64)
    config.model.video.update(
        width=16, blocks=(2, 2, 2), stem_kernel=3, downsample=2, embedding=64, attention_width=64
    )
    if "dropout" in config.model.fusion:
        config.model.fusion.dropout = 0.1
    config.optimizer.update(learning_rate=2e-3, b2=0.95)
    config.train.epochs = 10 if fusion in SINGLE_STREAM else 18
    return config
