"""Directories that tests read."""

import pathlib

ROOT = pathlib.Path(__file__).resolve().parents[2]
"""Root of the repository."""
SHARED_DATA = ROOT.parent / "shared" / "data"
"""Real speech and talking faces, which lie beside the clone on some machines."""
