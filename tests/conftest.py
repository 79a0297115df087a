"""One process with eight fake CPU devices; see the Makefile for why NPROC is needed."""

import importlib.metadata
import os
import shutil
import sys
import tempfile

os.environ.setdefault("JAX_PLATFORMS", "cpu")  # also on a machine that has other devices, or libtpu

# As CPU_FAST_COMPILE_OPTIONS of emofuse_jax/parallel/xla_options.py: most programs of a test run a few times.
# XLA_FLAGS= undoes it. Eight devices on two busy cores may keep each other waiting for longer than the 40 s
# after which XLA aborts. A flag that XLA does not know, as this one from jaxlib 0.11 on, ends the process.
os.environ.setdefault(
    "XLA_FLAGS",
    "--xla_backend_optimization_level=0 --xla_cpu_collective_call_terminate_timeout_seconds=300"
    + " --xla_cpu_use_fusion_emitters=false" * (importlib.metadata.version("jaxlib") < "0.11"),
)

import jax
import pytest
from jaxtyping import install_import_hook

from tests.support import shape_checks
from tests.support.paths import SHARED_DATA

# Shapes in signatures are checked here, and only here. Not in types.py: a Batch is also built from
# shapes, shardings and NumPy arrays.
SHAPE_CHECKED_MODULES = [
    "ops",
    "models",
    "losses",
    "scoring.metrics",
    "scoring.predict",
    "reporting",
    "data.augment",
]
install_import_hook(
    [*(f"emofuse_jax.{name}" for name in SHAPE_CHECKED_MODULES), "data_prep.faces"], "beartype.beartype"
)

jax.config.update("jax_num_cpu_devices", 8)

pytest_plugins = ["tests.support.fixtures"]

COMPILATION_CACHE_KEY = pytest.StashKey[str]()
"""Where this run keeps what it compiled."""


def pytest_configure(config):
    """NPROC must be set before Python starts; what pytest captures goes back to the terminal first."""
    if "NPROC" not in os.environ:
        config.pluginmanager.getplugin("capturemanager").stop_global_capturing()
        os.execve(
            sys.executable, [sys.executable, "-m", "pytest", *sys.argv[1:]], os.environ | {"NPROC": "16"}
        )
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:  # a worker has it, and a caller that keeps programs
        config.stash[COMPILATION_CACHE_KEY] = tempfile.mkdtemp(prefix="emofuse-programs-")
        share_compilation_cache(config.stash[COMPILATION_CACHE_KEY])


def pytest_unconfigure(config):
    if COMPILATION_CACHE_KEY in config.stash:
        shutil.rmtree(config.stash[COMPILATION_CACHE_KEY], ignore_errors=True)


def share_compilation_cache(path: str) -> None:
    """Workers and child processes share what is compiled, also the many small programs.

    Without a maximum size, which would cost a look at every file for each program that is added.
    """
    cache_options = {
        "jax_compilation_cache_dir": path,
        "jax_persistent_cache_min_compile_time_secs": 0.0,
        "jax_persistent_cache_min_entry_size_bytes": -1,
    }
    for name, value in cache_options.items():
        os.environ[name.upper()] = str(value)
        jax.config.update(name, value)


SLOW_TEST_FILES = (
    "contract/test_configs.py",
    "integration/training/test_crossval.py",
    "integration/api/test_demo.py",
    "unit/models/test_fusions.py",
    "robustness/training/test_faults.py",
    "integration/training/test_train.py",
    "robustness/training/test_preemption.py",
    "contract/test_no_network.py",
    "unit/models/test_invariance.py",
    "robustness/fuzz/test_fuzz.py",
    "integration/cli/test_installations.py",
    "integration/training/test_sweep.py",
    "contract/test_display_specs.py",
    "integration/serving/test_batch_predict.py",
    "robustness/chaos/test_disk_limits.py",
    "unit/models/test_model_options.py",
    "unit/models/test_mel_cnn.py",
    "unit/models/test_features.py",
    "integration/training/test_crossval_single.py",
    "unit/serving/test_export.py",
    "integration/training/test_warm_start.py",
    "contract/test_public_api.py",
    "integration/training/test_batch_source.py",
)
"""Files that begin first (make test: --no-loadscope-reorder), so that both workers end together."""


def pytest_collection_modifyitems(items):
    def file_order(item) -> int:
        name = os.path.relpath(item.path, os.path.dirname(__file__))
        return SLOW_TEST_FILES.index(name) if name in SLOW_TEST_FILES else len(SLOW_TEST_FILES)

    items.sort(key=file_order)


@pytest.fixture(scope="module", autouse=True)
def clear_caches_after_module():
    """A worker that keeps all of them needs several GB."""
    yield
    jax.clear_caches()


@pytest.fixture(scope="module")
def unchecked_shapes():
    """No shape checks of jaxtyping, as for users."""
    with shape_checks.unchecked_shapes():
        yield


@pytest.fixture(scope="module")
def users_environment():
    """No XLA_FLAGS for child processes, and for libtpu, which ends on flags that it does not know."""
    jax.devices()  # ours are read by now
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("XLA_FLAGS", raising=False)
        yield


@pytest.fixture(scope="session")
def shared_data():
    """Real speech and talking faces that lie beside the clone, where they are present."""
    if not SHARED_DATA.is_dir():
        pytest.skip("real data is not here: ../shared/data")
    return str(SHARED_DATA)


@pytest.fixture
def fake_dataset(tmp_path):
    """A tiny prepared directory (tests/support/fakes.py)."""
    from tests.support.fakes import write_dataset

    return write_dataset(str(tmp_path / "records"))
