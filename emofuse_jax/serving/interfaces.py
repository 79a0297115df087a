"""Protocol of a loaded bundle, as prediction uses it."""

from typing import Protocol

import numpy as np

from emofuse_jax.serving.bundle.metadata import BundleMetadata

InputShapes = dict[str, tuple[tuple[int, ...], np.dtype]]
"""Shape without the batch axis, and dtype, of each input array of a bundle, by name."""
MANIFEST_FILE = "bundle.json"
"""Name of the JSON file in a bundle that describes the other files."""


class LoadedBundle(Protocol):
    """Attributes and methods of `serving.bundle.load.Bundle` that prediction and media preparation use."""

    @property
    def path(self) -> str:
        """Returns the bundle directory."""

    @property
    def metadata(self) -> BundleMetadata:
        """Returns the contents of bundle.json."""

    @property
    def inputs(self) -> InputShapes:
        """Returns shape (without the batch axis) and dtype of each input array, by name."""

    @property
    def encoders(self) -> dict[str, str]:
        """Returns the path of each ONNX file that prepares the inputs, by kind; "" if it is unknown."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Returns the class names in the order of the probabilities."""

    def run(self, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Returns the outputs of the network for one batch of input arrays, by name.

        Raises ValueError if an input is missing, unknown or has another shape or dtype, or if the network
        cannot be run on this machine.
        """
