"""Rows of ablation tables: a shipped experiment, and the fields that a row changes."""

LEVELS_FACTOR = 0.3
"""Of the auxiliary cross-entropy beside the network's own (a design choice)."""

ABLATIONS: dict[str, tuple[str, dict]] = {
    # P1: attention-guided factorised bilinear pooling
    "FBP": ("g_fbp", {}),
    "FBP, no attention": ("g_fbp", {"model.audio.temperature": 0.0, "model.video.temperature": 0.0}),
    "FBP, no dropout": ("g_fbp", {"model.fusion.dropout": 0.0}),
    "FBP, power norm": ("g_fbp", {"model.fusion.power_norm": True}),
    "FBP, k = 1": ("g_fbp", {"model.fusion.factors": 1}),
    "FBP, k = 8": ("g_fbp", {"model.fusion.factors": 8}),
    "FBP, o = 32": ("g_fbp", {"model.fusion.width": 32}),
    "FBP, o = 512": ("g_fbp", {"model.fusion.width": 512}),
    # P2: adaptive and multi-level
    "AG-FBP": ("ag_fbp", {}),
    "AG-FBP, vector gates": ("ag_fbp", {"model.fusion.gates": "vector"}),
    "AM-FBP": ("am_fbp", {}),
    "AM-FBP, 2-D audio attention": ("am_fbp", {"model.audio.attn_axes": "2d"}),
    "AM-FBP, 1-D mean audio attention": ("am_fbp", {"model.audio.attn_axes": "1d_mean"}),
    "AM-FBP, additive frame attention": ("am_fbp", {"model.video.attention": "additive"}),
    "AM-FBP, relation frame attention": ("am_fbp", {"model.video.attention": "relation"}),
    "AM-FBP, transformer frame attention": ("am_fbp", {"model.video.attention": "transformer"}),
    "AM-FBP, vector gates": ("am_fbp", {"model.fusion.gates": "vector"}),
    "AM-FBP, 2 parts": ("am_fbp", {"model.fusion.parts": 2}),
    "AM-FBP, 4 parts": ("am_fbp", {"model.fusion.parts": 4, "augment.frames": 4}),
    "AM-FBP, auxiliary levels": (
        "am_fbp",
        {"model.fusion.auxiliary": True, "loss.objectives.levels": LEVELS_FACTOR},
    ),
}
"""Row name: (experiment, {dotted field: value}); a row without fields is what its neighbours differ from."""
