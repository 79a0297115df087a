"""The libraries of the `prep` extra, which whoever opens media files needs."""

import importlib.util

MEDIA_MODULES = ("av", "cv2", "librosa", "mtcnn", "soxr")


def require_media() -> None:
    """ValueError naming the extra when what decodes media is not installed."""
    missing = [name for name in MEDIA_MODULES if importlib.util.find_spec(name) is None]
    if missing:
        raise ValueError(f"media files need {', '.join(missing)}: pip install 'emofuse[prep]'")
