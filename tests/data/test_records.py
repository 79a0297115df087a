import dataclasses

import numpy as np
import pytest

from emofuse_jax.data import records
from tests.fakes import make_record

SHAPE = records.RecordShape(f=70, h=16, w=16)


def test_a_record_survives_the_disk_bit_for_bit():
    record = make_record(5)
    back = records.decode(records.encode(record), SHAPE)
    for field in dataclasses.fields(record):
        before, after = getattr(record, field.name), getattr(back, field.name)
        if isinstance(before, np.ndarray):
            assert after.dtype == before.dtype
            np.testing.assert_array_equal(after, before)
        else:
            assert after == before


def test_equal_records_give_equal_bytes():
    assert records.encode(make_record(1)) == records.encode(make_record(1))
    assert records.encode(make_record(1)) != records.encode(make_record(2))


def test_trailing_zeros_are_kept():
    record = dataclasses.replace(make_record(0), faces=np.zeros((4, 16, 16, 3), np.uint8))
    assert records.decode(records.encode(record), SHAPE).faces.shape == (4, 16, 16, 3)


def test_a_wrong_dtype_is_named():
    record = dataclasses.replace(make_record(0), votes=np.zeros(3))
    with pytest.raises(ValueError, match="clip000: field votes is float64"):
        records.encode(record)


@pytest.mark.parametrize(
    ("data", "message"),
    [(b"\xff\xff\xff", "not a record"), (b"", "field clip_id has 0 values")],
)
def test_what_is_not_a_record_is_refused(data, message):
    with pytest.raises(ValueError, match=message):
        records.decode(data, SHAPE)


def test_another_shape_is_named():
    with pytest.raises(ValueError, match="clip000: field spectrogram"):
        records.decode(records.encode(make_record(0)), records.RecordShape(f=71, h=16, w=16))


def test_missing_shards_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="run emofuse prepare first"):
        records.shard_paths(tmp_path)
    (tmp_path / records.shard_name("x", 1, 2)).touch()
    with pytest.raises(FileNotFoundError, match="00000-of-00002 is missing"):
        records.shard_paths(tmp_path)
