"""The packages of the extra ``querypose[onnx]``."""

from __future__ import annotations

import importlib.util

_PACKAGES = ("onnx", "onnxruntime", "onnxscript", "cv2")


def require_packages(purpose: str) -> None:
    """Checks that the packages are installed.

    Args:
        purpose: what needs them, the start of a sentence.

    Raises:
        ImportError: some are missing; the message says how to install them.
    """
    missing = [name for name in _PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise ImportError(
            f"{purpose} needs {', '.join(missing)}, which Python does not find here: "
            "pip install 'querypose[onnx]'."
        )
