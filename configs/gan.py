"""GAN that generates pairs of pooled vectors for rare classes.

This is not a config of `emofuse train` but of `emofuse gan`, where RUN is a run whose fusion takes two pooled
vectors (concat, g_fbp, ag_fbp, ...). Reference: Ma et al., 2022, Appl. Sci. 12(1), 527.

Command: emofuse gan --config=gan --encoder=RUN --workdir=DIR
Time and score: UA 66.7 +- 1.5 % with generated pairs in 36 core-seconds, 66.9 +- 0.4 % without them in 14, on
the demo corpus (rows concat-gan and concat-refit of the suite `systems`, results/systems.json). Unmeasured on
a corpus with rare classes.
"""

import ml_collections


def get_config() -> ml_collections.ConfigDict:
    """Returns sizes and lengths; `generate=False` trains the fusion again without generated pairs."""
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
