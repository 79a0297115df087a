"""The libraries of the extras `prep`, `onnx` and `serve`: to open media, to run encoders, to serve."""

import importlib.util

MEDIA_MODULES = ("av", "cv2", "librosa", "mtcnn", "soxr")
ONNX_MODULES = ("onnxruntime", "yaml")
SERVER_MODULES = ("fastapi", "prometheus_client", "python_multipart", "uvicorn", "websockets")


def require_media() -> None:
    """ValueError naming the extra when what decodes media is not installed."""
    _require("media files", MEDIA_MODULES, "prep")


def require_onnx() -> None:
    """ValueError naming the extra when what runs frozen encoders is not installed."""
    _require("frozen encoders", ONNX_MODULES, "onnx")


def require_server() -> None:
    """ValueError naming the extra when what the server is made of is not installed."""
    _require("servers", SERVER_MODULES, "serve")


def _require(feature: str, modules: tuple[str, ...], extra: str) -> None:
    missing = [name for name in modules if importlib.util.find_spec(name) is None]
    if missing:
        raise ValueError(f"{feature} need {', '.join(missing)}: pip install 'emofuse[{extra}]'")
