"""Configs of checkpoints, also of those written before a field was there."""

from emofuse_jax import settings
from emofuse_jax.training.checkpoint.compat import ADDED_FIELD_DEFAULTS, saved_config


def first_schema_config(fusion):
    """A config as the first checkpoints had it: no encoder's name, no init, few objectives, few fields."""
    config = settings.base(fusion).to_dict()
    for part in ("audio", "video"):
        del config["model"][part]["encoder"]
    for name in ("margins", "polarity"):
        del config["model"][name]
    for part in ("data", "augment", "optimizer", "train"):
        for name in ADDED_FIELD_DEFAULTS[part]:
            del config[part][name]
    del config["init"], config["crossval"]
    config["loss"]["objectives"] = {"cross_entropy": 0.5, "levels": 0.0}
    return config


def test_an_old_config_gets_what_it_does_not_know():
    old = saved_config({"config": first_schema_config("g_fbp")})
    new = settings.base("g_fbp")
    new.loss.objectives.cross_entropy = 0.5
    assert old.to_dict() == new.to_dict()


def test_a_new_config_stays_as_it_is():
    config = settings.base("cross_attention", audio="resnet", video="snippets")
    config.data.balanced, config.model.margins.kind = True, "triplet"
    assert saved_config({"config": config.to_dict()}).to_dict() == config.to_dict()


def test_an_old_fusion_stays_as_it_was():
    config = settings.base("cross_attention").to_dict()
    del config["model"]["fusion"]["layer_norm"]
    assert saved_config({"config": config}).model.fusion.layer_norm is False
