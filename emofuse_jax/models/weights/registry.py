"""Converters of public weights by encoder: `(tensors, shapes) -> arrays by our names`."""

from emofuse_jax.models.weights import alexnet, r3d, resnet

CONVERTERS = {"fcn": alexnet.convert, "frames": resnet.convert, "snippets": r3d.convert}
