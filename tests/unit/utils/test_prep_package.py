"""A user's own `data_prep` is named before it is imported."""

import importlib
import subprocess
import sys
import types

import pytest

from emofuse_jax.utils import prep_package
from emofuse_jax.utils.prep_package import check_prep_package


@pytest.fixture
def users_folder(tmp_path, monkeypatch):
    """The first place that Python searches; data_prep looks as if it was not imported before."""
    monkeypatch.delitem(sys.modules, "data_prep", raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def test_the_package_beside_ours_is_fine():
    check_prep_package()


@pytest.mark.parametrize("name", ["data_prep/__init__.py", "data_prep.py"])
def test_the_folder_that_hides_ours_is_named(users_folder, name):
    path = users_folder / name
    path.parent.mkdir(exist_ok=True)
    path.write_text("raise RuntimeError('imported')")
    importlib.invalidate_caches()
    with pytest.raises(ValueError, match="hides the package data_prep of emofuse") as error:
        check_prep_package()
    assert str(error.value).startswith(f"{users_folder / name.split('/')[0]}: hides")
    assert f"remove {users_folder} from PYTHONPATH" in str(error.value)
    assert "\n" not in str(error.value)


def test_one_that_is_imported_already_is_named_too(monkeypatch, tmp_path):
    """As in a notebook beside such a folder."""
    module = types.ModuleType("data_prep")
    module.__spec__ = importlib.machinery.ModuleSpec("data_prep", None, is_package=True)
    module.__spec__.submodule_search_locations = [str(tmp_path / "data_prep")]
    monkeypatch.setitem(sys.modules, "data_prep", module)
    with pytest.raises(ValueError, match=f"{tmp_path}/data_prep: hides"):
        check_prep_package()


def test_a_link_to_our_folders_is_ours(users_folder):
    """A clone may be linked into a project."""
    root = importlib.util.find_spec("emofuse_jax").submodule_search_locations[0].rpartition("/")[0]
    (users_folder / "data_prep").symlink_to(f"{root}/data_prep")
    importlib.invalidate_caches()
    check_prep_package()


def test_a_missing_package_is_told(monkeypatch):
    monkeypatch.setattr(prep_package.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match="data_prep: this package of emofuse is missing"):
        check_prep_package()


def test_serving_media_says_so(tmp_path):
    (tmp_path / "data_prep").mkdir()
    (tmp_path / "data_prep" / "__init__.py").write_text("raise RuntimeError('imported')")
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r})\nimport emofuse_jax.serving.media.predict_file"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.stderr.splitlines()[-1].startswith(f"ValueError: {tmp_path}/data_prep: hides the package")
