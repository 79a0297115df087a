"""What prediction needs from a loaded bundle."""

from typing import Protocol

import numpy as np

MANIFEST_FILE = "bundle.json"
"""Name of the file of a bundle that says what the others mean."""


class LoadedBundle(Protocol):
    """The part of `serving.bundle.load.Bundle` that prediction and media preparation use."""

    path: str
    metadata: dict
    inputs: dict[str, tuple[tuple, np.dtype]]
    encoders: dict[str, str]

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names in the order of the probabilities."""

    def run(self, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Runs the network on one batch."""
