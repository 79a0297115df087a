"""Small mistakes put into ops/ and losses/, one at a time: does a test see each? (cosmic-ray)

    python -m tests.support.mutation.run --cosmic_ray=DIR --output=results/mutation.json

Works in copies of the tree, a module at a time in each; run again, it goes on. A mistake that no test saw has
its explanation in explained.json beside this file, by its module and changed line, or by a line that means
the same in all; exit status 1 where one has none.
"""

import argparse
import collections
import concurrent.futures
import json
import os
import pathlib
import queue
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
REPLACED_OPERATORS = {
    "BinaryOperator": "Add_Sub Sub_Add Mul_Div Mul_Add Div_Mul FloorDiv_Mul Mod_Mul Pow_Mul",
    "ComparisonOperator": "Gt_GtE GtE_Gt Lt_LtE LtE_Lt Gt_LtE Lt_GtE Eq_NotEq NotEq_Eq Is_IsNot IsNot_Is",
    "UnaryOperator": "Delete_USub Delete_Not Delete_Invert",
}
"""Of the operators that are replaced, the likeliest mistakes: most others (`<<` for `+`) are type errors."""


def map_modules_to_tests() -> dict[str, list[str]]:
    """Module to its test files."""
    tests_by_module = {
        f"emofuse_jax/losses/{path.name}": LOSS_TESTS
        for path in sorted((ROOT / "emofuse_jax/losses").glob("*.py"))
    }
    for path in sorted((ROOT / "emofuse_jax/ops").glob("[!_]*.py")):
        tests_by_module[f"emofuse_jax/ops/{path.name}"] = [f"tests/unit/ops/test_{path.name}"]
    return tests_by_module | OTHER_TESTS


def main(tools_folder: str, work_folder: str, output: str, workers: int) -> int:
    """Tries every module, writes `output`, and prints what was not seen."""
    trees: queue.Queue = queue.Queue()
    for number in range(workers):
        trees.put(copy_tree(os.path.join(work_folder, f"tree_{number}")))

    def run_module(module: str, tests: list[str]) -> list[dict]:
        tree = trees.get()
        try:
            return run_mutants(tools_folder, work_folder, tree, module, tests)
        finally:
            trees.put(tree)

    with concurrent.futures.ThreadPoolExecutor(workers) as pool:
        outcomes = [
            line
            for lines in pool.map(run_module, *zip(*map_modules_to_tests().items(), strict=True))
            for line in lines
        ]
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


def run_mutants(tools_folder: str, work_folder: str, tree: str, module: str, tests: list[str]) -> list[dict]:
    """Each mistake in a module: what was changed, and whether a test saw it."""
    name = module.removesuffix(".py").replace("/", "_")
    session_path, config_path = (
        os.path.abspath(os.path.join(work_folder, f"{name}.{end}")) for end in ("sqlite", "toml")
    )
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *tests]
    excluded = [
        f"core/Replace{kind}_(?!({replacements.replace(' ', '|')})$)"
        for kind, replacements in REPLACED_OPERATORS.items()
    ]
    pathlib.Path(config_path).write_text(
        f"[cosmic-ray]\nmodule-path = {json.dumps(module)}\ntimeout ="
        f" {MUTANT_TIMEOUT_SECONDS}.0\nexcluded-modules = []\n"
        f'test-command = {json.dumps(" ".join(command))}\n[cosmic-ray.distributor]\nname = "local"\n'
        f"[cosmic-ray.filters.operators-filter]\nexclude-operators = {json.dumps(excluded)}\n"
    )

    programs = {"DIR": os.path.abspath(os.path.join(work_folder, "programs")), "MAX_SIZE": str(2 << 30)}
    env = os.environ | ENV | {f"JAX_COMPILATION_CACHE_{name}": value for name, value in programs.items()}

    def run_tool(*arguments: str) -> None:
        subprocess.run(
            [os.path.join(tools_folder, arguments[0]), *arguments[1:]], cwd=tree, env=env, check=True
        )

    if not os.path.exists(session_path):
        subprocess.run(command, cwd=tree, env=env, check=True, stdout=subprocess.DEVNULL)
        run_tool("cosmic-ray", "init", config_path, f"{session_path}.new")
        run_tool("cr-filter-operators", f"{session_path}.new", config_path)
        os.rename(f"{session_path}.new", session_path)
    run_tool("cosmic-ray", "exec", config_path, session_path)
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
    args = parser.parse_args()
    sys.exit(main(os.path.abspath(args.cosmic_ray), args.work, args.output, args.workers))
