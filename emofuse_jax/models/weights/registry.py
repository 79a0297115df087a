"""Converters of public weights by encoder: `(tensors, shapes) -> arrays by our names`."""

from emofuse_jax.models.weights import alexnet, resnet

CONVERTERS = {"fcn": alexnet.convert, "frames": resnet.convert}
