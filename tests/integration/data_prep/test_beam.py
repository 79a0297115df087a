"""The Beam runner writes what the local one writes, to the byte."""

import pytest

from tests.support.small_corpus import file_checksums, run_prepare

pytest.importorskip("apache_beam", reason="needs pip install '.[beam]'")

DIRECT_RUNNER_FLAGS = [
    "--runner=DirectRunner",
    "--direct_num_workers=2",
    "--direct_running_mode=multi_processing",
]


def test_two_workers_write_the_same_files(source, prepared, tmp_path):
    output, summary = prepared
    again = run_prepare(source, tmp_path / "records", beam=DIRECT_RUNNER_FLAGS)
    assert (again.num_complete, again.masked, again.failed) == (
        summary.num_complete,
        summary.masked,
        summary.failed,
    )
    assert file_checksums(tmp_path / "records") == file_checksums(output)


def test_it_goes_on_where_another_runner_stopped(source, prepared, tmp_path):
    run_prepare(source, tmp_path / "records", workers=0)
    shard = next((tmp_path / "records").glob("folder-clips*"))
    shard.unlink()
    run_prepare(source, tmp_path / "records", beam=["--direct_running_mode=in_memory"])
    assert file_checksums(tmp_path / "records") == file_checksums(prepared[0])
