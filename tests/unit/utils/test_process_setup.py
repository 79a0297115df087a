"""What commands change in their process, and that an import changes nothing."""

import logging
import os
import subprocess
import sys
import threading
import types

from emofuse_jax.utils import process_setup

CODE = """
import logging, os, sys, threading
before = sys.unraisablehook, threading.excepthook, list(logging.getLogger("absl").filters), dict(os.environ)
import emofuse_jax as ef
for name in ef.__all__:
    getattr(ef, name)
after = sys.unraisablehook, threading.excepthook, list(logging.getLogger("absl").filters), dict(os.environ)
assert after[:3] == before[:3], after
print(sorted({k: v for k, v in after[3].items() if before[3].get(k) != v}))
"""


def test_an_import_changes_nothing_of_the_process():
    cache_prefixes = ("JAX_COMPILATION_CACHE", "JAX_PERSISTENT_CACHE")  # which tests/conftest.py sets
    environment = {k: v for k, v in os.environ.items() if not k.startswith(cache_prefixes)}
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert "EMOFUSE" not in done.stdout
    assert "JAX_" not in done.stdout  # of enable_compilation_cache


def test_errors_of_threads_are_one_line(capsys, monkeypatch):
    monkeypatch.delenv("EMOFUSE_TRACEBACK", raising=False)
    arguments = types.SimpleNamespace(exc_value=OSError("disk full"), object=None)
    process_setup._report_unraisable_error(arguments)
    process_setup._report_thread_error(arguments)
    assert capsys.readouterr().err == "emofuse: disk full\n" * 2
    process_setup._report_unraisable_error(
        types.SimpleNamespace(exc_value=RuntimeError("Event loop is closed"), object=None)
    )
    assert capsys.readouterr().err == ""


def test_commands_set_up_their_process(monkeypatch):
    monkeypatch.setattr(process_setup, "enable_compilation_cache", lambda: None)
    monkeypatch.setattr(sys, "unraisablehook", sys.unraisablehook)
    monkeypatch.setattr(threading, "excepthook", threading.excepthook)
    logger = logging.getLogger("absl")
    monkeypatch.setattr(logger, "filters", list(logger.filters))
    process_setup.set_up_process()
    assert sys.unraisablehook is process_setup._report_unraisable_error
    record = logging.LogRecord("absl", logging.ERROR, "/site/orbax/x.py", 1, "failed", (), None)
    assert not logger.filter(record)


def test_torch_is_hidden_while_tensorboard_is_imported(monkeypatch):
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    with process_setup.without_torch():
        assert sys.modules["torch"] is None
    assert "torch" not in sys.modules
