"""Checkpoints of small networks with random parameters, and their bundles."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np

from data_prep.settings import AudioSettings, FaceSettings, PrepSettings
from emofuse_jax import settings
from emofuse_jax.api.export import export_bundle
from emofuse_jax.models.build import build_model
from emofuse_jax.settings.model import default_model_config
from emofuse_jax.training.checkpoint import store
from emofuse_jax.types import InputSpec, TrainState
from tests.support.fakes import random_parameters
from tests.support.shape_checks import unchecked_shapes

CLASSES = ("angry", "happy", "sad")
SETTINGS = PrepSettings(audio=AudioSettings(bins=80), face=FaceSettings(frames=4, size=32))
SPEC = InputSpec(t=160, f=80, s=4, h=32, w=32, classes=len(CLASSES))


def tiny_config(fusion: str, dtype: str = "float32"):
    config = default_model_config(fusion)
    config.dtype = dtype
    config.audio.widths = (4, 4, 4, 4, 4)
    config.video.width, config.video.blocks, config.video.embedding = 4, (1, 1, 1, 1), 8
    return config


@dataclasses.dataclass(frozen=True)
class SavedCheckpoint:
    """A checkpoint, and what is in it."""

    workdir: str
    model: object
    params: dict
    model_state: dict
    metadata: dict

    def predict(self, inputs: dict) -> dict:
        """What the live model says of a bundle's inputs."""
        batch_size = len(inputs["audio"])
        batch = dataclasses.replace(self.model.fake_batch(batch_size, seed=9), **inputs)
        outputs, _ = jax.jit(lambda p, s, b: self.model.apply(p, s, b, train=False))(
            self.params, self.model_state, batch
        )
        return {
            "logits": outputs.logits,
            "probabilities": self.calibrated_probabilities(outputs.logits),
            **outputs.aux,
        }

    def calibrated_probabilities(self, logits: np.ndarray) -> np.ndarray:
        """Probabilities of logits, at the checkpoint's temperature."""
        return jax.nn.softmax(logits / self.metadata["temperature"])


def save_checkpoint(workdir, fusion: str = "am_fbp", dtype: str = "float32") -> SavedCheckpoint:
    config = tiny_config(fusion, dtype)
    model = build_model(config, SPEC)
    params, model_state = random_parameters(model, seed=2)
    mean, std = model_state["input"]["mean"], model_state["input"]["std"]
    metadata = {
        "config": json.loads(json.dumps(settings.base(fusion).to_dict() | {"model": config.to_dict()})),
        "classes": list(CLASSES),
        "settings": SETTINGS.to_dict(),
        "spec": dataclasses.asdict(SPEC),
        "statistics": {"mean": mean.tolist(), "std": std.tolist()},
        "training_speakers": ["s1", "s2"],
        "training_clips_sha256": "",
        "corpus": "fake",
        "protocol": "speakers",
        "fold": 0,
        "leaks": [],
        "versions": {"jax": jax.__version__},
        "step": 0,
        "progress": {},
        "temperature": 1.7,
    }
    state = TrainState(jnp.zeros((), jnp.int32), params, model_state, {"count": jnp.zeros(())})
    store.save(str(workdir), "best", state, metadata)
    return SavedCheckpoint(str(workdir), model, params, model_state, metadata)


def export_unchecked(checkpoint: SavedCheckpoint, path: str) -> str:
    """Exports the bundle of a checkpoint to `path`, and returns `path`."""
    with unchecked_shapes():
        export_bundle(checkpoint.workdir, path)
    return path
