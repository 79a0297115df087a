"""Checks of what callers and their own fusions pass to a network."""

from collections.abc import Mapping

from emofuse_jax.models.interfaces import FusionOutput
from emofuse_jax.ops.shapes import check_shapes
from emofuse_jax.types import Batch, InputSpec

REQUIRED_FIELDS = {"audio": "b t f", "audio_mask": "b t", "faces": "b s h w 3", "face_mask": "b s"}
CLIP_FIELDS = ("label", "label_mask", "weight", "speaker", "clip")


def check_batch(batch: Batch, spec: InputSpec) -> None:
    """Raises ValueError, naming the field, if an array of a batch is missing or has another shape.

    Expected are `audio` [b t f] and `audio_mask` [b t] for b clips of t steps with f frequency bins, `faces`
    [b s h w 3] and `face_mask` [b s] for s frames of h x w pixels, and [b] for `label`, `label_mask`,
    `weight`, `speaker` and `clip` if they are not None. If `spec.audio_features` is not 0, also
    `audio_features` [b u d_a] and `audio_features_mask` [b u] for u steps of features; if
    `spec.face_features` is not 0, also `face_features` [b s d_v]. f, h, w and the widths d_a and d_v must be
    those of `spec`; b, t, s and u may be any, but must be the same in all arrays.
    """
    patterns = dict(REQUIRED_FIELDS)
    if spec.audio_features:
        patterns |= {"audio_features": "b u d_a", "audio_features_mask": "b u"}
    if spec.face_features:
        patterns["face_features"] = "b s d_v"
    patterns |= {name: "b" for name in CLIP_FIELDS if getattr(batch, name) is not None}
    sizes = {"f": spec.f, "h": spec.h, "w": spec.w, "3": 3}
    sizes |= {"d_a": spec.audio_features, "d_v": spec.face_features}
    check_shapes({f"batch.{name}": (getattr(batch, name), p) for name, p in patterns.items()}, sizes)


def check_fusion_output(output: FusionOutput, sizes: Mapping[str, int] | None = None) -> None:
    """Raises ValueError if `output` is not a FusionOutput with `logits` [b classes] and `embedding` [b d].

    `sizes` may have the expected number of clips, `b`, and of classes, `classes`; the width d may be any.
    """
    if not isinstance(output, FusionOutput):
        raise ValueError(
            f"fusion: returned {type(output).__name__}, expected ef.FusionOutput(logits, embedding, aux);"
            " correct `__call__` of the class of the fusion"
        )
    arrays = {
        "fusion: logits": (output.logits, "b classes"),
        "fusion: embedding": (output.embedding, "b d"),
    }
    check_shapes(arrays, sizes)
