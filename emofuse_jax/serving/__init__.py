"""Serving: a bundle is written by `export`, read by `bundle`, and answers for media through `predictor`."""


def load(path: str):
    """Opens a bundle directory: a `Bundle` with `.run(arrays)`, `.predict(clip_path)` and `.metadata`.

    Needs jax, numpy, flatbuffers and safetensors; `.predict` also needs the `prep` extra.
    Raises ValueError, one line that names the file, on anything that is not a whole, unaltered bundle.
    """
    from emofuse_jax.serving.bundle import load_bundle

    return load_bundle(path)
