"""`python -m emofuse_jax.cli <verb>` is the `emofuse` command."""

from emofuse_jax.cli.main import main

if __name__ == "__main__":
    main()
