import os
import subprocess
import sys

import pytest

from emofuse_jax.cli import main
from tests.support.paths import ROOT


def run_emofuse(*arguments, cwd=None):
    code = "from emofuse_jax.cli.main import main; main()"
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        cwd=cwd,
        env=env,
        timeout=120,
    )


def test_without_a_verb_it_lists_the_verbs():
    done = run_emofuse()
    assert done.returncode == 0
    for verb in main.VERBS:
        assert f"  {verb} " in done.stdout


def test_an_unknown_verb_is_one_line():
    done = run_emofuse("trian")
    assert done.returncode == 1
    assert done.stderr.startswith("emofuse: unknown verb 'trian'; expected one of prepare, composite, split,")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("verb", main.VERBS)
def test_every_verb_has_help_and_both_forms_say_the_same(verb):
    done = run_emofuse(verb, "--help")
    assert done.returncode == 0, done.stderr
    assert "flags:" in done.stdout
    assert "emofuse " + verb in done.stdout
    assert done.stdout.count("\n  --") >= 2
    script = [sys.executable, os.path.join(ROOT, "launch", f"{verb}.py"), "--help"]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    script_run = subprocess.run(script, capture_output=True, text=True, check=True, timeout=120, env=env)
    assert script_run.stdout == done.stdout


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["train"], "--config and --workdir are required"),
        (["train", "--config=am_fbp", "--workdir=w"], "config.data.path is empty"),
        (["train", "--config=am_fbp", "--config.data.path=nowhere", "--workdir=w"], "nowhere"),
        (["train", "--config=no_such", "--workdir=w"], "--config=no_such: expected a config file"),
        (["train", "--config=demo:nosuch", "--workdir=w"], "experiment 'nosuch': expected one of"),
        (
            ["train", "--config=elsewhere/am_fbp.py", "--workdir=w"],
            "elsewhere/am_fbp.py: expected a config file",
        ),
        (["train", "--config=am_fbp", "--config.data.bogus=3", "--workdir=w"], "config: no field 'bogus'"),
        (["train", "--config=am_fbp", "--config.mesh.model=1", "--workdir=w"], "config: no field 'model'"),
        (["train", "--config=am_fbp", "--config.bogus.at.all=3", "--workdir=w"], "config: no field 'bogus'"),
        (["train", "--config", "am_fbp", "--workdir=w"], "config.data.path is empty"),
        (["train", "surplus"], "unexpected argument 'surplus'"),
        (["evaluate", "--workdir=nowhere"], "nowhere: holds no best checkpoint"),
        (["export", "--workdir=nowhere", "--output=b"], "nowhere: holds no best checkpoint"),
        (["predict", "--bundle=nowhere", "x.mp4"], "nowhere"),
        (["prepare", "--corpus=folder", "--source=nowhere", "--output=r"], "nowhere"),
    ],
)
def test_a_mistake_is_one_line_without_traceback(words, message, tmp_path):
    done = run_emofuse(*words, cwd=tmp_path)
    assert done.returncode != 0
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stderr.strip().count("\n") == 0, done.stderr
    assert not os.listdir(tmp_path), "a failed command left something behind"


def test_shipped_configs_are_found_by_name_and_files_come_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shipped = os.path.join(ROOT, "configs", "am_fbp.py")
    assert main.resolve_shipped_config("--config=am_fbp") == f"--config={shipped}"
    assert main.resolve_shipped_config("--config=configs/am_fbp.py") == f"--config={shipped}"
    demo = os.path.join(ROOT, "configs", "demo.py")
    assert main.resolve_shipped_config("--config=demo:late") == f"--config={demo}:late"
    (tmp_path / "am_fbp").mkdir()  # a workdir of that name
    assert main.resolve_shipped_config("--config=am_fbp") == f"--config={shipped}"
    (tmp_path / "mine.py").touch()
    assert main.resolve_shipped_config("--config=mine.py") == "--config=mine.py"
    assert main.resolve_shipped_config("--other=am_fbp") == "--other=am_fbp"
