"""Every row of the suite `systems` changes fields that exist."""

import os

import pytest

from benchmarks.system_table import SYSTEMS
from emofuse_jax import settings
from emofuse_jax.training.experiment import flatten_fields


@pytest.mark.parametrize("row", SYSTEMS, ids=lambda row: row.name)
def test_a_row_names_existing_fields_and_changes_one(row):
    defaults = flatten_fields(settings.small(row.config).to_dict())
    for name, value in row.fields.items():
        assert name in defaults
        assert isinstance(value, list | tuple) or type(defaults[name]) is type(value)
    changed = {name: value for name, value in row.fields.items() if defaults[name] != value}
    assert bool(changed) == bool(row.fields)


def test_no_two_rows_are_the_same():
    assert len({row.name for row in SYSTEMS}) == len(SYSTEMS)
    contents = {(row.config, str(sorted(row.fields.items())), str(row.refit_fields)) for row in SYSTEMS}
    assert len(contents) == len(SYSTEMS)
    for row in SYSTEMS:
        assert os.path.basename(row.name) == row.name
        assert set(row.prerequisites) <= {row.name for row in SYSTEMS}
