"""One small preparation for all tests that look at one."""

import pytest

from tests.data_prep.small_corpus import make_source, run_prepare


@pytest.fixture(scope="module", autouse=True)
def _user_environment(users_environment):
    """In processes of their own, which search many frames with few programs."""


@pytest.fixture(scope="session")
def source(tmp_path_factory):
    """Folder with clips.csv."""
    return make_source(tmp_path_factory.mktemp("source") / "clips")


@pytest.fixture(scope="session")
def prepared(source, tmp_path_factory):
    """(output, summary) of an undisturbed preparation; not to be changed."""
    output = tmp_path_factory.mktemp("records")
    return output, run_prepare(source, output, workers=0)
