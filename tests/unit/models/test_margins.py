import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from ml_collections import ConfigDict

from emofuse_jax.models.layers.margins import MARGIN_DEFAULTS, ClassRelations, Margins
from tests.support.small_models import device_batch, small_model

POLARITY = np.array([-1, 1, 0, -1])


def make_margins(**fields):
    return Margins(ConfigDict(MARGIN_DEFAULTS | fields), POLARITY)


def off_diagonal(m):
    return np.asarray(m)[~np.eye(len(m), dtype=bool)]


def test_equal_at_first():
    m = make_margins(kind="triplet", mean=0.3)()
    np.testing.assert_allclose(off_diagonal(m), 0.3, rtol=1e-6)
    assert np.all(np.diagonal(m) == 0)


def test_larger_across_polarity_at_first():
    m = np.asarray(make_margins(kind="hierarchical", across=3.0)())
    within = m[0, 3]  # the only pair of one polarity, of six
    across = [m[0, 1], m[0, 2], m[1, 2], m[1, 3], m[2, 3]]
    np.testing.assert_allclose(across, 3 * within, rtol=1e-5)
    np.testing.assert_allclose(within, 0.2 * 6 / 16, rtol=1e-5)
    assert off_diagonal(m).mean() == pytest.approx(0.2, rel=1e-6)


def test_training_keeps_them_symmetric_positive_and_their_mean():
    layer = make_margins(kind="hierarchical")
    graphdef, theta = nnx.split(layer)
    target = jnp.asarray(np.random.default_rng(0).uniform(0, 1, (4, 4)), jnp.float32)
    tx = optax.adam(0.3)

    @jax.jit
    def step(theta, state):
        gradient = jax.grad(lambda t: jnp.sum((nnx.merge(graphdef, t)() - target) ** 2))(theta)
        updates, state = tx.update(gradient, state)
        return optax.apply_updates(theta, updates), state

    theta, before, state = nnx.to_pure_dict(theta), layer(), None
    state = tx.init(theta)
    for _ in range(30):
        theta, state = step(theta, state)
    after = np.asarray(nnx.merge(graphdef, theta)())
    assert np.abs(after - before).max() > 0.05
    np.testing.assert_allclose(after, after.T)
    assert np.all(after >= 0)
    assert off_diagonal(after).mean() == pytest.approx(0.2, rel=1e-5)


def test_what_the_network_says_of_its_classes():
    plain, *params_and_state, apply = small_model("concat")
    assert not {"margins", "polarity"} & set(apply(*params_and_state, device_batch(plain))[0].aux)
    fields = {"margins__kind": "hierarchical", "polarity": (0, 1, 1, -1, -1)}
    model, params, state, apply = small_model("concat", **fields)
    aux = apply(params, state, device_batch(model))[0].aux
    assert np.array_equal(aux["polarity"], fields["polarity"])
    assert aux["margins"][1, 2] < aux["margins"][1, 3]
    assert params["relations"]["margins"]["theta"].shape == (10,)


def test_without_polarities_all_pairs_are_alike():
    relations = ClassRelations(
        ConfigDict({"margins": MARGIN_DEFAULTS | {"kind": "hierarchical"}, "polarity": ()}), 3
    )
    np.testing.assert_allclose(off_diagonal(relations()["margins"]), 0.2, rtol=1e-6)
    assert "polarity" not in relations()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"kind": "hard"}, "margins.kind: 'hard', expected one of none, triplet, hierarchical"),
        ({"kind": "triplet", "mean": 0.0}, "margins.mean: 0.0, expected a positive number"),
        ({"kind": "triplet", "across": -1.0}, "margins.across: -1.0, expected a positive number"),
    ],
)
def test_bad_fields(fields, message):
    with pytest.raises(ValueError, match=message):
        make_margins(**fields)
    with pytest.raises(ValueError, match=r"model.polarity: 2 numbers, expected one for each of 5 classes"):
        small_model("concat", polarity=(1, 0))
