"""What a cross-validation or a search reads back is refused in one line that names the file and the field."""

import json
import pathlib
import re

import pytest

from emofuse_jax import settings
from emofuse_jax.data.prepared_files import read_json
from emofuse_jax.training.crossval import sweep
from emofuse_jax.training.crossval.saved_results import read_replica_result, read_saved_plan
from emofuse_jax.training.crossval.search_space import read_trials
from emofuse_jax.utils.files import read_json_object
from tests.support.fakes import tiny_config

RESULT = {
    "fold": 0,
    "seed": 1,
    "temperature": 1.0,
    "validation": {"ua": None},
    "test": {"ua": 0.5, "wa": 0.25, "wf1": 1},
    "clips": ["a", "b"],
    "speakers": ["s", "t"],
    "labels": [-1, 2],
    "probabilities": [[0.5, 0.25, 0.25], [0, 0, 1]],
}
INVALID_JSON = [
    ("", "not JSON: Expecting value"),
    ('{"config": {"na', "not JSON: Unterminated string"),
    ("[" * 100_000, "not JSON: maximum recursion"),
    ("[]", "expected a JSON object, found list"),
]


@pytest.fixture
def plan():
    return {"config": tiny_config("records", "audio_only").to_dict(), "runs": [[0, 0]]}


def check_error_message(read, path: pathlib.Path, text: str, message: str) -> None:
    path.write_text(text)
    with pytest.raises(ValueError, match=rf"\A{re.escape(str(path))}: {message}[^\n]*\Z"):
        read(str(path))


@pytest.mark.parametrize(("text", "message"), INVALID_JSON)
def test_what_is_no_object(tmp_path, text, message):
    path = tmp_path / "saved.json"
    readers = (read_saved_plan, lambda path: read_replica_result(path, 3), read_json_object)
    for read in (*readers, lambda path: read_json_object(path, a=int)):
        check_error_message(read, path, text, message)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"config": []}, "field config: expected dict, found list"),
        ({"runs": None}, "field runs: expected list, found NoneType"),
        ({"replicas": "x"}, "field replicas: x, expected the number of replicas per group"),
        ({"replicas": -1}, "field replicas: -1, expected the number"),
        ({"replicas": True}, "field replicas: True, expected the number"),
        ({"config": {"model": 1}}, "the config .* is invalid: config.model: expected an object, found int"),
        (
            {"config": {**settings.base("concat").to_dict(), "x": 1}},
            "the config of the saved run is invalid: config.x: there is no such field, .*; choose another",
        ),
    ],
)
def test_a_plan(tmp_path, plan, change, message):
    path = tmp_path / "crossval.json"
    path.write_text(json.dumps(plan))
    assert read_saved_plan(str(path)) == read_json(str(path))
    check_error_message(read_saved_plan, path, json.dumps(plan | change), message)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"fold": "0"}, "field fold: expected int, found str"),
        ({"clips": ["a"]}, "field speakers: expected 1 strings"),
        ({"clips": ["a", 1]}, "field clips: expected 2 strings"),
        ({"labels": [0, 3]}, "field labels: expected -1 to 2"),
        ({"labels": [0]}, r"field labels: expected finite numbers of shape \[2\]"),
        (
            {"probabilities": [[1, 0], [0, 1]]},
            r"field probabilities: expected finite numbers of shape \[2, 3\]",
        ),
        ({"probabilities": [[1], [0, 1]]}, "field probabilities: expected finite numbers"),
        ({"probabilities": [[float("nan"), 0, 1]] * 2}, "field probabilities: expected finite numbers"),
        ({"probabilities": [[10**30, 0, 1]] * 2}, "field probabilities: expected finite numbers"),
        ({"temperature": "1"}, "field temperature: expected finite numbers"),
        ({"temperature": None}, "field temperature: expected finite numbers"),
        ({"test": {"ua": 0.5}}, "field test: expected finite numbers"),
        ({"validation": {}}, "field validation.ua: expected finite numbers"),
    ],
)
def test_a_result(tmp_path, change, message):
    path = tmp_path / "result.json"
    path.write_text(json.dumps(RESULT))
    assert read_replica_result(str(path), 3) == RESULT
    check_error_message(lambda path: read_replica_result(path, 3), path, json.dumps(RESULT | change), message)


@pytest.mark.parametrize(
    ("text", "message"),
    [*INVALID_JSON, ('{"validation_ua": 0.5}', "field last_ua: expected float, found NoneType")],
)
def test_a_result_of_a_search(tmp_path, text, message):
    path = pathlib.Path(sweep.trial_result_path(str(tmp_path), (0, 0, 0)))
    path.parent.mkdir(parents=True)
    check_error_message(
        lambda _: sweep.summarise_trial(str(tmp_path), 0, {}, [(0, 0, 0)]), path, text, message
    )


def test_a_file_of_trials_that_is_no_text(tmp_path):
    (tmp_path / "trials.json").write_bytes(b'["\xff"]')
    with pytest.raises(ValueError, match=r"trials\.json: not JSON: 'utf-8' codec can't decode"):
        read_trials(str(tmp_path / "trials.json"))
