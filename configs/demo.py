"""The small variant of an experiment, for the demo corpus on two cores: configs/demo.py:<experiment>.

Receipt: make demo; python launch/benchmark.py --suite=systems. Scores and times: docs/quickstart.md and
docs/systems.md.
"""

import ml_collections

import emofuse_jax as ef


def get_config(experiment: str = "am_fbp") -> ml_collections.ConfigDict:
    """Returns the shipped experiment of that name, made small."""
    return ef.settings.small(experiment)
