"""Generated pairs of pooled vectors for the rare classes (Ma et al., Appl. Sci. 2022, 12(1), 527).

Not an experiment of `emofuse train`: `emofuse gan --config=gan --encoder=RUN --workdir=DIR` reads it, where
RUN is a run of a fusion of two pooled vectors (concat, g_fbp, ag_fbp, ...).

Receipt: rows concat-gan and concat-refit of the suite `systems` (results/systems.json): on the demo corpus
UA 66.7 +- 1.5 % with generated pairs in 36 core-seconds, 66.9 +- 0.4 % without in 14; a corpus of rare
classes is unmeasured.
"""

import ml_collections


def get_config() -> ml_collections.ConfigDict:
    """Sizes and lengths; `generate=False` fits the fusion again without generated pairs, to compare with."""
    return ml_collections.ConfigDict(
        {
            "name": "gan",
            "seed": 0,
            "generate": True,
            "gan": {
                "noise": 32,
                "hidden": 256,
                "common": 16,
                "correlation": 0.01,  # weight of soft-HGR between the generated pair
                "learning_rate": 5e-4,
                "batch_size": 128,
                "steps": 3000,
            },
            "refit": {"epochs": 30, "batch_size": 64, "learning_rate": 1e-3},
        }
    )
