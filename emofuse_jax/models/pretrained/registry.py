"""Converters of public weights by encoder name: `(tensors, shapes) -> arrays by our names`."""

from emofuse_jax.models.pretrained import alexnet, resnet, resnet3d

CONVERTERS = {"fcn": alexnet.convert, "frames": resnet.convert, "snippets": resnet3d.convert}
