"""Fusions by name: `(d_a, d_v, classes, config, dtype, rngs)`, then `(streams, key) -> Fused`.

Of a class, `modalities` says which encoders the network builds, `takes` what it is called with (`vectors`:
Streams, `sequences`: Sequences), and `defaults` are the fields of `config.fusion` beside `name`; `small`,
where a class has it, are those that its small variant changes (settings/small.py).
A class may have a static `calibrate(state, level_probabilities, labels) -> state`: its own part of the model
state, set from the validation clips at each epoch's end (train/calibrate.py).
"""

from collections.abc import Callable

from emofuse_jax.models.fusions.ag_fbp import AdaptiveGlobalFBP
from emofuse_jax.models.fusions.am_fbp import AdaptiveMultiLevelFBP
from emofuse_jax.models.fusions.audio_only import AudioOnly
from emofuse_jax.models.fusions.avef import DeepFusion
from emofuse_jax.models.fusions.bottleneck import BottleneckTransformer
from emofuse_jax.models.fusions.concat import Concat
from emofuse_jax.models.fusions.cross_attention import CrossAttention
from emofuse_jax.models.fusions.emodal import CommonAndPrivate
from emofuse_jax.models.fusions.f_score import FScore
from emofuse_jax.models.fusions.g_fbp import GlobalFBP
from emofuse_jax.models.fusions.hgr import CommonInformation
from emofuse_jax.models.fusions.joint_cross_attention import JointCrossAttention
from emofuse_jax.models.fusions.late import Late
from emofuse_jax.models.fusions.lmf import LMF
from emofuse_jax.models.fusions.mfb import MFB
from emofuse_jax.models.fusions.mfh import MFH
from emofuse_jax.models.fusions.video_only import VideoOnly

FUSIONS = {
    "audio_only": AudioOnly,
    "video_only": VideoOnly,
    "concat": Concat,
    "late": Late,
    "g_fbp": GlobalFBP,
    "ag_fbp": AdaptiveGlobalFBP,
    "am_fbp": AdaptiveMultiLevelFBP,
    "hgr": CommonInformation,
    "emodal": CommonAndPrivate,
    "f_score": FScore,
    "lmf": LMF,
    "mfb": MFB,
    "mfh": MFH,
    "joint_cross_attention": JointCrossAttention,
    "bottleneck": BottleneckTransformer,
    "cross_attention": CrossAttention,
    "avef": DeepFusion,
}


def calibrator(fusion: str) -> Callable | None:
    """The `calibrate` of a fusion; None where it has none."""
    return getattr(FUSIONS[fusion], "calibrate", None)
