"""Puts small mistakes into the code, one at a time, and tells which of them no test detects (cosmic-ray).

    python -m tests.support.mutation.run --cosmic_ray=DIR --output=results/mutation.json
    python -m tests.support.mutation.run --cosmic_ray=DIR --output=FILE --group=training --sample=20 --seed=0

The group `formulas` are the modules of ops/ and losses/, `training` those of the engine, the step and the
checkpoints. Works in copies of the tree, one module at a time in each; started again, it continues. Only
short tests are run. A mistake that no test detects has its explanation in explained.json beside this file, by
its module and changed line, or by a line that means the same in all; the exit status is 1 if one has none.
"""

import argparse
import collections
import concurrent.futures
import contextlib
import json
import os
import pathlib
import queue
import random
import shlex
import shutil
import sqlite3
import subprocess
import sys

from tests.support.paths import ROOT

HERE = pathlib.Path(__file__).parent
COPIED_PATHS = (
    "emofuse_jax",
    "data_prep",
    "configs",
    "launch",
    "benchmarks",
    "tests",
    "pyproject.toml",
    "setup.py",
)
ENV = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
"""Plugins that these tests do not use take two seconds a mistake, programs that it does not change three."""
MUTANT_TIMEOUT_SECONDS = 300
"""After which a mistake counts as seen: the tests of a module take seconds."""
LOSS_TESTS = ["tests/unit/losses"]
OTHER_TESTS = {
    "emofuse_jax/ops/dropout.py": ["tests/unit/ops/test_convolutional.py", "tests/unit/ops/test_bilinear.py"],
    "emofuse_jax/ops/lrn.py": ["tests/unit/ops/test_convolutional.py"],
    "emofuse_jax/ops/maxpool.py": ["tests/unit/ops/test_convolutional.py"],
    "emofuse_jax/ops/metric_learning.py": [
        "tests/unit/ops/test_metric_learning.py",
        "tests/unit/losses/test_metric_learning.py",
    ],
    "emofuse_jax/ops/dense.py": ["tests/unit/ops/test_bilinear.py"],
}
"""Where they are not those of the same name."""
FAULT_TESTS = "tests/robustness/training/test_faults.py"
CROSSVAL_TESTS = "tests/integration/training/test_crossval.py"
CHECKPOINT_TESTS = ["tests/unit/training/test_checkpoint.py", FAULT_TESTS]
ENGINE_TESTS = [FAULT_TESTS, "tests/integration/training/test_fusion_state.py", CROSSVAL_TESTS]
TRAINING_TESTS = {
    "emofuse_jax/training/engine.py": ENGINE_TESTS,
    "emofuse_jax/training/replica_set.py": ENGINE_TESTS,
    "emofuse_jax/training/single_replica.py": ENGINE_TESTS,
    "emofuse_jax/training/crossval/stacked_replicas.py": [
        CROSSVAL_TESTS,
        "tests/integration/training/test_sweep.py",
        "tests/robustness/fuzz/test_fuzz.py",
    ],
    "emofuse_jax/training/step.py": ["tests/unit/training", CROSSVAL_TESTS],
    "emofuse_jax/training/batch_source.py": [
        FAULT_TESTS,
        "tests/integration/training/test_batch_source.py",
        "tests/integration/training/test_semi_supervised.py",
    ],
    "emofuse_jax/training/checkpoint/store.py": CHECKPOINT_TESTS,
    "emofuse_jax/training/checkpoint/metadata.py": CHECKPOINT_TESTS,
    "emofuse_jax/training/checkpoint/saved_config.py": [
        "tests/unit/training/test_saved_config.py",
        *CHECKPOINT_TESTS,
    ],
}
"""Modules of the group `training`, and a part of the short tests."""
REPLACED_OPERATORS = {
    "BinaryOperator": "Add_Sub Sub_Add Mul_Div Mul_Add Div_Mul FloorDiv_Mul Mod_Mul Pow_Mul",
    "ComparisonOperator": "Gt_GtE GtE_Gt Lt_LtE LtE_Lt Gt_LtE Lt_GtE Eq_NotEq NotEq_Eq Is_IsNot IsNot_Is",
    "UnaryOperator": "Delete_USub Delete_Not Delete_Invert",
}
"""Of the operators that are replaced, the likeliest mistakes: most others (`<<` for `+`) are type errors."""


def map_modules_to_tests(group: str) -> dict[str, list[str]]:
    """Returns the test files of each module of a group."""
    if group == "training":
        return TRAINING_TESTS
    tests_by_module = {
        f"emofuse_jax/losses/{path.name}": LOSS_TESTS
        for path in sorted((ROOT / "emofuse_jax/losses").glob("*.py"))
    }
    for path in sorted((ROOT / "emofuse_jax/ops").glob("[!_]*.py")):
        tests_by_module[f"emofuse_jax/ops/{path.name}"] = [f"tests/unit/ops/test_{path.name}"]
    return tests_by_module | OTHER_TESTS


def main(
    tools_folder: str, work_folder: str, output: str, workers: int, group: str, sample: int, seed: int
) -> int:
    """Tries every module of a group, writes `output`, and prints the mistakes that were not detected.

    Only `sample` mistakes of all modules together are tried, drawn by `seed`; 0 stands for all.
    """
    trees: queue.Queue = queue.Queue()
    tests_by_module = map_modules_to_tests(group)
    for number in range(workers):
        trees.put(copy_tree(os.path.join(work_folder, f"tree_{number}")))

    def in_tree(function, *arguments):
        tree = trees.get()
        try:
            return function(tools_folder, work_folder, tree, *arguments)
        finally:
            trees.put(tree)

    def run_module(module: str) -> list[dict]:
        return in_tree(run_mutants, module)

    with concurrent.futures.ThreadPoolExecutor(workers) as pool:
        sessions = list(pool.map(lambda item: in_tree(make_session, *item), tests_by_module.items()))
        if sample:
            keep_sample(sessions, sample, seed)
        outcomes = [line for lines in pool.map(run_module, tests_by_module) for line in lines]
    summary = make_report(outcomes)
    with open(output, "w", encoding="utf-8") as file:
        json.dump(summary, file, indent=1)
        file.write("\n")
    for line in summary["survived"]:
        print(f"{line['module']}:{line['line']}: {line['change']}: {line['why'] or 'NOT EXPLAINED'}")
    print({name: value for name, value in summary.items() if isinstance(value, int)})
    return 1 if summary["unexplained"] else 0


def copy_tree(path: str) -> str:
    """A fresh copy of what a test needs."""
    shutil.rmtree(path, ignore_errors=True)
    for name in COPIED_PATHS:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copyfile
        os.makedirs(path, exist_ok=True)
        copy(ROOT / name, os.path.join(path, name))
    return path


def session_files(work_folder: str, module: str) -> tuple[str, str]:
    """Returns the paths of the session of a module and of its settings."""
    name = module.removesuffix(".py").replace("/", "_")
    session_path, config_path = (
        os.path.abspath(os.path.join(work_folder, f"{name}.{end}")) for end in ("sqlite", "toml")
    )
    return session_path, config_path


def run_tool(work_folder: str, tree: str, command: list[str], **options) -> None:
    """Runs a command in a copy of the tree; all share the programs that JAX compiles."""
    programs = {"DIR": os.path.abspath(os.path.join(work_folder, "programs")), "MAX_SIZE": str(2 << 30)}
    env = os.environ | ENV | {f"JAX_COMPILATION_CACHE_{name}": value for name, value in programs.items()}
    subprocess.run(command, cwd=tree, env=env, check=True, **options)


def make_session(tools_folder: str, work_folder: str, tree: str, module: str, tests: list[str]) -> str:
    """Makes the session of a module with all its mistakes, and returns its path; keeps an existing one.

    Raises:
      subprocess.CalledProcessError: the tests fail without a mistake.
    """
    session_path, config_path = session_files(work_folder, module)
    pytest = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "-m", "not long"]
    command = [*pytest, *tests]
    excluded = [
        f"core/Replace{kind}_(?!({replacements.replace(' ', '|')})$)"
        for kind, replacements in REPLACED_OPERATORS.items()
    ]
    pathlib.Path(config_path).write_text(
        f"[cosmic-ray]\nmodule-path = {json.dumps(module)}\ntimeout ="
        f" {MUTANT_TIMEOUT_SECONDS}.0\nexcluded-modules = []\n"
        f'test-command = {json.dumps(shlex.join(command))}\n[cosmic-ray.distributor]\nname = "local"\n'
        f"[cosmic-ray.filters.operators-filter]\nexclude-operators = {json.dumps(excluded)}\n"
    )
    if not os.path.exists(session_path):
        cosmic_ray, filter_operators = (
            os.path.join(tools_folder, name) for name in ("cosmic-ray", "cr-filter-operators")
        )
        run_tool(work_folder, tree, command, stdout=subprocess.DEVNULL)
        run_tool(work_folder, tree, [cosmic_ray, "init", config_path, f"{session_path}.new"])
        run_tool(work_folder, tree, [filter_operators, f"{session_path}.new", config_path])
        os.rename(f"{session_path}.new", session_path)
    return session_path


def keep_sample(sessions: list[str], count: int, seed: int) -> None:
    """Removes all mistakes from the sessions but `count`, drawn by `seed`; nothing if so few are left."""
    jobs = [(session, job) for session in sessions for job in list_jobs(session)]
    sampled_jobs = {*random.Random(seed).sample(jobs, min(count, len(jobs)))}
    for session, job in jobs:
        if (session, job) not in sampled_jobs:
            with contextlib.closing(sqlite3.connect(session)) as connection, connection:
                for table in ("work_results", "mutation_specs", "work_items"):
                    connection.execute(f"delete from {table} where job_id = ?", (job,))


def list_jobs(session: str) -> list[str]:
    """Returns the ids of the mistakes of a session that are not filtered out, in order of position."""
    query = """select job_id from mutation_specs where job_id not in
               (select job_id from work_results where worker_outcome = 'SKIPPED')
               order by start_pos_row, start_pos_col, operator_name, occurrence"""
    with contextlib.closing(sqlite3.connect(session)) as connection:
        return [job for (job,) in connection.execute(query)]


def run_mutants(tools_folder: str, work_folder: str, tree: str, module: str) -> list[dict]:
    """Tries each mistake in a module; returns what was changed, and whether a test detected it."""
    session_path, config_path = session_files(work_folder, module)
    cosmic_ray = os.path.join(tools_folder, "cosmic-ray")
    run_tool(work_folder, tree, [cosmic_ray, "exec", config_path, session_path])
    return read_outcomes(session_path)


def read_outcomes(session: str) -> list[dict]:
    """What a session of cosmic-ray says."""
    query = """select module_path, start_pos_row, operator_name, test_outcome, diff from mutation_specs
               join work_results using (job_id) where worker_outcome != 'SKIPPED'"""
    with sqlite3.connect(session) as connection:
        rows = connection.execute(query).fetchall()
    return [
        {"module": module, "line": line, "operator": operator, "outcome": outcome, "change": added_code(diff)}
        for module, line, operator, outcome, diff in rows
    ]


def added_code(diff: str) -> str:
    """The line that a mistake makes."""
    added = [line for line in diff.splitlines() if line.startswith("+") and not line.startswith("+++ ")]
    return "; ".join(line[1:].strip() for line in added)


def make_report(outcomes: list[dict]) -> dict:
    """What `results/mutation.json` holds."""
    explanations = json.loads((HERE / "explained.json").read_text(encoding="utf-8"))

    def find_explanation(module: str, change: str) -> str:
        return explanations.get(f"{module}: {change}", explanations.get(change, ""))

    survived = [
        {**line, "why": find_explanation(line["module"], line["change"])}
        for line in outcomes
        if line["outcome"] == "SURVIVED"
    ]
    return {
        "mutants": len(outcomes),
        "killed": sum(line["outcome"] == "KILLED" for line in outcomes),
        "unexplained": sum(not line["why"] for line in survived),
        "by_module": dict(collections.Counter(line["module"] for line in outcomes)),
        "survived": survived,
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--cosmic_ray", required=True, help="directory of its programs")
    parser.add_argument("--work", default="runs/mutation", help="copies of the tree, and sessions")
    parser.add_argument("--output", default="results/mutation.json")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--group", choices=["formulas", "training"], default="formulas")
    parser.add_argument("--sample", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    sys.exit(
        main(
            os.path.abspath(args.cosmic_ray),
            args.work,
            args.output,
            args.workers,
            args.group,
            args.sample,
            args.seed,
        )
    )
