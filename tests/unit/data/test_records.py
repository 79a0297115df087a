import contextlib
import dataclasses

import numpy as np
import pytest

from emofuse_jax.data import records
from emofuse_jax.data.writing.shards import read_shard
from tests.support.fakes import make_record

SHAPE = records.RecordShape(f=70, h=16, w=16)


def test_a_record_survives_the_disk_bit_for_bit():
    record = make_record(5)
    decoded = records.decode(records.encode(record), SHAPE)
    for field in dataclasses.fields(record):
        before, after = getattr(record, field.name), getattr(decoded, field.name)
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
    [
        (b"\xff\xff\xff", "an integer is truncated"),
        (b"\x0a\x05abc", "field 1 is truncated"),
        (b"\x0f", "has wire type 7"),
        (b"\x0a\x02\x0a\x00", "a feature has no name or no value"),
        (b"", "field clip_id has 0 values"),
    ],
)
def test_what_is_not_a_record_is_refused(data, message):
    with pytest.raises(ValueError, match=message):
        records.decode(data, SHAPE)


def test_another_shape_is_named():
    with pytest.raises(ValueError, match="clip000: field spectrogram"):
        records.decode(records.encode(make_record(0)), records.RecordShape(f=71, h=16, w=16))


@pytest.mark.parametrize(("size", "message"), [(0, "at least 64KB"), (100_000, "Corrupted")])
def test_a_damaged_or_missing_shard_is_named(tmp_path, size, message):
    path = str(tmp_path / "shard")
    with pytest.raises(FileNotFoundError, match=path):
        list(read_shard(path))
    (tmp_path / "shard").write_bytes(b"x" * size)
    with pytest.raises(ValueError, match=rf"^{path}: damaged shard: .*{message}.*; remove this file, then"):
        list(read_shard(path))


def test_missing_shards_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="run emofuse prepare first"):
        records.shard_paths(tmp_path)
    (tmp_path / records.shard_name("x", 1, 2)).touch()
    with pytest.raises(FileNotFoundError, match="00000-of-00002 is missing"):
        records.shard_paths(tmp_path)


@pytest.mark.parametrize("count", [300, pytest.param(100_000, marks=pytest.mark.long)])
def test_a_cut_or_altered_record_is_an_error_or_a_record(count):
    data = records.encode(make_record(3))
    rng = np.random.default_rng(0)
    for _ in range(count):
        damaged = bytearray(data[: rng.integers(len(data))] if rng.random() < 0.5 else data)
        for position in rng.integers(0, max(len(damaged), 1), 3):
            if position < len(damaged):
                damaged[position] ^= 1 << rng.integers(8)
        with contextlib.suppress(ValueError):  # anything else, or a hang, is a failure
            records.decode(bytes(damaged), SHAPE)


def test_negative_labels_survive():
    record = dataclasses.replace(make_record(0), label=-1)
    assert records.decode(records.encode(record), SHAPE).label == -1


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"label": -1, "speaker": "", "clip_id": "é" * 200},
        {"label": 300, "audio_ok": False, "waveform": np.zeros(0, np.int16)},
        {"waveform": np.arange(-20_000, 20_000, dtype=np.int16), "faces": np.zeros((4, 0, 0, 3), np.uint8)},
        {"audio_features": np.ones((3, 5), np.float16), "face_features": np.ones((4, 7), np.float16)},
    ],
)
def test_the_bytes_are_those_of_protocol_buffers(changes):
    from tensorflow_datasets.proto import tf_example_pb2

    data = records.encode(dataclasses.replace(make_record(4), **changes))
    assert tf_example_pb2.Example.FromString(data).SerializeToString(deterministic=True) == data


def test_a_waveform_survives_the_disk_bit_for_bit():
    waveform = np.arange(-3, 4000, dtype=np.int16)
    data = records.encode(dataclasses.replace(make_record(0), waveform=waveform))
    shape = dataclasses.replace(SHAPE, waveform=True)
    np.testing.assert_array_equal(records.decode(data, shape).waveform, waveform)
    assert records.decode(data, SHAPE).waveform is None
    with pytest.raises(ValueError, match="field waveform has 0 values"):
        records.decode(records.encode(make_record(0)), shape)


def test_it_reads_what_protocol_buffers_write():
    from tensorflow_datasets.proto import tf_example_pb2

    example = tf_example_pb2.Example.FromString(records.encode(make_record(4)))
    decoded = records.decode(example.SerializeToString(), SHAPE)
    assert decoded.clip_id == example.features.feature["clip_id"].bytes_list.value[0].decode()
    assert decoded.faces.tobytes() == example.features.feature["faces"].bytes_list.value[0]
