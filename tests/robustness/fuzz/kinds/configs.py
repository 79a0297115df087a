"""Configs: fields set on the command line, and the config that a checkpoint brings; built, not trained."""

import json
import os
import sys

import ml_collections
from absl import flags
from ml_collections import config_flags

from emofuse_jax import settings
from emofuse_jax.cli.main import format_config_error
from emofuse_jax.models.build import build_model
from emofuse_jax.training.checkpoint.saved_config import saved_config, saved_spec
from emofuse_jax.training.experiment import flatten_fields
from emofuse_jax.training.optimizer import make_optimizer
from emofuse_jax.types import InputSpec
from tests.robustness.fuzz.damage import make_rng
from tests.robustness.fuzz.values import draw_hostile, json_bytes
from tests.robustness.fuzz.verdict import Refused
from tests.support.paths import ROOT

SECTIONS = "|".join([*settings.small(), *settings.small().model])
NAMED = rf"\bconfig\b|\bspec\b|\b({SECTIONS})[.:]"
"""An error names a field of the config or of the spec, or begins with a section of the config."""
FUSIONS = (
    "am_fbp",
    "hgr",
    "cross_attention",
    "bottleneck",
    "lmf",
    "avef",
    "audio_only",
    "joint_cross_attention",
)
SPEC = {"t": 140, "f": 80, "s": 4, "h": 32, "w": 32, "classes": 3}
SPEC |= {"feature_steps": 0, "audio_features": 0, "face_features": 0}


def make(folder: str) -> None:
    """No samples: the configs are shipped."""


def load(folder: str) -> dict[str, dict]:
    """Small configs by fusion; one is built, so that all is imported."""
    configs = {name: settings.small(name) for name in FUSIONS}
    build_network(configs["am_fbp"])
    return {name: config.to_dict() for name, config in configs.items()}


def attempt(case: dict[str, dict], seed: int, scratch: str) -> None:
    """Even numbers come by flags, odd ones by a checkpoint."""
    rng = make_rng("configs", seed)
    name = FUSIONS[rng.integers(len(FUSIONS))]
    if seed % 2:
        text = json_bytes({"config": case[name], "spec": SPEC}, rng)
        _from_checkpoint(text)
        return
    names = sorted(flatten_fields(case[name]))
    field = names[rng.integers(len(names))] if rng.integers(8) else "model.nothing.at.all"
    if rng.integers(2):
        field = [one for one in names if one.startswith(("model", "optimizer"))][rng.integers(20)]
    text = str(draw_hostile(rng)).replace("\0", "")[:5000]
    build_network(_from_flags(name, f"--config.{field}={text}"))


def build_network(config: ml_collections.ConfigDict) -> None:
    """The network without its numbers, and the optimizer."""
    build_model(config.model, InputSpec(**SPEC))
    make_optimizer(config.optimizer, 100)


def _from_flags(name: str, flag: str) -> ml_collections.ConfigDict:
    """As cli/main.py has absl read them; what it turns into a line is refused."""
    values, arguments = (
        flags.FlagValues(),
        [f"--config={os.path.join(ROOT, 'configs', 'demo.py')}:{name}", flag],
    )
    sys.argv[1:] = arguments  # ml_collections reads it too
    config_flags.DEFINE_config_file("config", flag_values=values)
    try:
        values(sys.argv)
        return values.config
    except (AttributeError, ImportError, LookupError, ValueError, flags.Error) as error:
        raise Refused(format_config_error(error)) from error


def _from_checkpoint(text: bytes) -> None:
    try:
        metadata = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Refused(f"config: not JSON: {error}") from error
    if not isinstance(metadata, dict):
        raise Refused("config: not an object")
    build_model(saved_config(metadata).model, saved_spec(metadata))
