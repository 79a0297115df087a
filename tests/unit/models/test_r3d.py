import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from ml_collections import ConfigDict

from emofuse_jax.models.layers.resnet3d import R3D, R3D18, R3D50, R3D101, output_size
from emofuse_jax.models.pretrained import resnet3d as weights

RNG = np.random.default_rng(7)
SMALL18 = R3D18 | {"width": 2, "blocks": (1, 2), "stem_kernel": (3, 3, 3)}
SMALL50 = R3D50 | {"width": 2, "blocks": (1, 2), "stem_kernel": (3, 3, 3)}


def make_network(fields):
    return R3D(ConfigDict(fields), jnp.float32, rngs=nnx.Rngs(0))


def flatten_by_name(state):
    """Arrays or shapes by names with slashes below `video/`."""
    leaves = jax.tree_util.tree_leaves_with_path(nnx.to_pure_dict(state))
    return {"r3d/" + jax.tree_util.keystr(p, simple=True, separator="/"): leaf for p, leaf in leaves}


def count_parameters(fields):
    """Parameters by the table: kernels without bias, two numbers a channel for each norm."""
    expansion = 4 if fields["bottleneck"] else 1
    total, inputs = 3 * 64 * np.prod(fields["stem_kernel"]) + 2 * 64, 64
    for stage, blocks in enumerate(fields["blocks"]):
        width = 64 * 2**stage
        for i in range(blocks):
            if fields["bottleneck"]:
                convs = [(inputs, width, 1), (width, width, 27), (width, 4 * width, 1)]
            else:
                convs = [(inputs, width, 27), (width, width, 27)]
            if not i and (stage or expansion > 1):
                convs.append((inputs, expansion * width, 1))
            total += sum(a * b * volume + 2 * b for a, b, volume in convs)
            inputs = expansion * width
    return total


@pytest.mark.parametrize(
    ("fields", "expected", "width"),
    [(R3D18, 33_371_472 - 400 * 513, 512), (R3D50, 46_198_976, 2048), (R3D101, 85_245_120, 2048)],
)
def test_parameter_counts(fields, expected, width):
    net = nnx.eval_shape(lambda: make_network(fields))
    assert (
        sum(leaf.size for leaf in jax.tree.leaves(nnx.state(net, nnx.Param)))
        == expected
        == count_parameters(fields)
    )
    assert net.width == width


@pytest.mark.parametrize(
    ("fields", "size"),
    [(R3D18, (16, 112, 112)), (SMALL18, (5, 60, 44)), (SMALL50, (5, 60, 44)), (SMALL50, (1, 9, 9))],
)
def test_output_size(fields, size):
    def run():
        return make_network(fields)(jnp.zeros((2, *size, 3)), jnp.ones(2, bool), train=False)

    shape = nnx.eval_shape(run).shape
    assert shape[1:4] == output_size(ConfigDict(fields), *size)
    if (fields, size) == (R3D18, (16, 112, 112)):
        assert shape == (2, 2, 7, 7, 512)


@pytest.mark.parametrize("fields", [SMALL18, SMALL50])
def test_masked_snippets_change_nothing(fields):
    graphdef, state = nnx.split(make_network(fields))
    state = nnx.to_pure_dict(state)

    @jax.jit
    def run(snippets, mask):
        net = nnx.merge(graphdef, state)
        return net(snippets, mask, train=True), nnx.to_pure_dict(nnx.state(net, nnx.BatchStat))

    snippets = jnp.asarray(RNG.normal(size=(3, 2, 8, 8, 3)), jnp.float32)
    mask = jnp.array([True, False, True])
    one, two = (run(batch, mask) for batch in (snippets, snippets.at[1].set(9.0)))
    assert np.array_equal(one[0][mask], two[0][mask])
    assert np.abs(one[0][1] - two[0][1]).max() > 0
    for a, b in zip(jax.tree.leaves(one[1]), jax.tree.leaves(two[1]), strict=True):
        assert np.array_equal(a, b)
    empty, statistics = run(snippets, jnp.zeros(3, bool))
    assert np.all(np.isfinite(empty))
    for a, b in zip(
        jax.tree.leaves(statistics),
        jax.tree.leaves(nnx.state(make_network(fields), nnx.BatchStat)),
        strict=True,
    ):
        assert np.array_equal(a, b)


def torchvision_name(ours):
    """The name that r3d_18 of torchvision gives to one of our arrays."""
    *path, last = ours.removeprefix("r3d/").replace("_block", ".").split("/")
    leaf = {"scale": "weight", "mean": "running_mean", "var": "running_var", "kernel": "weight"}.get(
        last, last
    )
    place = "0" if last == "kernel" else "1"
    if path[0] == "stem":
        return f"stem.{place}.{leaf}"
    stage, index = path[0].removeprefix("stage").split(".")
    layer = {"first": "conv1", "second": "conv2", "shortcut": "downsample"}[path[1]]
    return f"layer{stage}.{int(index) - 1}.{layer}.{place}.{leaf}"


def hara_name(ours):
    """The same for 3D-ResNets-PyTorch."""
    name = torchvision_name(ours.replace("third", "second"))
    layer = {"stem": ".", "first": "1.", "second": "2.", "third": "3.", "shortcut": ""}[
        ours.split("/")[1 if "stem" in ours else 2]
    ]
    if "downsample" in name:
        return name
    kind = "conv" if ours.endswith("kernel") else "bn"
    if "stem" in ours:
        return f"{kind}1.{name.rsplit('.', 1)[1]}"
    return f"{'.'.join(name.split('.')[:2])}.{kind}{layer}{name.rsplit('.', 1)[1]}"


def make_public_tensors(net, to_public_name):
    """Random arrays in the layout of PyTorch, by its names, and what they should become."""
    expected, tensors = {}, {"fc.weight": np.zeros((4, 8), np.float32)}
    for name, leaf in flatten_by_name(nnx.state(net)).items():
        array = RNG.normal(size=leaf.shape).astype(np.float32)
        expected[name] = array
        tensors[to_public_name(name)] = np.moveaxis(array, (4, 3), (0, 1)) if array.ndim == 5 else array
    return tensors, expected


@pytest.mark.parametrize(
    ("fields", "naming"), [(SMALL18, torchvision_name), (SMALL18, hara_name), (SMALL50, hara_name)]
)
def test_public_weights_land(fields, naming):
    net = make_network(fields)
    tensors, expected = make_public_tensors(net, naming)
    shapes = {name: leaf.shape for name, leaf in flatten_by_name(nnx.state(net)).items()}
    converted = weights.convert(tensors, shapes | {"space/query/kernel": (3, 3)})
    assert converted.keys() == expected.keys()
    stem = ("r3d/stem/kernel", "r3d/stem/norm/mean")  # made for other pixels
    for name, array in expected.items():
        assert (name in stem) != np.array_equal(converted[name], array)
    mean, std = (
        weights.TORCHVISION_PIXEL_STATS if naming is torchvision_name else weights.RESNETS_3D_PIXEL_STATS
    )
    pixels = np.random.default_rng(0).random((*net.stem.kernel.shape[:3], 3))  # what one output sees
    theirs = np.sum(expected[stem[0]] * ((pixels - mean) / std)[..., None], axis=(0, 1, 2, 3))
    ours = np.sum(converted[stem[0]] * (2 * pixels - 1)[..., None], axis=(0, 1, 2, 3))
    np.testing.assert_allclose(ours - converted[stem[1]], theirs - expected[stem[1]], rtol=1e-3, atol=1e-3)


def test_the_names_of_r3d_18():
    net = nnx.eval_shape(lambda: make_network(R3D18))
    names = {torchvision_name(name) for name in flatten_by_name(nnx.state(net))}
    assert len(names) == 20 * 5  # a kernel and four arrays of a norm for each of 17 + 3 convolutions
    for name in (
        "stem.0.weight",
        "stem.1.running_var",
        "layer1.1.conv2.0.weight",
        "layer4.0.downsample.1.bias",
    ):
        assert name in names
    assert {hara_name(name) for name in flatten_by_name(nnx.state(net))} >= {
        "conv1.weight",
        "bn1.bias",
        "layer2.1.bn2.weight",
    }


def test_a_tensor_that_is_missing_or_does_not_fit():
    net = make_network(SMALL18)
    tensors, _ = make_public_tensors(net, torchvision_name)
    shapes = {name: leaf.shape for name, leaf in flatten_by_name(nnx.state(net)).items()}
    wide = tensors | {"layer2.0.conv1.0.weight": np.zeros((4, 3, 3, 3, 3), np.float32)}
    with pytest.raises(
        ValueError,
        match=r"'layer2.0.conv1.0.weight' has shape \(3, 3, 3, 3, 4\) in .*, expected \(3, 3, 3, 2",
    ):
        weights.convert(wide, shapes)
    del tensors["layer1.0.conv2.1.bias"]
    with pytest.raises(ValueError, match=r"no tensor 'layer1.0.conv2.1.bias'"):
        weights.convert(tensors, shapes)
