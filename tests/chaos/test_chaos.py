"""Ten kills of the four commands; `make chaos` makes a hundred."""

import json

from tests.chaos.run import main


def test_killed_at_any_moment_they_end_the_same(tmp_path, capsys):
    found = main(10, 0, str(tmp_path))
    told = capsys.readouterr().out
    assert (found["kills"] >= 10, found["mismatches"], found["hangs"], found["errors"]) == (True, 0, 0, 0), (
        told
    )
    assert set(found["by_verb"]) == {"prepare", "train", "crossval", "predict"}
    json.dumps(found)
