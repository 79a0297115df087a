"""Changes to the state of the process, collected here with their reasons.

The commands apply `set_up_process`; importing emofuse changes nothing.
"""

import contextlib
import logging
import os
import sys
import threading
from collections.abc import Iterator


def set_up_process() -> None:
    """Sets up the process of a command: stores compiled programs on disk, shortens errors of threads.

    Call it before JAX is imported. Changes environment variables (`enable_compilation_cache`), the logger
    `absl`, `threading.excepthook` and `sys.unraisablehook`. The logger drops errors that orbax logs, because
    its threads raise them as well. An OSError in a thread, or one that Python cannot raise, such as a full
    disk at exit, is printed on stderr in one line instead of with its traceback.
    """
    enable_compilation_cache()
    logging.getLogger("absl").addFilter(_is_worth_logging)
    threading.excepthook, sys.unraisablehook = _report_thread_error, _report_unraisable_error


def enable_compilation_cache() -> None:
    """Makes JAX store all compiled programs on disk for later runs, up to 2 GiB.

    Sets environment variables that are not set yet; JAX reads them when it is imported. The directory is
    `~/.cache/emofuse/<CPU type>`, or `emofuse/<CPU type>` below XDG_CACHE_HOME, because programs for one CPU
    type may not run on another. JAX_COMPILATION_CACHE_DIR overrides it; an empty value disables the cache.
    """
    from emofuse_jax.utils.system import cpu_fingerprint

    cache_home = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", os.path.join(cache_home, "emofuse", cpu_fingerprint()))
    os.environ.setdefault("JAX_COMPILATION_CACHE_MAX_SIZE", str(2 << 30))  # the oldest entries are deleted
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")


def _is_worth_logging(record: logging.LogRecord) -> bool:
    """Returns False for errors that orbax logs, since its threads raise them too; True for other messages."""
    return record.levelno != logging.ERROR or "orbax" not in record.pathname


def _report_thread_error(arguments: threading.ExceptHookArgs) -> None:
    """Prints an OSError of a thread, such as a full disk, on stderr in one line.

    Other errors are printed with their traceback; with the environment variable EMOFUSE_TRACEBACK all are.
    """
    if not _print_oserror(arguments.exc_value):
        threading.__excepthook__(arguments)


def _report_unraisable_error(unraisable: "sys.UnraisableHookArgs") -> None:
    """Prints an OSError that can't be raised, such as one of TensorBoard's writer at exit, in one line.

    It prints on stderr. Other errors are printed with their traceback; with the environment variable
    EMOFUSE_TRACEBACK all are. Prints nothing for reports of tensorstore to the event loop of a save that has
    already failed: its threads would print one traceback per array.
    """
    if unraisable.object is None and str(unraisable.exc_value) == "Event loop is closed":
        return
    if not _print_oserror(unraisable.exc_value):
        sys.__unraisablehook__(unraisable)


def _print_oserror(error: BaseException | None) -> bool:
    if not isinstance(error, OSError) or os.environ.get("EMOFUSE_TRACEBACK"):
        return False
    print(f"emofuse: {error}", file=sys.stderr)
    return True


@contextlib.contextmanager
def without_torch() -> Iterator[None]:
    """Hides PyTorch in the `with` block: `import torch` then fails. Yields nothing.

    After the block, PyTorch can be imported again. If it is already imported, nothing is hidden. tensorboardX
    imports PyTorch if it is installed, which takes 1.6 s and loads its CUDA libraries.
    """
    if "torch" in sys.modules:
        yield
        return
    sys.modules["torch"] = None  # type: ignore[assignment]  # None makes `import torch` fail
    try:
        yield
    finally:
        del sys.modules["torch"]
