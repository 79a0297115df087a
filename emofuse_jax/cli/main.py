"""The `emofuse` command: finds the verb, runs it, and reports expected errors in one line."""

import importlib
import os
import shlex
import sys
from collections.abc import Callable, Sequence

from emofuse_jax.utils.errors import to_one_line
from emofuse_jax.utils.prep_package import check_prep_package
from emofuse_jax.utils.process_setup import set_up_process

MAX_ERROR_CHARS = 1000
"""Maximum length of an error about the command line, which may contain any file as a word."""

VERBS = {
    "prepare": "prepare clips as records: decode, detect faces, write shards, splits and statistics",
    "composite": "pair voices of one corpus with faces of another, to stress-test a fusion",
    "split": "add a published split to prepared records",
    "train": "train one model of a config on one fold",
    "crossval": "train and test every fold of a protocol with several seeds",
    "sweep": "search for better values of config fields, by validation score only",
    "cluster": "start a run on Slurm, GKE or a TPU slice, with restarts after preemption",
    "plan": "estimate memory and time of a training step on TPU slices, without having them",
    "compare": "test whether two results differ significantly",
    "leaders": "print one table of all results below a folder",
    "evaluate": "score a trained model and write its report",
    "export": "write a serving bundle from a trained model",
    "predict": "predict media files with a bundle",
    "serve": "serve predictions of a bundle over HTTP",
    "gan": "train a fusion again with generated vectors of rare classes",
    "benchmark": "measure speed and compare it with other implementations",
    "demo": "run the complete pipeline on a synthetic corpus",
}
"""Verbs with their descriptions."""


def main() -> None:
    """Runs the verb in `sys.argv`, and ends the program; without a verb or with --help, prints the verbs.

    With --help after the verb, prints the help of the verb and returns.

    Raises:
      SystemExit: with a message for an unknown verb, flag value or config (status 1), with 2 if another
        package hides `data_prep`, and otherwise with the exit status of the verb.
      Exception: an error of the verb that is not expected; with EMOFUSE_TRACEBACK=1 also the expected ones.
    """
    verb = sys.argv[1] if len(sys.argv) > 1 else "--help"
    if verb in ("-h", "--help", "help"):
        print("usage: emofuse <verb> [--flags]      emofuse <verb> --help lists the flags of a verb\n")
        print("\n".join(f"  {name:<10}{description}" for name, description in VERBS.items()))
        return
    if verb not in VERBS:
        sys.exit(f"emofuse: unknown verb {verb!r}; expected one of {', '.join(VERBS)}")
    sys.argv = [f"emofuse {verb}", *sys.argv[2:]]
    run_verb(verb)


def run_verb(verb: str) -> None:
    """Runs a verb with the flags in `sys.argv`, for `emofuse <verb>` and `python launch/<verb>.py`.

    With --help, prints the help of the verb and returns.

    Raises:
      SystemExit: with a message for an invalid flag or config (status 1), with 2 if another package hides
        `data_prep`, and otherwise with the exit status of the verb.
      ModuleNotFoundError: there is no such verb.
      Exception: an error of the verb that is not expected; with EMOFUSE_TRACEBACK=1 also the expected ones.
    """
    try:
        check_prep_package()  # before a verb imports data_prep
    except ValueError as error:
        sys.exit(report_failure(str(error), 2))
    run(importlib.import_module(f"emofuse_jax.cli.{verb}").main)


def run(main_function: Callable[[Sequence[str]], int | None]) -> None:
    """Runs an absl main; user errors are reported in one line on stderr.

    With --help, prints the help and returns.

    Args:
      main_function: the `main` of a module in cli/, a function of argv: the name of the program and the
        arguments that are no flags. It returns the exit status; None means 0.

    Raises:
      SystemExit: at the end of the program, with its status: that of `main_function`; 1 for invalid flags or
        configs; 2 after a ValueError, an OSError or out of memory; 75 after a preemption or if another
        process of the run was lost; 130 after an interrupt.
      Exception: any other error; with the environment variable EMOFUSE_TRACEBACK=1 also those with status 2,
        and those of invalid configs.
    """
    from absl import app

    if {"-h", "--help"} & set(sys.argv[1:]):
        print(help_text(main_function.__module__))
        return
    arguments = join_config_flag(sys.argv[1:])
    arguments.sort(key=lambda argument: not argument.startswith("--config="))  # before flags of its fields
    sys.argv[1:] = map(resolve_shipped_config, arguments)  # ml_collections reads sys.argv too
    set_up_process()
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
    """Returns one line of at most 1000 characters about a config, field or value that was rejected.

    Args:
      error: the error of absl or ml_collections. If its text is only the name of a field, the line says that
        the config has no such field.
    """
    message = str(error)
    if isinstance(error, (AttributeError, KeyError)) and message.startswith(("\"'", "'")):
        message = "config: no field " + message.strip('"')  # the message is only the field's name
    return to_one_line(message)[:MAX_ERROR_CHARS]


def command_line(verb: str) -> str:
    """Returns the command that started this process as `emofuse <verb> ...`, even for launch scripts.

    The arguments are quoted for a shell. Raises ValueError if `verb` does not occur in the command.
    """
    program_names = [
        os.path.basename(argument).removesuffix(".py").split(".")[-1] for argument in sys.orig_argv
    ]
    return shlex.join(["emofuse", verb, *sys.orig_argv[program_names.index(verb) + 1 :]])


def join_config_flag(arguments: Sequence[str]) -> list[str]:
    """Returns a list of the arguments with the first `--config NAME` written as `--config=NAME`.

    A `--config` at the end stays as it is.
    """
    joined_arguments = list(arguments)
    if "--config" in joined_arguments[:-1]:
        index = joined_arguments.index("--config")
        joined_arguments[index : index + 2] = [f"--config={joined_arguments[index + 1]}"]
    return joined_arguments


def run_with_error_messages(
    main_function: Callable[[Sequence[str]], int | None], argv: Sequence[str]
) -> int | None:
    """Runs `main_function(argv)` and returns the exit status; prints expected errors in one line on stderr.

    In a run of several processes, the process exits with the status after an error instead of returning.

    Returns:
      The result of the function, None or a status; 2 after an expected error (ValueError, OSError or out of
      memory), 75 after preemption or if another process of the run was lost, and 130 after an interrupt.

    Raises:
      Exception: any other error; with the environment variable `EMOFUSE_TRACEBACK=1` also those with status 2
        and a lost process.
    """
    from absl import flags, logging

    if not flags.FLAGS["verbosity"].present:
        logging.set_verbosity(logging.WARNING)  # libraries log every file that they touch
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
        from emofuse_jax.parallel import memory, preemption  # they import jax, which takes time

        if memory.is_out_of_memory(exception) and not os.environ.get("EMOFUSE_TRACEBACK"):
            return report_failure(
                f"{memory.oom_message(exception)}; set JAX_PLATFORMS=cpu to use the host's memory", 2
            )
        if isinstance(exception, preemption.Preempted):
            print(f"emofuse: {exception}", file=sys.stderr)
            return preemption.RESTART_EXIT_CODE
        if not preemption.is_lost_process_error(exception) or os.environ.get("EMOFUSE_TRACEBACK"):
            raise
        first_line = str(exception).splitlines()[0]
        return report_failure(
            f"another process of the run was lost; start all processes again to resume ({first_line})",
            preemption.RESTART_EXIT_CODE,
        )
    except KeyboardInterrupt:
        print("emofuse: interrupted; run the same command to resume", file=sys.stderr)
        return 130


def report_failure(message: str, status: int) -> int:
    """Prints `emofuse: <message>` on stderr and returns `status`.

    A process of a multi-process run exits here with this status instead: an orderly exit would wait for the
    other processes, which wait for this one.
    """
    print(f"emofuse: {message}", file=sys.stderr, flush=True)
    if "jax" in sys.modules and sys.modules["jax"].distributed.is_initialized():
        os._exit(status)
    return status


def help_text(module: str) -> str:
    """Returns the help of a verb: the docstring of its module, and its flags with their defaults.

    `module` is the name of an imported module, such as `emofuse_jax.cli.train`. Raises KeyError if it is not
    imported.
    """
    from absl import flags

    lines = [(sys.modules[module].__doc__ or "").strip(), "", "flags:"]
    for flag in sorted(flags.FLAGS.get_key_flags_for_module(module), key=lambda flag: flag.name):
        default = "" if flag.default is None else f" (default: {flag.default})"
        lines.append(f"  --{flag.name}: {flag.help}{default}")
    return "\n".join(lines)


def resolve_shipped_config(config_flag: str) -> str:
    """Returns `--config=NAME` with the path of the shipped config; other arguments are returned unchanged.

    An existing file of that name takes precedence. `NAME.py` and `configs/NAME.py`, the paths in a clone,
    also mean the shipped config. In `--config=NAME:ARGUMENT`, the argument is preserved.

    Raises:
      SystemExit: there is neither a file nor a shipped config of that name; has a message, which means status
        1.
    """
    if not config_flag.startswith("--config=") or os.path.isfile(config_flag[9:].split(":")[0]):
        return config_flag
    from emofuse_jax.settings.shipped import shipped_names, shipped_path

    name, *config_arguments = config_flag[9:].split(":")
    path = shipped_path(name.removeprefix("configs/").removesuffix(".py"))
    if path is None:
        raise SystemExit(
            f"emofuse: --config={name}: expected a config file or the name of a shipped config, one of"
            f" {', '.join(shipped_names())}"
        )
    return ":".join([f"--config={path}", *config_arguments])
