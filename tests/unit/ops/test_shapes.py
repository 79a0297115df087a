"""Shape errors are one line that names the array."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from emofuse_jax.models.batch_checks import check_batch, check_fusion_output
from emofuse_jax.models.interfaces import FusionOutput
from emofuse_jax.ops.attention import attention_pool
from emofuse_jax.ops.bilinear import factorized_bilinear_pooling
from emofuse_jax.ops.hgr import soft_hgr
from emofuse_jax.ops.shapes import check_shapes
from tests.support.small_models import SPEC, small_model

pytestmark = pytest.mark.usefixtures("unchecked_shapes")
"""Users run without the shape checks of the tests."""


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"u": ((4, 8), "m k")}, r"u: shape \(4, 8\), expected \(m, k\) with m=3"),
        ({"u": ((3,), "m k")}, r"u: shape \(3,\), expected \(m, k\) with m=3"),
        ({"u": ((3, 8), "m m")}, r"u: shape \(3, 8\)"),
        ({"u": ((), "... m")}, r"u: shape \(\), expected \(\.\.\., m\) with m=3"),
    ],
)
def test_errors(arrays, message):
    arrays = {name: (np.zeros(shape), pattern) for name, (shape, pattern) in arrays.items()}
    with pytest.raises(ValueError, match=message):
        check_shapes({"x": (np.zeros((2, 3)), "... m")} | arrays)


def test_valid_shapes_and_other_types():
    check_shapes({"x": (np.zeros((2, 5, 3)), "... m"), "u": (np.zeros((3, 8)), "m k")}, {"k": 8})
    with pytest.raises(ValueError, match=r"x: list, expected an array of shape \(b, t\)"):
        check_shapes({"x": ([[1]], "b t")})


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda z: factorized_bilinear_pooling(z(2, 3), z(2, 4), z(5, 8), z(4, 8), factors=2), "^u: shape"),
        (lambda z: factorized_bilinear_pooling(z(2, 3), z(2, 4), z(3, 8), z(4, 6), factors=2), "^v: shape"),
        (lambda z: attention_pool(z(2, 7, 3), z(2, 6), z(2, 7) > 0), "^scores: shape"),
        (lambda z: soft_hgr(z(40, 3), z(40, 4)), "^g: shape"),
        (lambda z: soft_hgr(z(40, 3), z(40, 3), z(39)), "^weight: shape"),
    ],
)
def test_public_operations(call, message):

    with pytest.raises(ValueError, match=message) as caught:
        call(lambda *shape: jnp.zeros(shape))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("field", "shape"),
    [
        ("audio_mask", (4, 9)),
        ("faces", (4, 4, 16, 16, 1)),
        ("face_mask", (4, 5)),
        ("label", (3,)),
        ("weight", ()),
    ],
)
def test_fields_of_a_batch(field, shape):
    batch = small_model("concat")[0].fake_batch(4)
    check_batch(batch, SPEC)
    with pytest.raises(ValueError, match=rf"batch\.{field}: shape \({', '.join(map(str, shape))}"):
        check_batch(dataclasses.replace(batch, **{field: np.zeros(shape)}), SPEC)


def test_outputs_of_a_fusion():
    z = np.zeros((4, 2))
    check_fusion_output(FusionOutput(z, z, {}))
    with pytest.raises(ValueError, match=r"fusion: returned ndarray, expected ef\.FusionOutput"):
        check_fusion_output(z)
    with pytest.raises(ValueError, match=r"fusion: logits: shape \(4,\), expected \(b, classes\)"):
        check_fusion_output(FusionOutput(z[:, 0], z, {}))
