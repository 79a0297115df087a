"""The `emofuse` command: finds the verb, runs it, and turns expected errors into one line."""

import importlib
import os
import shlex
import sys
import threading
from collections.abc import Callable, Sequence

from emofuse_jax.utils.errors import to_one_line
from emofuse_jax.utils.prep_package import check_prep_package

MAX_ERROR_CHARS = 1000
"""Characters of a line about a word of the command line, which may be any file."""

VERBS = {
    "prepare": "clips to records: decode, find faces, write shards, splits and statistics",
    "composite": "pair voices of one corpus with faces of another, to stress a fusion",
    "split": "add a published split to prepared records",
    "train": "train one model of a config on one fold",
    "crossval": "train and test every fold of a protocol with several seeds",
    "sweep": "search for better settings of a config, by validation alone",
    "cluster": "start a run on Slurm, GKE or a TPU slice, and again when it is taken back",
    "plan": "memory and time of a training step on TPU slices that are not here",
    "compare": "say whether two results differ by more than chance",
    "leaders": "one table of all results below a folder",
    "evaluate": "score a trained model and write its report",
    "export": "write a serving bundle of a trained model",
    "predict": "answer for media files with a bundle",
    "serve": "answer over HTTP with a bundle",
    "gan": "fit a trained fusion again with generated vectors of rare classes",
    "benchmark": "measure side by side with others, and say the ratio",
    "demo": "the whole thread on a corpus that is made here",
}


def main() -> None:
    """Entry point of the `emofuse` command."""
    verb = sys.argv[1] if len(sys.argv) > 1 else "--help"
    if verb in ("-h", "--help", "help"):
        print("usage: emofuse <verb> [--flags]      emofuse <verb> --help tells a verb's flags\n")
        print("\n".join(f"  {name:<10}{description}" for name, description in VERBS.items()))
        return
    if verb not in VERBS:
        sys.exit(f"emofuse: no verb {verb!r}; there are {', '.join(VERBS)}")
    sys.argv = [f"emofuse {verb}", *sys.argv[2:]]
    run_verb(verb)


def run_verb(verb: str) -> None:
    """Runs a verb with the flags in `sys.argv`, for `emofuse <verb>` and `python launch/<verb>.py`."""
    try:
        check_prep_package()  # before a verb imports data_prep
    except ValueError as error:
        sys.exit(report_failure(str(error), 2))
    run(importlib.import_module(f"emofuse_jax.cli.{verb}").main)


def run(main_function: Callable[[Sequence[str]], int | None]) -> None:
    """Runs an absl main; a user's mistake is one line on stderr and exit status 2, not a traceback.

    `EMOFUSE_TRACEBACK=1` shows where an error came from.
    """
    from absl import app

    if {"-h", "--help"} & set(sys.argv[1:]):
        print(help_text(main_function.__module__))
        return
    arguments = join_config_flag(sys.argv[1:])
    arguments.sort(key=lambda argument: not argument.startswith("--config="))  # before its fields
    sys.argv[1:] = map(resolve_shipped_config, arguments)  # ml_collections reads sys.argv too
    enable_compilation_cache()
    threading.excepthook, sys.unraisablehook = report_uncaught_error, report_uncaught_error
    started = []

    def start(argv: Sequence[str]) -> int | None:
        started.append(True)
        return run_with_error_messages(main_function, argv)

    try:
        app.run(start)
    except (AttributeError, ImportError, LookupError, ValueError) as error:
        if started or os.environ.get("EMOFUSE_TRACEBACK"):
            raise
        sys.exit(f"emofuse: {format_config_error(error)}")


def format_config_error(error: Exception) -> str:
    """Returns the line for a config, a field or a value that absl or ml_collections did not take."""
    message = str(error)
    if isinstance(error, (AttributeError, KeyError)) and message.startswith(("\"'", "'")):
        message = "config: no field " + message.strip('"')  # they say no more than the field's name
    return to_one_line(message)[:MAX_ERROR_CHARS]


def report_uncaught_error(hook_args) -> None:
    """For what a thread, or TensorBoard's writer at the end, can't raise: a full disk needs no traceback."""
    if isinstance(hook_args.exc_value, OSError) and not os.environ.get("EMOFUSE_TRACEBACK"):
        print(f"emofuse: {hook_args.exc_value}", file=sys.stderr)
    elif isinstance(hook_args, threading.ExceptHookArgs):
        threading.__excepthook__(hook_args)
    else:
        sys.__unraisablehook__(hook_args)


def enable_compilation_cache() -> None:
    """Compiled programs are kept for the next start, unless JAX_COMPILATION_CACHE_DIR is set, or empty.

    On a processor of another kind they would not run: each kind has its own.
    """
    from emofuse_jax.utils.system import cpu_fingerprint

    cache_home = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", os.path.join(cache_home, "emofuse", cpu_fingerprint()))
    os.environ.setdefault("JAX_COMPILATION_CACHE_MAX_SIZE", str(2 << 30))  # the oldest make way
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")


def command_line(verb: str) -> str:
    """The command of this process, as it was typed, whether by `emofuse` or by `python launch/<verb>.py`."""
    program_names = [
        os.path.basename(argument).removesuffix(".py").split(".")[-1] for argument in sys.orig_argv
    ]
    return shlex.join(["emofuse", verb, *sys.orig_argv[program_names.index(verb) + 1 :]])


def join_config_flag(arguments: Sequence[str]) -> list[str]:
    """`--config am_fbp` as `--config=am_fbp`."""
    joined_arguments = list(arguments)
    if "--config" in joined_arguments[:-1]:
        index = joined_arguments.index("--config")
        joined_arguments[index : index + 2] = [f"--config={joined_arguments[index + 1]}"]
    return joined_arguments


def run_with_error_messages(
    main_function: Callable[[Sequence[str]], int | None], argv: Sequence[str]
) -> int | None:
    """The program's exit status; expected errors become one line."""
    from absl import flags, logging

    if not flags.FLAGS["verbosity"].present:
        logging.set_verbosity(logging.WARNING)  # libraries tell each file they touch
    try:
        return main_function(argv)
    except (ValueError, OSError) as error:
        if os.environ.get("EMOFUSE_TRACEBACK"):
            raise
        return report_failure(to_one_line(error) or type(error).__name__, 2)
    except MemoryError as error:
        if os.environ.get("EMOFUSE_TRACEBACK"):
            raise
        return report_failure(f"out of memory: {error}", 2)
    except Exception as exception:
        from emofuse_jax.parallel import memory, preemption  # need jax: not before it is thrown

        if memory.is_out_of_memory(exception) and not os.environ.get("EMOFUSE_TRACEBACK"):
            return report_failure(
                f"{memory.oom_message(exception)}; JAX_PLATFORMS=cpu computes in the host's memory", 2
            )
        if isinstance(exception, preemption.Preempted):
            print(f"emofuse: told to stop; {exception}; the same command goes on", file=sys.stderr)
            return preemption.RESTART_EXIT_CODE
        if not preemption.is_lost_process_error(exception) or os.environ.get("EMOFUSE_TRACEBACK"):
            raise
        first_line = str(exception).splitlines()[0]
        return report_failure(
            f"another process of the run is lost; start them all again ({first_line})",
            preemption.RESTART_EXIT_CODE,
        )
    except KeyboardInterrupt:
        print("emofuse: interrupted; the same command goes on", file=sys.stderr)
        return 130


def report_failure(message: str, status: int) -> int:
    """Tells why, and gives the status. Of several processes this one ends here: an orderly exit would wait
    for the others, who wait for it."""
    print(f"emofuse: {message}", file=sys.stderr, flush=True)
    if "jax" in sys.modules and sys.modules["jax"].distributed.is_initialized():
        os._exit(status)
    return status


def help_text(module: str) -> str:
    """A verb's docstring and its flags with their defaults."""
    from absl import flags

    lines = [(sys.modules[module].__doc__ or "").strip(), "", "flags:"]
    for flag in sorted(flags.FLAGS.get_key_flags_for_module(module), key=lambda flag: flag.name):
        default = "" if flag.default is None else f" (default: {flag.default})"
        lines.append(f"  --{flag.name}: {flag.help}{default}")
    return "\n".join(lines)


def resolve_shipped_config(config_flag: str) -> str:
    """Replaces `--config=am_fbp` by the path of the shipped file, unless a file of that name exists.

    `am_fbp.py` and `configs/am_fbp.py`, the paths in a clone, mean the shipped file too.
    """
    if not config_flag.startswith("--config=") or os.path.isfile(config_flag[9:].split(":")[0]):
        return config_flag
    from emofuse_jax.settings.shipped import shipped_path

    name, *config_arguments = config_flag[9:].split(":")
    path = shipped_path(name.removeprefix("configs/").removesuffix(".py"))
    if path is None:
        raise SystemExit(f"emofuse: --config={name}: neither a file here nor a shipped config")
    return ":".join([f"--config={path}", *config_arguments])
