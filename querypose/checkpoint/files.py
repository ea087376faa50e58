"""Checkpoint files, read without running code."""

from __future__ import annotations

import pickle
import re
from typing import Any, ClassVar

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

# First bytes of the two formats of torch.save: a zip archive, and a pickled magic number.
_ZIP_START = b"PK\x03\x04"
_TORCH_STARTS = (_ZIP_START, pickle.dumps(0x1950A86A20F9469CFC6C, protocol=2))
_LONGEST_SAFETENSORS_HEADER = 100_000_000


class DamagedFileError(ValueError):
    """A file that is cut short, damaged, or not a checkpoint."""


class _ForeignClassError(pickle.UnpicklingError):
    """A pickle that holds more than arrays."""


class _ArrayUnpickler(pickle.Unpickler):
    """Reads Detectron2's zoo files: arrays in dictionaries, and nothing that runs code."""

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
        """Refuses every class that arrays do not need."""
        if (module, name) not in self._ALLOWED:
            raise _ForeignClassError(f"it holds {module}.{name}")
        return super().find_class(module, name)


def read_checkpoint(
    filename: str,
    *,
    name: str | None = None,
    weights_only: bool = True,
    memory_mapped: bool = False,
) -> dict[str, Any]:
    """Reads a file of ``torch.save``, of safetensors, or a pickle of Detectron2's or pycls' zoo.

    The content decides which of them it is, because a copy in a cache may have any name.

    Args:
        filename: a local path.
        name: name of the file in errors; ``filename`` by default.
        weights_only: read weights alone; False unpickles the file, which runs any code inside.
        memory_mapped: read tensors of ``torch.save`` when they are first used, as long as the file
            is there; other kinds of files are read whole.

    Returns:
        The weights under "model", and whatever else the file holds.

    Raises:
        FileNotFoundError: there is no such file.
        DamagedFileError: it is cut short, damaged or not a checkpoint.
        ValueError: it holds more than weights.
    """
    name = name or filename
    with open(filename, "rb") as file:
        start = file.read(512)
    try:
        if _is_safetensors(start):
            return {"model": load_file(filename)}
        if not start.startswith(_TORCH_STARTS) and (
            start.startswith(pickle.PROTO) or filename.partition("?")[0].endswith(".pkl")
        ):
            return _read_zoo_file(filename, weights_only)
        mapped = memory_mapped and start.startswith(_ZIP_START)
        return _read_torch_file(filename, weights_only, mapped)
    except (FileNotFoundError, MemoryError):
        raise
    except Exception as error:  # Damaged files raise errors of many kinds, even OSError.
        if weights_only and _holds_code(error, start):
            raise ValueError(_refusal(name, error)) from error
        raise DamagedFileError(f"{name} cannot be read: {_damage(start, error)}.") from error


def _is_safetensors(start: bytes) -> bool:
    """Whether a file begins with the length of a JSON object and then that object."""
    length = int.from_bytes(start[:8], "little")
    return start[8:9] == b"{" and length <= _LONGEST_SAFETENSORS_HEADER


def _read_zoo_file(filename: str, weights_only: bool) -> dict[str, Any]:
    unpickler = _ArrayUnpickler if weights_only else pickle.Unpickler
    with open(filename, "rb") as file:
        data = unpickler(file, encoding="latin1").load()
    if "model" not in data:
        data = {"model": data.get("blobs", data), "__author__": "Caffe2"}
    return data | {"matching_heuristics": True}


def _read_torch_file(filename: str, weights_only: bool, mapped: bool) -> dict[str, Any]:
    content = torch.load(filename, map_location="cpu", weights_only=weights_only, mmap=mapped)
    if not isinstance(content, dict):
        return {"model": content}
    if "model" in content:
        return content
    if "model_state" in content:  # pycls
        return {"model": content["model_state"], "matching_heuristics": True}
    return {"model": content}


def _holds_code(error: Exception, start: bytes) -> bool:
    """Whether an intact file was refused because reading it could run code."""
    refused_by_torch = isinstance(error, pickle.UnpicklingError) and start.startswith(_TORCH_STARTS)
    # PyTorch 2.2 reports a file that is cut short in the same way.
    return (refused_by_torch and "corrupted" not in str(error)) or isinstance(
        error, _ForeignClassError
    )


def _refusal(name: str, error: Exception) -> str:
    """The error message for a file that holds more than weights."""
    foreign = re.search(r"(?:GLOBAL|Unsupported class) ([\w.]+)", str(error))
    reason = f"it holds {foreign[1]}" if foreign else str(error).strip().splitlines()[0]
    return (
        f"{name} cannot be read as weights alone ({reason}); if you trust its origin, set "
        "MODEL.WEIGHTS_ONLY False."
    )


def _damage(start: bytes, error: Exception) -> str:
    """What is wrong with a file, judged by its first bytes."""
    if not start:
        return "it is empty"
    if start.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"<"):
        return "it is a web page (HTML or XML) in place of a checkpoint"
    text = " ".join(start.decode(errors="replace").split())
    if text.isprintable() and "\ufffd" not in text[:-1]:
        return f"it is text in place of a checkpoint and begins with {text[:60]!r}"
    reason = re.split(r"\.\s|\n", str(error))[0].strip() or type(error).__name__
    return f"it is cut short, damaged or not a checkpoint ({reason})"


def is_state_dict(content: object) -> bool:
    """Whether the content of a file maps names to tensors or arrays."""
    return isinstance(content, dict) and all(
        isinstance(name, str) and isinstance(value, (Tensor, np.ndarray))
        for name, value in content.items()
    )
