"""Fusions by name: `(d_a, d_v, classes, config, dtype, rngs)`, then `(streams, key) -> Fused`.

Of a class, `modalities` says which encoders the network builds, `takes` what it is called with (`vectors`:
Streams, `sequences`: Sequences), and `defaults` are the fields of `config.fusion` beside `name`.
"""

from emofuse_jax.models.fusions.ag_fbp import AdaptiveGlobalFBP
from emofuse_jax.models.fusions.am_fbp import AdaptiveMultiLevelFBP
from emofuse_jax.models.fusions.audio_only import AudioOnly
from emofuse_jax.models.fusions.concat import Concat
from emofuse_jax.models.fusions.g_fbp import GlobalFBP
from emofuse_jax.models.fusions.late import Late
from emofuse_jax.models.fusions.video_only import VideoOnly

FUSIONS = {
    "audio_only": AudioOnly,
    "video_only": VideoOnly,
    "concat": Concat,
    "late": Late,
    "g_fbp": GlobalFBP,
    "ag_fbp": AdaptiveGlobalFBP,
    "am_fbp": AdaptiveMultiLevelFBP,
}
