"""The libraries of the `prep` and `onnx` extras, which whoever opens media files or runs encoders needs."""

import importlib.util

MEDIA_MODULES = ("av", "cv2", "librosa", "mtcnn", "soxr")
ONNX_MODULES = ("onnxruntime", "yaml")


def require_media() -> None:
    """ValueError naming the extra when what decodes media is not installed."""
    _require("media files", MEDIA_MODULES, "prep")


def require_onnx() -> None:
    """ValueError naming the extra when what runs frozen encoders is not installed."""
    _require("frozen encoders", ONNX_MODULES, "onnx")


def _require(what: str, modules: tuple[str, ...], extra: str) -> None:
    missing = [name for name in modules if importlib.util.find_spec(name) is None]
    if missing:
        raise ValueError(f"{what} need {', '.join(missing)}: pip install 'emofuse[{extra}]'")
