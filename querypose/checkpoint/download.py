"""Files from any address: a path, a URL, or a prefix that is registered with PathManager."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from http.client import IncompleteRead, RemoteDisconnected
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeVar
from urllib.error import ContentTooShortError, HTTPError, URLError

from detectron2.utils.file_io import PathManager
from iopath.common.file_io import get_cache_dir

from querypose.checkpoint.files import DamagedFileError
from querypose.checkpoint.origins import origin_hint

Content = TypeVar("Content")

_HEURISTICS = "matching_heuristics="
_GONE = (404, 410)


def read_at(address: str, read: Callable[[str], Content]) -> Content:
    """Reads the file at an address.

    Downloads are kept in Detectron2's cache (``FVCORE_CACHE``). If several processes ask for a
    file, one downloads it and the others wait. A damaged download is removed from the cache.

    Args:
        address: a path, or an address for a handler of Detectron2's ``PathManager``: ``https://``,
            ``http://``, ``detectron2://``, ``catalog://``, a prefix of the user's project. A query
            belongs to the address, except for Detectron2's ``?matching_heuristics=True``.
        read: reads a local file; raises DamagedFileError if it is damaged.

    Returns:
        What ``read`` returns.

    Raises:
        FileNotFoundError: there is no such file.
        ConnectionError: the server cannot be reached.
        OSError: the server does not send the file, or not all of it.
        ValueError: no handler takes the address, or the file is damaged.
    """
    target, _ = split_heuristics(address)
    while True:
        path = _fetch(address, target)
        if path is None:
            with TemporaryDirectory() as folder:
                return read(_copy_stream(address, target, folder))
        try:
            return read(path)
        except DamagedFileError as error:
            if path == target:
                raise
            raise DamagedFileError(f"{str(error).removesuffix('.')}; {_discard(path)}.") from error
        except (FileNotFoundError, AssertionError):
            if path == target or os.path.exists(path):
                raise
            # Another process found the copy damaged and removed it: download it again.


def fetch(address: str) -> None:
    """Downloads a file, or finds out that it is missing, before longer work that needs it.

    Args:
        address: any that :func:`read_at` takes; "" for none.

    Raises:
        FileNotFoundError: there is no such file.
        OSError: it cannot be downloaded.
        ValueError: no handler takes the address.
    """
    if address:
        read_at(address, lambda _: None)


def split_heuristics(address: str) -> tuple[str, bool]:
    """Removes Detectron2's ``?matching_heuristics=True`` from an address.

    Returns:
        The address without it, and whether it was there.
    """
    base, _, query = address.partition("?")
    if _HEURISTICS not in query or os.path.isfile(address):
        return address, False
    items = query.split("&")
    kept = "&".join(item for item in items if not item.startswith(_HEURISTICS))
    return (f"{base}?{kept}" if kept else base), f"{_HEURISTICS}True" in items


def _fetch(address: str, target: str) -> str | None:
    """The local path of a file; None if the handler can only open it."""
    try:
        path = os.fspath(PathManager.get_local_path(target))
    except NotImplementedError:
        return None
    except Exception as error:  # Handlers of other projects raise anything.
        raise _failure(address, error) from error
    if os.path.isfile(path):
        return path
    prefix, separator, _ = target.partition("://")
    if separator and path == target:
        raise ValueError(
            f"{address} cannot be opened: no handler for {prefix}:// is registered with "
            "Detectron2's PathManager; register one, or download the file and give its path."
        )
    raise FileNotFoundError(f"There is no checkpoint file {address}.{origin_hint(address)}")


def _copy_stream(address: str, target: str, folder: str) -> str:
    path = os.path.join(folder, "copy")
    try:
        with PathManager.open(target, "rb") as stream, open(path, "wb") as copy:
            shutil.copyfileobj(stream, copy)
    except Exception as error:  # Handlers of other projects raise anything.
        raise _failure(address, error) from error
    return path


def _discard(path: str) -> str:
    """Removes a file if it lies in the cache; returns the end of the error message."""
    if not Path(path).resolve().is_relative_to(Path(get_cache_dir()).resolve()):
        return f"it was read from {path}"
    Path(path).unlink(missing_ok=True)
    return "the next try downloads it again"


def _failure(address: str, error: Exception) -> OSError | ValueError:
    """The error for a file that could not be fetched, in one sentence."""
    if isinstance(error, HTTPError):
        answer = f"the server answers {error.code} {error.reason}"
        if error.code in _GONE:
            return FileNotFoundError(f"There is no checkpoint file {address}: {answer}.")
        return OSError(f"{address} cannot be downloaded: {answer}.")
    if isinstance(error, FileNotFoundError):
        return FileNotFoundError(f"There is no checkpoint file {address}.")
    if isinstance(error, ContentTooShortError | IncompleteRead | RemoteDisconnected):
        return OSError(
            f"{address} cannot be downloaded: the connection ended before the file did; try again."
        )
    cause = getattr(error, "reason", error)
    reason = " ".join(str(getattr(cause, "strerror", None) or cause).split()).rstrip(".!")
    if isinstance(error, URLError | ConnectionError | TimeoutError):
        return ConnectionError(
            f"{address} cannot be reached ({reason}): check the network, or download the file "
            "elsewhere and give its path."
        )
    if isinstance(error, OSError):
        return OSError(f"{address} cannot be downloaded: {reason}.")
    return ValueError(f"{address} cannot be opened: {type(error).__name__}: {reason}.")
