"""Public weights land where PyTorch would use them; the tensors are random, under the public names."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from emofuse_jax.models.encoders.audio_fcn import TORCHVISION_ALEXNET, AudioFCN
from emofuse_jax.models.encoders.video_frame_resnet import ResNet
from emofuse_jax.models.pretrained import alexnet, resnet
from tests.support.small_models import small_config

RNG = np.random.default_rng(0)


def get_shapes(build, prefix):
    """Shapes of parameters and statistics by our names below a stream."""
    _, state = nnx.split(nnx.eval_shape(build))
    leaves = jax.tree_util.tree_leaves_with_path(nnx.to_pure_dict(state))
    return {prefix + jax.tree_util.keystr(p, simple=True, separator="/"): x.shape for p, x in leaves}


def alexnet_tensors(widths=(64, 192, 384, 256, 256)):
    """As torchvision.models.alexnet().state_dict() names and shapes them."""
    places, kernels, tensors, inputs = (0, 3, 6, 8, 10), (11, 5, 3, 3, 3), {}, 3
    for place, kernel, width in zip(places, kernels, widths, strict=True):
        shape = (width, inputs, kernel, kernel)
        tensors[f"features.{place}.weight"] = RNG.normal(size=shape).astype(np.float32)
        tensors[f"features.{place}.bias"] = RNG.normal(size=width).astype(np.float32)
        inputs = width
    return tensors


def resnet_tensors(width=64, blocks=(2, 2, 2, 2)):
    """As torchvision.models.resnet18().state_dict()."""
    tensors = {}

    def conv_norm(conv, norm, outputs, inputs, kernel):
        tensors[f"{conv}.weight"] = RNG.normal(size=(outputs, inputs, kernel, kernel)).astype(np.float32)
        for name in ("weight", "bias", "running_mean", "running_var"):
            tensors[f"{norm}.{name}"] = RNG.uniform(0.5, 1.5, outputs).astype(np.float32)

    conv_norm("conv1", "bn1", width, 3, 7)
    inputs = width
    for stage, count in enumerate(blocks):
        outputs = width * 2**stage
        for block in range(count):
            name = f"layer{stage + 1}.{block}"
            conv_norm(f"{name}.conv1", f"{name}.bn1", outputs, inputs, 3)
            conv_norm(f"{name}.conv2", f"{name}.bn2", outputs, outputs, 3)
            if inputs != outputs:
                conv_norm(f"{name}.downsample.0", f"{name}.downsample.1", outputs, inputs, 1)
            inputs = outputs
    return tensors


def test_alexnet_fills_every_parameter_and_convolves_as_pytorch_would():
    config = small_config().audio
    config.update(TORCHVISION_ALEXNET)
    network = AudioFCN(config, 70, jnp.float32, rngs=nnx.Rngs(0))
    tensors = alexnet_tensors()
    shapes = get_shapes(lambda: AudioFCN(config, 70, jnp.float32, rngs=nnx.Rngs(0)), "fcn/")
    converted = alexnet.convert(tensors, shapes)
    assert converted.keys() == shapes.keys()
    network.conv1.kernel[...] = jnp.asarray(converted["fcn/conv1/kernel"])
    network.conv1.bias[...] = jnp.asarray(converted["fcn/conv1/bias"])
    audio = RNG.normal(size=(1, 90, 70)).astype(np.float32)
    output = network.conv1(jnp.asarray(audio)[..., None])  # b t f d
    image = np.pad(np.repeat(audio[0].T[None], 3, axis=0), ((0, 0), (2, 2), (2, 2)))  # RGB, frequency upwards
    row, column = 5, 9
    patch = image[:, 4 * row : 4 * row + 11, 4 * column : 4 * column + 11]
    expected = np.einsum("ochw,chw->o", tensors["features.0.weight"], patch) + tensors["features.0.bias"]
    np.testing.assert_allclose(output[0, column, row], expected, rtol=1e-4, atol=1e-3)


def test_resnet_fills_every_parameter_and_statistic():
    config = small_config().video
    config.update(width=64, blocks=(2, 2, 2, 2), stem_kernel=7)
    shapes = get_shapes(lambda: ResNet(config, jnp.float32, rngs=nnx.Rngs(0)), "resnet/")
    tensors = resnet_tensors()
    converted = resnet.convert(tensors, shapes)
    assert converted.keys() == shapes.keys()
    kernel = converted["resnet/stage2_block1/shortcut/conv/kernel"]
    np.testing.assert_array_equal(kernel[0, 0], tensors["layer2.0.downsample.0.weight"][:, :, 0, 0].T)
    np.testing.assert_array_equal(
        converted["resnet/stage4_block2/second/norm/var"], tensors["layer4.1.bn2.running_var"]
    )


def test_the_stem_sees_pixels_as_the_public_network_does():
    config = small_config().video
    config.update(width=64, blocks=(2, 2, 2, 2), stem_kernel=7)
    network = ResNet(config, jnp.float32, rngs=nnx.Rngs(0)).stem
    shapes = get_shapes(lambda: ResNet(config, jnp.float32, rngs=nnx.Rngs(0)), "resnet/")
    tensors = resnet_tensors()
    converted = resnet.convert(tensors, shapes)
    network.conv.kernel[...] = jnp.asarray(converted["resnet/stem/conv/kernel"])
    for name in ("scale", "bias", "mean", "var"):
        getattr(network.norm, name)[...] = jnp.asarray(converted[f"resnet/stem/norm/{name}"])
    pixels = RNG.integers(0, 256, (1, 16, 16, 3))
    images = jnp.asarray(pixels / 127.5 - 1.0, jnp.float32)
    output = network(images, jnp.ones((1, 1, 1, 1), bool), train=False)
    theirs = (pixels[0] / 255 - (0.485, 0.456, 0.406)) / (0.229, 0.224, 0.225)
    patch = theirs[1:8, 3:10].transpose(2, 0, 1)  # what row 2 and column 3 see: no padding
    value = np.einsum("ochw,chw->o", tensors["conv1.weight"], patch) - tensors["bn1.running_mean"]
    value = value / np.sqrt(tensors["bn1.running_var"] + 1e-5) * tensors["bn1.weight"] + tensors["bn1.bias"]
    np.testing.assert_allclose(output[0, 2, 3], value, rtol=1e-3, atol=1e-3)


def test_what_does_not_fit_is_named():
    config = small_config().audio
    config.update(TORCHVISION_ALEXNET)
    shapes = get_shapes(lambda: AudioFCN(config, 70, jnp.float32, rngs=nnx.Rngs(0)), "fcn/")
    tensors = alexnet_tensors()
    with pytest.raises(ValueError, match=r"no tensor 'features.6.bias', needed for parameter fcn/conv3/bias"):
        alexnet.convert({k: v for k, v in tensors.items() if k != "features.6.bias"}, shapes)
    narrow = alexnet_tensors(widths=(32, 192, 384, 256, 256))
    with pytest.raises(ValueError, match=r"tensor 'features.0.weight' has shape \(11, 11, 1, 32\)"):
        alexnet.convert(narrow, shapes)
