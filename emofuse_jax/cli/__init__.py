"""The `emofuse` command, one module per verb."""
