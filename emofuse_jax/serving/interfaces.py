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
        """Returns the path of the bundle directory, as it was passed to `load_bundle`."""

    @property
    def metadata(self) -> BundleMetadata:
        """Returns the content of bundle.json as a dict.

        The keys that every bundle has: `kind`, `schema`, `classes` (list of names), `modalities` (list of
        `voice`, `face` or both), `settings` (of the preparation), `spec` (sizes of the inputs), `window`
        (`steps` and `seconds`), `statistics` (`mean` and `std` of the audio), `training_speakers`, `corpus`,
        `versions` and `files` (SHA-256 by file name). `encoders` ({"file", "sha256"} of each ONNX file, by
        kind) is absent if the model needs none. Other keys, which are not validated and may be absent:
        `protocol`, `fold`, `config`, `checkpoint`, `quantized`, `progress`, `temperature`, `intended_use`,
        `limits`, `platforms` and `created`.
        """

    @property
    def inputs(self) -> InputShapes:
        """Returns (shape, dtype) of each input array by name; the shape is without the batch axis."""

    @property
    def encoders(self) -> dict[str, str]:
        """Returns the path of each ONNX file that prepares the inputs, by kind; "" if the file is unknown.

        The kinds are `audio`, `face` and `detector`; a kind that the model does not use is missing.
        """

    @property
    def classes(self) -> tuple[str, ...]:
        """Returns the class names in the order of the probabilities."""

    def run(self, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Returns the outputs of the network for one batch of b clips, as float32 arrays by name.

        `probabilities` and `logits` are [b c] with c classes. If the model has them, there are also
        `modality_weights` [b 2] (voice, face), and attention weights: `audio_attention` [b u] or [b u g] over
        u positions in time and g in frequency, and `video_attention` [b l] over l positions in time.

        Args:
          arrays: one array [b ...] for each name in `inputs`, with the shape after b and the dtype stated
            there. Masks are bool, True at steps or frames that are used.

        Raises:
          ValueError: an input is missing, unknown or has another shape or dtype, the batch sizes differ or
            are 0, or the network cannot be run on this machine.
        """
