"""Media files, one clip each, as a preparation takes them."""

import os
import pathlib

from data_prep.faces import mtcnn_networks
from data_prep.settings import record_shape
from data_prep.workers.pool import PrepJob, process_to_outcome
from emofuse_jax.data import records
from emofuse_jax.data.writing.corpus import MediaClip
from tests.robustness.data_prep.test_hostile_media import SETTINGS, check_record, make_samples
from tests.robustness.fuzz.damage import read_tree
from tests.robustness.fuzz.verdict import Broken, Refused
from tests.support.damaged_media import mutate

NAMED = "."
"""manifest.csv has the reason in the row of the file."""
MEMORY = 4 << 30
"""A decoder of large pictures holds up to 17 of them."""


def make(folder: str) -> None:
    """A file of each container."""
    for name, data in make_samples(pathlib.Path(folder)).items():
        (pathlib.Path(folder) / name).write_bytes(data)


def load(folder: str) -> dict[str, bytes]:
    """Name to bytes; the detector's pinned weights, which are pickles, are loaded, and a film is prepared."""
    for name in ("pnet", "rnet", "onet"):
        mtcnn_networks.get_weights(name)
    clip = MediaClip("whole", os.path.join(folder, "film.mp4"), 0, "a")
    if process_to_outcome(PrepJob(SETTINGS, "fuzz", 2), clip).data is None:
        raise Broken("a whole film was refused")
    return read_tree(folder)


def attempt(case: dict[str, bytes], seed: int, scratch: str) -> None:
    """Prepares the damaged file of that number."""
    name, data = mutate(case, seed)
    path = os.path.join(scratch, name)
    pathlib.Path(path).write_bytes(data)
    clip = MediaClip(name, path, seed % 2, "a")
    outcome = process_to_outcome(PrepJob(SETTINGS, "fuzz", 2), clip)
    if "internal error" in outcome.reason:
        raise Broken(outcome.reason)
    if outcome.data is None:
        raise Refused(outcome.reason)
    check_record(records.decode(outcome.data, record_shape(SETTINGS)), clip)
