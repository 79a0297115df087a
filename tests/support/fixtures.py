"""Fixtures of several tiers: a small preparation, checkpoints and bundles, made once per session."""

import pathlib
import shutil

import pytest

from tests.support.bundles import SavedCheckpoint, export_unchecked, save_checkpoint
from tests.support.small_corpus import make_source, run_prepare


@pytest.fixture(scope="session")
def source(tmp_path_factory):
    """Folder with clips.csv."""
    return make_source(tmp_path_factory.mktemp("source") / "clips")


@pytest.fixture(scope="session")
def prepared(source, tmp_path_factory):
    """(output, summary) of an undisturbed preparation; not to be changed."""
    output = tmp_path_factory.mktemp("records")
    return output, run_prepare(source, output, workers=0)


@pytest.fixture(scope="session")
def trained(tmp_path_factory) -> SavedCheckpoint:
    """Checkpoint of a small AM-FBP; not to be changed."""
    return save_checkpoint(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="session")
def audio_only_checkpoint(tmp_path_factory) -> SavedCheckpoint:
    """Checkpoint of the network that compiles fastest; not to be changed."""
    return save_checkpoint(tmp_path_factory.mktemp("voice"), "audio_only")


@pytest.fixture(scope="session")
def bundle_path(trained, tmp_path_factory) -> str:
    """Bundle of `trained`; not to be changed."""
    return export_unchecked(trained, str(tmp_path_factory.mktemp("exported") / "bundle"))


@pytest.fixture
def bundle_copy(bundle_path, tmp_path) -> pathlib.Path:
    """Bundle of `trained`, to be changed."""
    return pathlib.Path(shutil.copytree(bundle_path, str(tmp_path / "bundle")))


@pytest.fixture(scope="session")
def audio_bundle_path(audio_only_checkpoint, tmp_path_factory) -> str:
    """Bundle of `audio_only_checkpoint`; not to be changed."""
    return export_unchecked(audio_only_checkpoint, str(tmp_path_factory.mktemp("served") / "bundle"))


@pytest.fixture(scope="session")
def inputs(trained) -> dict:
    """Eight rows of inputs for `trained`."""
    batch = trained.model.fake_batch(8, seed=3)
    return {name: getattr(batch, name) for name in ("audio", "audio_mask", "faces", "face_mask")}
