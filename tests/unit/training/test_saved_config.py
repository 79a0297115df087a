"""The config of a checkpoint has exactly the fields of an experiment."""

import pytest

from emofuse_jax import settings
from emofuse_jax.settings.experiment import check_fields
from emofuse_jax.training.checkpoint.saved_config import saved_config


def test_a_config_stays_as_it_is():
    config = settings.base("cross_attention", audio="resnet", video="snippets")
    config.data.balanced, config.model.margins.kind, config.seed = True, "triplet", 2**32 - 1
    assert saved_config({"config": config.to_dict()}).to_dict() == config.to_dict()


@pytest.mark.parametrize(
    "name",
    [
        "init",
        "data.hold_out",
        "augment.mixup",
        "optimizer.name",
        "mesh.data",
        "loss.objectives.levels",
        "model.margins",
        "model.fusion.layer_norm",
        "crossval.mode",
    ],
)
def test_a_missing_field_is_named(name):
    config = settings.base("cross_attention").to_dict()
    *sections, field = name.split(".")
    section = config
    for part in sections:
        section = section[part]
    del section[field]
    with pytest.raises(ValueError, match=rf"\Aconfig\.{name}: this field is missing: [^\n]*\Z"):
        saved_config({"config": config})


@pytest.mark.parametrize("section", ["audio", "video"])
def test_a_missing_encoder_is_named(section):
    config = settings.base("g_fbp").to_dict()
    del config["model"][section]["encoder"]
    with pytest.raises(
        ValueError, match=rf"config\.model\.{section}\.encoder: expected a name, found 'None'"
    ):
        saved_config({"config": config})


@pytest.mark.parametrize("name", ["fusion.name", "audio.encoder", "video.encoder"])
def test_a_config_that_lacks_a_name(name):
    config = settings.base("g_fbp")
    section, field = name.split(".")
    del config.model[section][field]
    with pytest.raises(ValueError, match=rf"\Aconfig\.model\.{name}: this field is missing; [^\n]*\Z"):
        check_fields(config)
    del config["model"]
    with pytest.raises(ValueError, match=r"\Aconfig\.model\.audio\.encoder: this field is missing; [^\n]*\Z"):
        check_fields(config)


@pytest.mark.parametrize("name", ["mesh.replica", "mesh.model", "optimizer.tail", "model.fusion.nothing"])
def test_an_unknown_field_is_named(name):
    config = section = settings.base("g_fbp")
    *sections, field = name.split(".")
    for part in sections:
        section = section[part]
    section[field] = 1
    with pytest.raises(ValueError, match=rf"\Aconfig\.{name}: there is no such field, [^\n]*\Z"):
        saved_config({"config": config.to_dict()})
    with pytest.raises(ValueError, match=rf"\Aconfig\.{name}: there is no such field, [^\n]*\Z"):
        check_fields(config)
