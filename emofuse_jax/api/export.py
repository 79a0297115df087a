"""Exports a checkpoint as a serving bundle with its model card and data card."""

from emofuse_jax.reporting.cards import collect_cards
from emofuse_jax.serving.bundle import export


def export_bundle(
    workdir: str,
    output: str,
    checkpoint_kind: str = "best",
    *,
    encoders: dict[str, str] | None = None,
    quantize: str = "",
    onnx: bool = False,
) -> float:
    """Writes the bundle of a checkpoint, with its model card and data card, to the directory `output`.

    Args:
      workdir: directory of a training run.
      output: directory to write; an existing bundle is replaced.
      checkpoint_kind: `best` or `last`.
      encoders: None: no encoders are copied. A dict: the ONNX files of all frozen encoders that the model
        uses are copied into the bundle. It has their paths by kind (`audio`, `face` or `detector`); for a
        kind that is missing or empty, the file that prepared the records is copied.
      quantize: `bf16` or `int8` stores the weights in fewer bits; the bundle is then compared with the
        checkpoint after its weights were rounded in the same way. Empty: float32. Not checked.
      onnx: True adds model.onnx, the same computation for onnxruntime.

    Returns:
      The largest absolute difference between the probabilities and logits of the bundle and those of the
      checkpoint, on four random clips.

    Raises:
      FileNotFoundError: there is no checkpoint of this kind.
      ValueError: the checkpoint, a card or results.json is damaged; a kind in `encoders` is unknown; an
        encoder file is missing or is not the one that prepared the records; `output` exists and is neither a
        bundle nor an empty directory; the ONNX converter is missing or does not support an operation; or the
        difference is more than 1e-5 (ONNX: 1e-4).
      OSError: a file cannot be read or written.
      Exception: JAX cannot export a registered encoder or fusion for batches of any size.
    """
    return export.export_bundle(
        workdir,
        output,
        checkpoint_kind,
        encoders=encoders,
        quantize=quantize,
        onnx=onnx,
        make_cards=collect_cards,
    )
