"""Bodies that schemathesis makes of the OpenAPI document, fitting it and not: never more than a clear no."""

import pytest
from hypothesis import HealthCheck, given, settings, strategies

from tests.serving.server_process import get, serving

schemathesis = pytest.importorskip("schemathesis", reason="schemathesis is not here: pip install '.[dev]'")
pytest.importorskip("uvicorn", reason="the server's libraries are not here: pip install '.[serve]'")

FINE = {200, 400, 405, 406, 413, 415, 422}


@pytest.fixture(scope="module")
def server(voice_bundle_path):
    with serving(f"--bundle={voice_bundle_path}", "--decoders=1") as (port, process, told):
        yield port
        assert process.poll() is None
        assert "Traceback" not in told()


@pytest.mark.parametrize("examples", [60, pytest.param(1000, marks=pytest.mark.long)])
def test_no_body_is_more_than_refused(server, examples):
    schema = schemathesis.openapi.from_url(f"http://127.0.0.1:{server}/openapi.json")
    cases = strategies.one_of(
        schema.as_strategy(generation_mode=mode) for mode in schemathesis.GenerationMode
    )

    @settings(max_examples=examples, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(case=cases)
    def ask(case):
        answer = case.call()
        assert answer.status_code in FINE, (case.as_curl_command(), answer.text)
        assert "Traceback" not in answer.text
        if answer.status_code >= 400:
            assert answer.headers["content-type"][0] == "application/problem+json"

    ask()
    assert get(server, "/readyz")[0] == 200
