"""Files of tensors: read without running code, written without leaving halves."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, ClassVar

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor


class ArrayUnpickler(pickle.Unpickler):
    """Reads Detectron2's zoo files: arrays in dictionaries, and nothing that could run."""

    _ALLOWED: ClassVar = {
        ("numpy", "ndarray"),
        ("numpy", "dtype"),
        ("numpy.core.multiarray", "_reconstruct"),
        ("numpy.core.multiarray", "scalar"),
        ("numpy._core.multiarray", "_reconstruct"),
        ("numpy._core.multiarray", "scalar"),
        ("collections", "OrderedDict"),
        ("_codecs", "encode"),
    }

    def find_class(self, module: str, name: str) -> Any:
        """Refuses whatever is no array."""
        if (module, name) not in self._ALLOWED:
            raise pickle.UnpicklingError(f"it holds {module}.{name}")
        return super().find_class(module, name)


def read_safetensors(filename: str) -> dict[str, Tensor]:
    """Reads a safetensors file.

    Raises:
        ValueError: it is none, or cut short.
    """
    try:
        return load_file(filename)
    except SafetensorError as error:
        raise ValueError(f"{filename} is no safetensors file, or cut short: {error}.") from error


def read_weights(filename: str, *, weights_only: bool = True) -> dict[str, Any]:
    """Reads what ``torch.save`` wrote.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is none such, damaged, or holds more than weights.
    """
    try:
        content = torch.load(filename, map_location="cpu", weights_only=weights_only)
    except pickle.UnpicklingError as error:
        raise ValueError(refusal(filename, error)) from error
    except OSError:
        raise
    except Exception as error:  # A damaged file fails in many ways.
        raise ValueError(
            f"{filename} cannot be read: it is damaged or no checkpoint ({error!r:.200})."
        ) from error
    return content if isinstance(content, dict) else {"model": content}


def is_state_dict(content: object) -> bool:
    """Whether a file's content maps names to tensors or arrays, as weights do."""
    return isinstance(content, dict) and all(
        isinstance(name, str) and isinstance(value, (Tensor, np.ndarray))
        for name, value in content.items()
    )


def replace_file(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    """Writes a file aside and renames it, so that readers see the old or the new one whole."""
    aside = path.with_name(f".{path.name}.partial")
    with aside.open("wb") as file:
        write(file)
        file.flush()
        os.fsync(file.fileno())
    aside.replace(path)


def refusal(filename: str, error: Exception) -> str:
    """Says why a file is not read, and how to read it all the same."""
    reason = str(error).strip().splitlines()[0] if str(error).strip() else "it is cut short"
    return (
        f"{filename} cannot be read as weights alone ({reason}); if you trust its origin, "
        "set MODEL.WEIGHTS_ONLY False."
    )
