"""Checks that the libraries of the extras `prep`, `onnx` and `serve` are installed."""

from emofuse_jax.utils.optional import is_installed

MEDIA_MODULES = ("av", "cv2", "librosa", "mtcnn", "soxr")
ONNX_MODULES = ("onnxruntime", "yaml")
SERVER_MODULES = ("fastapi", "prometheus_client", "python_multipart", "uvicorn", "websockets")


def require_media() -> None:
    """Raises ValueError, naming the extra `prep`, if a library that decodes media is not installed."""
    _require("media files", MEDIA_MODULES, "prep")


def require_onnx() -> None:
    """Raises ValueError, naming the extra `onnx`, if a library that runs frozen encoders is not installed."""
    _require("frozen encoders", ONNX_MODULES, "onnx")


def require_server() -> None:
    """Raises ValueError, naming the extra `serve`, if a library of the server is not installed."""
    _require("servers", SERVER_MODULES, "serve")


def _require(feature: str, modules: tuple[str, ...], extra: str) -> None:
    missing = [name for name in modules if not is_installed(name)]
    if missing:
        raise ValueError(
            f"{feature} need {', '.join(missing)}: run pip install '.[{extra}]' in a clone of emofuse"
        )
