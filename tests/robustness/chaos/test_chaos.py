"""Ten kills of the four commands; `make chaos` makes a hundred."""

import json

import pytest

from tests.robustness.chaos.report import count_failures
from tests.robustness.chaos.run import main


@pytest.mark.long
def test_killed_at_any_moment_they_end_the_same(tmp_path, capsys):
    summary = main(10, 0, str(tmp_path))
    output = capsys.readouterr().out
    assert summary["kills"] >= 10, output
    assert not any(count_failures(summary["all"]).values()), output
    assert set(summary["by_verb"]) == {"prepare", "train", "crossval", "predict"}
    assert {"write checkpoint", "rename shard"} <= set(summary["by_target"]), output
    json.dumps(summary)
