"""Runs `emofuse demo`; the options are described in emofuse_jax/cli/demo.py."""

from emofuse_jax.cli.main import run_verb

if __name__ == "__main__":
    run_verb("demo")
