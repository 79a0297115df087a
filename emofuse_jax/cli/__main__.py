"""Runs the `emofuse` command as `python -m emofuse_jax.cli <verb>`."""

from emofuse_jax.cli.main import main

if __name__ == "__main__":
    main()
