"""The page of a preparation: its numbers are those of the records, its pictures stand beside it."""

import pathlib
import re
import shutil

import numpy as np
import pytest

from emofuse_jax.data.corpus_statistics import face_fraction_by_group, measure_quality
from emofuse_jax.data.dataset import open_dataset
from emofuse_jax.reporting.prep_report import write_prep_report


@pytest.fixture(scope="module")
def records(prepared, tmp_path_factory):
    output = tmp_path_factory.mktemp("page") / "records"
    shutil.copytree(prepared[0], output)
    return str(output)


@pytest.fixture(scope="module")
def report_page(records):
    """(path, markup) of the page."""
    path = write_prep_report(records)
    with open(path, encoding="utf-8") as file:
        return path, file.read()


def test_numbers_are_those_of_the_records(records):
    quality, dataset = measure_quality(records), open_dataset(records)
    assert len(quality.stored_rows) == len(dataset.clip_ids) == len(quality.face_fractions)
    for i, row in enumerate(quality.stored_rows):
        record = dataset.read(i)
        assert row["clip_id"] == record.clip_id
        assert quality.face_fractions[i] == record.face_valid.mean()
        assert np.isnan(quality.audio_seconds[i]) == (not record.audio_ok)
    finite_seconds = quality.audio_seconds[np.isfinite(quality.audio_seconds)]
    assert np.all((finite_seconds > 0.05) & (finite_seconds < 0.6))
    groups = face_fraction_by_group(quality, "label")
    assert set(groups) == {"high", "low"}
    assert sum(count for count, _ in groups.values()) == len(quality.stored_rows)


def test_loudness_follows_the_gain(records):
    """The corpus scales its tones by 0.2 to 1: 14 dB."""
    loudness = measure_quality(records).loudness_db
    spread = np.ptp(loudness[np.isfinite(loudness)])
    assert 8 < spread < 20


def test_the_page_tells_what_was_lost_and_stands_alone(report_page):
    _, markup = report_page
    for text in ("no video stream", "audio is silent", "text.mp4", "absent.mp4", "Frames with a face"):
        assert text in markup
    assert "<script" not in markup
    assert not re.search(r'(src|href)="(?!data:|#)', re.sub(r'srcset="data:[^"]*"', "", markup))


def test_pictures_stand_beside_it_and_again_is_the_same(report_page, records):
    path, markup = report_page
    names = {picture.name for picture in pathlib.Path(records, "figures").iterdir()}
    assert {"faces_by_class.png", "faces_by_speaker.png", "lengths.png", "loudness.png"} <= names
    write_prep_report(records)
    with open(path, encoding="utf-8") as file:
        assert file.read() == markup
