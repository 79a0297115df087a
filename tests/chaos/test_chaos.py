"""Ten kills of the four commands; `make chaos` makes a hundred."""

import json

from tests.chaos.report import failures
from tests.chaos.run import main


def test_killed_at_any_moment_they_end_the_same(tmp_path, capsys):
    found = main(10, 0, str(tmp_path))
    told = capsys.readouterr().out
    assert found["kills"] >= 10, told
    assert not any(failures(found["all"]).values()), told
    assert set(found["by_verb"]) == {"prepare", "train", "crossval", "predict"}
    assert {"write checkpoint", "rename shard"} <= set(found["by_target"]), told
    json.dumps(found)
