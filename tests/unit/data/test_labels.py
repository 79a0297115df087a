import numpy as np
import pytest

from emofuse_jax.data.dataset import open_dataset
from emofuse_jax.data.labels import choose_labelled, clip_labels, hide_labels, visible_labels
from emofuse_jax.data.pipeline import eval_batches, load_batch, train_batches
from emofuse_jax.data.sampler import make_sampler
from emofuse_jax.training.experiment import open_experiment
from emofuse_jax.types import InputSpec
from tests.support.fakes import make_record, tiny_config

SPEC = InputSpec(t=100, f=70, s=4, h=16, w=16, classes=3)
LABELS = np.repeat([0, 1, 2, -1], [40, 20, 3, 7])
NAMES = [f"clip{i:03d}" for i in range(len(LABELS))]


@pytest.fixture
def dataset(fake_dataset):
    return open_dataset(fake_dataset)


@pytest.mark.parametrize(("fraction", "expected"), [(0.1, [4, 2, 1]), (0.5, [20, 10, 2]), (1.0, [40, 20, 3])])
def test_each_class_keeps_its_share_and_at_least_one(fraction, expected):
    is_labelled = choose_labelled(LABELS, NAMES, fraction=fraction, seed=0)
    assert [int(is_labelled[label == LABELS].sum()) for label in range(3)] == expected
    assert not is_labelled[LABELS < 0].any()


def test_the_choice_is_seeded_nested_and_depends_on_no_order():
    small, large = (choose_labelled(LABELS, NAMES, fraction=f, seed=1) for f in (0.1, 0.3))
    assert not (small & ~large).any()
    assert (choose_labelled(LABELS, NAMES, fraction=0.3, seed=2) != large).any()
    order = np.random.default_rng(0).permutation(len(LABELS))
    shuffled = choose_labelled(LABELS[order], [NAMES[i] for i in order], fraction=0.3, seed=1)
    np.testing.assert_array_equal(shuffled, large[order])


@pytest.mark.parametrize("fraction", [0.0, 1.1, -0.5])
def test_a_fraction_without_meaning(fraction):
    with pytest.raises(ValueError, match=rf"data.labelled_fraction={fraction}: expected a number above 0"):
        choose_labelled(LABELS, NAMES, fraction=fraction, seed=0)


def test_the_manifest_names_the_labels(dataset, fake_dataset):
    clips = np.array([30, 2, 7])
    with pytest.raises(ValueError, match=r"manifest.csv: no row with index 99; prepare the clips again"):
        clip_labels(dataset, np.array([2, 99]))
    assert clip_labels(dataset, clips).tolist() == [make_record(int(i)).label for i in clips]
    with open(f"{fake_dataset}/manifest.csv", "w") as file:
        file.write("clip_id,index,speaker\nclip000,0,s0\n")
    with pytest.raises(ValueError, match=r"manifest.csv: no column 'label'"):
        clip_labels(dataset, clips)


def test_a_part_without_labels_is_refused(dataset, fake_dataset):
    with open(f"{fake_dataset}/manifest.csv") as file:
        rows = file.read().splitlines()
    with open(f"{fake_dataset}/manifest.csv", "w") as file:
        file.write("\n".join([rows[0], *(row.rsplit(",", 1)[0] + ",-1" for row in rows[1:])]))
    with pytest.raises(ValueError, match="none of the 5 training clips has a label"):
        visible_labels(dataset, np.arange(5), fraction=0.5, seed=0)


def test_hidden_rows_have_no_label(dataset):
    batch = load_batch(dataset, np.array([4, 5, 6, -1]), SPEC)
    hidden = hide_labels(batch, np.array([5, 9]))
    assert hidden.label.tolist() == [batch.label[0], -1, batch.label[2], -1]
    assert hidden.label.dtype == batch.label.dtype
    assert hidden.label_mask.tolist() == [True, False, True, False]
    assert hidden.weight.tolist() == [1, 1, 1, 0]
    assert batch.label_mask.tolist() == [True, True, True, False]


def test_training_batches_show_the_chosen_labels_alone(dataset):
    clips = np.arange(36)
    labels = visible_labels(dataset, clips, fraction=0.25, seed=3)
    assert (labels >= 0).sum() == 9
    sampler = make_sampler(clips, labels, batch_size=12, seed=0)
    batches = train_batches(dataset, sampler, lambda clips: SPEC, hidden_label_clips=clips[labels < 0])
    for batch in (next(batches) for _ in range(3)):
        np.testing.assert_array_equal(batch.label, labels[batch.clip])
        np.testing.assert_array_equal(batch.label_mask, labels[batch.clip] >= 0)
    eval_batch = next(eval_batches(dataset, clips, lambda clips: SPEC, batch_size=36))
    assert eval_batch.label_mask.all()


def test_the_experiment_hides_or_leaves_out(fake_dataset):
    full = open_experiment(tiny_config(fake_dataset))
    assert full.labels is None
    with_hidden_labels = open_experiment(tiny_config(fake_dataset, **{"data.labelled_fraction": 0.2}))
    np.testing.assert_array_equal(with_hidden_labels.clips["train"], full.clips["train"])
    is_visible = with_hidden_labels.labels >= 0
    assert is_visible.sum() == 3  # a fifth of six clips, rounded, of each of three classes
    without_unlabelled = open_experiment(
        tiny_config(fake_dataset, **{"data.labelled_fraction": 0.2, "data.keep_unlabelled": False})
    )
    np.testing.assert_array_equal(without_unlabelled.clips["train"], full.clips["train"][is_visible])
    np.testing.assert_array_equal(without_unlabelled.labels, with_hidden_labels.labels[is_visible])
    for part in ("validation", "test"):
        np.testing.assert_array_equal(without_unlabelled.clips[part], full.clips[part])
