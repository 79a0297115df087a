"""Bodies that schemathesis makes of the OpenAPI document, fitting it and not: never more than a clear no."""

import pytest
from hypothesis import HealthCheck, given, settings, strategies

from tests.support.server_process import get_json, run_server

schemathesis = pytest.importorskip("schemathesis", reason="schemathesis is not here: pip install '.[dev]'")
pytest.importorskip("uvicorn", reason="the server's libraries are not here: pip install '.[serve]'")

ALLOWED_STATUSES = {200, 400, 405, 406, 413, 415, 422}


@pytest.fixture(scope="module")
def server(audio_bundle_path):
    with run_server(f"--bundle={audio_bundle_path}", "--decoders=1") as (port, process, read_log):
        yield port
        assert process.poll() is None
        assert "Traceback" not in read_log()


@pytest.mark.parametrize("examples", [25, pytest.param(1000, marks=pytest.mark.long)])
def test_no_body_is_more_than_refused(server, examples):
    schema = schemathesis.openapi.from_url(f"http://127.0.0.1:{server}/openapi.json")
    cases = strategies.one_of(
        schema.as_strategy(generation_mode=mode) for mode in schemathesis.GenerationMode
    )

    @settings(max_examples=examples, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(case=cases)
    def send_case(case):
        response = case.call()
        assert response.status_code in ALLOWED_STATUSES, (case.as_curl_command(), response.text)
        assert "Traceback" not in response.text
        if response.status_code >= 400:
            assert response.headers["content-type"][0] == "application/problem+json"

    send_case()
    assert get_json(server, "/readyz")[0] == 200
