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
    """Writes the bundle of a checkpoint and both cards; `serving.bundle.export.export_bundle` has the
    arguments."""
    return export.export_bundle(
        workdir,
        output,
        checkpoint_kind,
        encoders=encoders,
        quantize=quantize,
        onnx=onnx,
        make_cards=collect_cards,
    )
