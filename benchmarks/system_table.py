"""Defines the rows of the suite `systems`: shipped configs in their small variant, with changed fields."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class System:
    """One row: a shipped config and the fields that are changed in it."""

    name: str
    """Name of the row."""
    config: str
    """Name of the shipped config."""
    fields: dict = dataclasses.field(default_factory=dict)
    """Changed fields by dotted name; `{seed}` and `{home}` (directory of all runs) in texts are replaced."""
    refit_fields: dict | None = None
    """Changed fields of configs/gan.py, to fit the fusion of the row named `config` again
    (training/refit_fusion.py); None: the row is trained."""
    prerequisites: tuple[str, ...] = ()
    """Names of rows whose runs of the same seed must be complete before this row."""


AM_FBP_ATTENTION = {"model.audio.attn_axes": "1d_concat", "model.video.attention": "self"}
"""The attention of ag_fbp and am_fbp, for rows that differ from them only in the fusion."""
MODALITY_DROPOUT = {"augment.audio_dropout": 0.2, "augment.video_dropout": 0.2}

SYSTEMS = (
    System("audio_only", "audio_only"),
    System("video_only", "video_only"),
    System("concat", "concat"),
    System("late", "late"),
    System("f_score", "f_score"),
    System("g_fbp", "g_fbp"),
    System("concat-p2", "concat", AM_FBP_ATTENTION),
    System("g_fbp-p2", "g_fbp", AM_FBP_ATTENTION),
    System("ag_fbp", "ag_fbp"),
    System("am_fbp", "am_fbp"),
    System("ag_fbp-bias_1", "ag_fbp", {"model.fusion.first_bias": 1.0}),
    System("am_fbp-bias_1", "am_fbp", {"model.fusion.first_bias": 1.0}),
    System(
        "two_stage",
        "two_stage",
        {"init.audio": "{home}/audio_only/seed_{seed}", "init.video": "{home}/video_only/seed_{seed}"},
        prerequisites=("audio_only", "video_only"),
    ),
    System("mfb", "mfb"),
    System("mfh", "mfh"),
    System("lmf", "lmf"),
    System("emodal", "emodal"),
    System("joint_cross_attention", "joint_cross_attention"),
    System("bottleneck", "bottleneck"),
    System("avef", "avef"),
    System("hgr", "hgr"),
    System("hgr-no_correlation", "hgr", {"loss.objectives.correlation": 0.0}),
    System("hgr-10_percent", "hgr_semi"),
    System("hgr-10_percent-no_correlation", "hgr_semi", {"loss.objectives.correlation": 0.0}),
    System("hgr-10_percent-supervised", "hgr_semi", {"data.keep_unlabelled": False, "train.epochs": 62}),
    System("cross_attention", "cross_attention"),
    System("cross_attention-no_metric", "cross_attention", {"loss.objectives.emotional_metric": 0.0}),
    System("cross_attention-triplet", "cross_attention", {"model.margins.kind": "triplet"}),
    System(
        "cross_attention-polarity",
        "cross_attention",
        {
            "loss.objectives.emotional_metric": 0.0,
            "loss.objectives.cross_entropy": 0.0,
            "loss.objectives.polarity": 1.0,
        },
    ),
    System(
        "cross_attention-adaptive_triplet",
        "cross_attention",
        {"loss.objectives.emotional_metric": 0.0, "loss.objectives.adaptive_triplet": 0.3},
    ),
    System("am_fbp-dropout", "am_fbp", MODALITY_DROPOUT),
    System("g_fbp-dropout", "g_fbp", MODALITY_DROPOUT),
    System("concat-gan", "concat", refit_fields={}, prerequisites=("concat",)),
    System("concat-refit", "concat", refit_fields={"generate": False}, prerequisites=("concat",)),
)
