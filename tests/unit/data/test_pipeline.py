import jax
import numpy as np
import pytest

from emofuse_jax.data import pipeline
from emofuse_jax.data.dataset import open_dataset, read_statistics, split_indices
from emofuse_jax.data.pipeline import eval_batches, load_batch, train_batches
from emofuse_jax.data.sampler import make_sampler
from emofuse_jax.types import InputSpec
from tests.support.fakes import make_record
from tests.support.resuming import check_resuming

SPEC = InputSpec(t=100, f=70, s=4, h=16, w=16, classes=3)


@pytest.fixture
def dataset(fake_dataset):
    return open_dataset(fake_dataset)


def test_rows_are_the_records(dataset):
    batch = load_batch(dataset, np.array([7, -1, 30]), SPEC)
    record = make_record(7)
    steps = len(record.spectrogram)
    start = max(0, (steps - 100) // 2)
    np.testing.assert_array_equal(batch.audio[0, : min(steps, 100)], record.spectrogram[start : start + 100])
    np.testing.assert_array_equal(batch.audio_mask[0], np.arange(100) < steps)
    np.testing.assert_array_equal(batch.faces[0], record.faces)
    assert batch.weight.tolist() == [1, 0, 1]
    assert batch.label[0] == record.label
    assert not batch.audio_mask[1].any()
    assert not batch.face_mask[1].any()
    assert batch.clip.tolist() == [7, -1, 30]


def get_spec(clips):
    return SPEC


def shuffled_batches(dataset, clips, *, batch_size, seed, **options):
    return train_batches(
        dataset, make_sampler(clips, None, batch_size=batch_size, seed=seed), get_spec, **options
    )


def test_an_epoch_sees_every_clip_once_in_a_new_order(dataset):
    clips = np.arange(36)
    batches = shuffled_batches(dataset, clips, batch_size=12, seed=0)
    epochs = [np.concatenate([next(batches).clip for _ in range(3)]) for _ in range(3)]
    for epoch in epochs:
        np.testing.assert_array_equal(np.sort(epoch), clips)
    assert (epochs[0] != epochs[1]).any()
    assert (epochs[1] != epochs[2]).any()


def test_it_goes_on_from_any_batch(dataset):
    def make_batches(start=0):
        return shuffled_batches(dataset, np.arange(36), batch_size=8, seed=1, start=start)

    check_resuming(make_batches, num_before=5, num_after=6)


def test_processes_share_the_same_global_batches(dataset):
    clips = np.arange(36)
    global_batches = shuffled_batches(dataset, clips, batch_size=12, seed=3)
    process_batches = [
        shuffled_batches(dataset, clips, batch_size=12, seed=3, process=(i, 3)) for i in range(3)
    ]
    for _ in range(4):
        gathered = np.concatenate([next(batches).clip for batches in process_batches])
        np.testing.assert_array_equal(gathered, next(global_batches).clip)


def test_batches_are_the_same_for_any_number_of_threads(dataset, monkeypatch):
    monkeypatch.setattr(pipeline, "available_cores", lambda: 8)  # never more threads than these
    iterators = [shuffled_batches(dataset, np.arange(36), batch_size=8, seed=4, threads=n) for n in (1, 2, 5)]
    for _ in range(6):
        expected, *actual_batches = (jax.tree.leaves(next(batches)) for batches in iterators)
        for actual in actual_batches:
            for ours, theirs in zip(expected, actual, strict=True):
                np.testing.assert_array_equal(ours, theirs)


def test_scoring_sees_every_clip_once_in_order_and_pads_with_weight_zero(dataset):
    clips = np.arange(3, 20)
    batches = list(eval_batches(dataset, clips, get_spec, batch_size=8))
    assert [len(batch.clip) for batch in batches] == [8, 8, 8]
    scored_clips = np.concatenate([batch.clip for batch in batches])
    np.testing.assert_array_equal(scored_clips[scored_clips >= 0], clips)
    weight = np.concatenate([batch.weight for batch in batches])
    np.testing.assert_array_equal(weight, (scored_clips >= 0).astype(np.float32))


def test_mistakes_are_one_line(dataset, fake_dataset):
    with pytest.raises(ValueError, match=r"recipe 'fbp', the config needs 'hgr'"):
        open_dataset(fake_dataset, "hgr")
    with pytest.raises(FileNotFoundError, match=r"one of the protocols fake_1fold"):
        split_indices(dataset, "other", 0, "train")
    with pytest.raises(ValueError, match="expected a multiple of the 3 processes"):
        shuffled_batches(dataset, np.arange(36), batch_size=8, seed=0, process=(0, 3))
    with pytest.raises(FileNotFoundError, match="fold_7"):
        read_statistics(dataset, "fake_1fold", 7)


def test_a_manifest_that_disagrees_with_the_shards_is_refused(fake_dataset):
    with open(f"{fake_dataset}/manifest.csv", "a") as file:
        file.write("clip999,36,s0,kept,0\n")
    with pytest.raises(
        ValueError, match=r"2 shards with 36 records, but there are 2 shards and manifest.csv lists 37"
    ):
        open_dataset(fake_dataset).read(0)


def test_another_frame_count_is_named(dataset):
    with pytest.raises(ValueError, match="clip000: field faces has 4 frames, expected 6"):
        load_batch(dataset, np.array([0]), InputSpec(t=100, f=70, s=6, h=16, w=16, classes=3))
