"""TFDS opens our shards without TensorFlow, and decodes them slower than we do."""

import sys
import time

import numpy as np

from data_prep.corpora import read_corpus
from data_prep.prepare import prepare
from data_prep.settings import PrepSettings
from emofuse_jax.data import records
from emofuse_jax.data.dataset import open_dataset
from emofuse_jax.data.writing.shards import read_shard
from tests.support.media_files import tone, write_wav
from tests.support.small_corpus import open_tfds_source


def test_tfds_opens_the_records_without_tensorflow(prepared):
    output, _ = prepared
    dataset, source = open_dataset(str(output)), open_tfds_source(output)
    assert not [name for name in sys.modules if name == "tensorflow"]
    assert len(source) == len(dataset.index) == 37
    for index in range(len(source)):
        theirs, ours = source[index], dataset.read(index)
        for name in ("clip_id", "speaker", "corpus"):
            assert theirs[name].decode() == getattr(ours, name)
        for name in ("label", "audio_ok", "video_ok"):
            assert theirs[name] == getattr(ours, name)
        for name in records._ARRAY_DTYPES:
            our_array = getattr(ours, name)
            assert theirs[name].dtype == our_array.dtype
            np.testing.assert_array_equal(theirs[name], our_array)
    assert source.dataset_info.features["label"].names == ["high", "low"]


def test_our_decoding_is_faster_than_theirs(tmp_path):
    """Records of full size (16 faces of 112 x 112, 3 s of sound), decoded from memory."""
    write_wav(tmp_path / "a.wav", tone(3.0, rate=16_000))
    write_wav(tmp_path / "b.wav", tone(3.0, rate=16_000))
    (tmp_path / "clips.csv").write_text("path,label,speaker\na.wav,x,ann\nb.wav,y,bob\n")
    corpus = read_corpus("folder", str(tmp_path))
    prepare(corpus, PrepSettings(), str(tmp_path / "out"), workers=0)
    features = open_tfds_source(tmp_path / "out").dataset_info.features
    shape = records.RecordShape(200, 112, 112)
    (data, _) = read_shard(records.shard_paths(str(tmp_path / "out"))[0])
    assert len(data) > 700_000

    def fastest_seconds(decode):
        times = []
        for _ in range(30):
            start_time = time.perf_counter()
            for _ in range(5):
                decode(data)
            times.append((time.perf_counter() - start_time) / 5)
        return min(times)

    our_seconds = fastest_seconds(lambda data: records.decode(data, shape))
    tfds_seconds = fastest_seconds(features.deserialize_example_np)
    print(
        f"\ndecoding: ours {our_seconds * 1e6:.0f} us, TFDS {tfds_seconds * 1e6:.0f} us, ratio"
        f" {tfds_seconds / our_seconds:.2f}"
    )
    assert our_seconds <= tfds_seconds
