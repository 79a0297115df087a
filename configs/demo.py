"""Small variant of an experiment, for the demo corpus on two cores: configs/demo.py:<experiment>.

Command: make demo; python launch/benchmark.py --suite=systems
Time and score: docs/quickstart.md and docs/systems.md
"""

import ml_collections

import emofuse_jax as ef


def get_config(experiment: str = "am_fbp") -> ml_collections.ConfigDict:
    """Returns the small variant of a shipped experiment.

    Raises:
      LookupError: if no shipped experiment has that name.
    """
    return ef.settings.small(experiment)
