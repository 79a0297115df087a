"""A run that starts from streams trained alone, or from public weights."""

import json

import jax
import numpy as np
import pytest
import safetensors.numpy

from emofuse_jax.models.encoders.audio_fcn import TORCHVISION_ALEXNET
from emofuse_jax.parallel.mesh import make_mesh, replicated
from emofuse_jax.training.checkpoint.load import load_trained_model
from emofuse_jax.training.experiment import open_experiment
from emofuse_jax.training.single_replica import SingleReplica
from emofuse_jax.training.train import skip_data_description, train
from emofuse_jax.training.warm_start import load_warm_start
from tests.support.fakes import tiny_config, write_dataset
from tests.unit.models.test_public_weights import alexnet_tensors


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """Records, and both streams trained for an epoch."""
    home = tmp_path_factory.mktemp("warm")
    path = write_dataset(str(home / "records"), num_clips=60)
    for stream in ("audio", "video"):
        config = tiny_config(path, f"{stream}_only", **{"train.epochs": 1})
        train(open_experiment(config), str(home / stream))
    return home


def second_stage_config(home, fusion="two_stage", **fields):
    init = {"init.audio": str(home / "audio"), "init.video": str(home / "video")}
    return tiny_config(str(home / "records"), fusion, **{"train.epochs": 1} | init | fields)


def load_initial_state(experiment, workdir):
    replica = SingleReplica(experiment, str(workdir), skip_data_description)
    replica.restore_or_init()
    return jax.tree.map(np.asarray, (replica.state.params, replica.state.model_state))


def test_the_second_stage_starts_from_both_streams_and_trains_at_a_tenth(home, tmp_path):
    config = second_stage_config(home)
    assert config.optimizer.learning_rate == pytest.approx(
        0.1 * tiny_config("", "g_fbp").optimizer.learning_rate
    )
    experiment = open_experiment(config)
    started = load_initial_state(experiment, tmp_path / "a")
    alone = load_initial_state(
        open_experiment(second_stage_config(home, **{"init.audio": "", "init.video": ""})), tmp_path / "b"
    )
    for stream in ("audio", "video"):
        sharding = replicated(make_mesh(config.mesh))
        _, *trained, _ = load_trained_model(str(home / stream), "best", sharding)
        for ours, theirs in zip(started, trained, strict=True):
            for name in {stream, f"{stream}_attention"} & ours.keys():
                jax.tree.map(
                    np.testing.assert_array_equal, ours[name], jax.tree.map(np.asarray, theirs[name])
                )
    jax.tree.map(np.testing.assert_array_equal, started[0]["fusion"], alone[0]["fusion"])
    kernel = ("audio", "fcn", "conv1", "kernel")
    assert not np.array_equal(get_leaf(started[0], kernel), get_leaf(alone[0], kernel))
    train(experiment, str(tmp_path / "run"))


def get_leaf(tree, names):
    for name in names:
        tree = tree[name]
    return tree


def test_public_weights_are_where_the_run_starts(home, tmp_path):
    path = str(tmp_path / "alexnet.safetensors")
    safetensors.numpy.save_file(alexnet_tensors(), path)
    config = second_stage_config(home, "g_fbp", **{"init.audio": path, "init.video": ""})
    config.model.audio.update(TORCHVISION_ALEXNET)
    params, _ = load_initial_state(open_experiment(config), tmp_path / "run")
    stored = safetensors.numpy.load_file(path)["features.3.weight"]
    np.testing.assert_array_equal(params["audio"]["fcn"]["conv2"]["kernel"], stored.transpose(3, 2, 1, 0))
    safetensors.numpy.save_file({"other": np.zeros(1, np.float32)}, path)
    with pytest.raises(ValueError, match=r"alexnet.safetensors: .* no tensor 'features.0.weight'"):
        load_warm_start(open_experiment(config))


def test_what_cannot_be_started_from_is_named(home):
    def load_from(fusion="two_stage", **fields):
        return load_warm_start(open_experiment(second_stage_config(home, fusion, **fields)))

    with pytest.raises(
        ValueError, match=r"config.init.audio=.*audio: audio/fcn/conv1/bias: shape \(4,\), expected \(5,\)"
    ):
        load_from(**{"model.audio.widths": (5, 8, 8, 8, 8)})
    with pytest.raises(ValueError, match=r"config.init.video=.*: the source run has no video"):
        load_from(**{"init.video": str(home / "audio")})
    with pytest.raises(FileNotFoundError, match=r"nothing: holds no best checkpoint"):
        load_from(**{"init.video": str(home / "nothing")})
    with pytest.raises(ValueError, match=r"config.init.video=.*: this model has no video encoder"):
        load_from("audio_only", **{"init.audio": ""})


def test_a_stream_of_another_fold_is_refused(home):
    other = home / "records" / "splits" / "fake_1fold" / "fold_1.json"
    lists = json.loads((other.parent / "fold_0.json").read_text())
    swapped = {"train": lists["test"], "validation": lists["validation"], "test": lists["train"]}
    other.write_text(json.dumps(swapped))
    stats = home / "records" / "stats" / "fake_1fold"
    (stats / "fold_1.npz").write_bytes((stats / "fold_0.npz").read_bytes())
    with pytest.raises(
        ValueError, match=r"was trained or validated on other clips; use a run of the same fold"
    ):
        load_warm_start(open_experiment(second_stage_config(home, **{"data.fold": 1})))


def test_a_stream_that_saw_hidden_labels_is_refused(home):
    with pytest.raises(
        ValueError, match=r"trained with other labels: config\.data\.labelled_fraction .*seed \(1.0, 0\)"
    ):
        load_warm_start(open_experiment(second_stage_config(home, **{"data.labelled_fraction": 0.5})))
