"""Runs `emofuse plan`; the options are described in emofuse_jax/cli/plan.py."""

from emofuse_jax.cli.main import run_verb

if __name__ == "__main__":
    run_verb("plan")
