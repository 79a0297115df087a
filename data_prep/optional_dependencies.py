"""Checks that the libraries of the extras `prep`, `onnx` and `serve` are installed."""

from emofuse_jax.utils.optional import is_installed

MEDIA_MODULES = ("av", "cv2", "librosa", "mtcnn", "soxr")
ONNX_MODULES = ("onnxruntime", "yaml")
SERVER_MODULES = ("fastapi", "prometheus_client", "python_multipart", "uvicorn", "websockets")


def require_media() -> None:
    """Raises ValueError if a library that decodes media is not installed: av, cv2, librosa, mtcnn or soxr.

    The message says how to install the extra `prep`.
    """
    _require("media files", MEDIA_MODULES, "prep")


def require_onnx() -> None:
    """Raises ValueError if onnxruntime or PyYAML, which frozen encoders need, is not installed.

    The message says how to install the extra `onnx`.
    """
    _require("frozen encoders", ONNX_MODULES, "onnx")


def require_server() -> None:
    """Raises ValueError if a library of the server is not installed; the message says how to install `serve`.

    The libraries are fastapi, prometheus_client, python_multipart, uvicorn and websockets.
    """
    _require("servers", SERVER_MODULES, "serve")


def _require(feature: str, modules: tuple[str, ...], extra: str) -> None:
    missing = [name for name in modules if not is_installed(name)]
    if missing:
        raise ValueError(
            f"{feature} need {', '.join(missing)}: run pip install '.[{extra}]' in a clone of emofuse"
        )
