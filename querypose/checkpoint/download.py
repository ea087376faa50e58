"""Weights from any address: a path, a server, or a prefix that is registered with PathManager."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import IncompleteRead, RemoteDisconnected
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.error import ContentTooShortError, HTTPError, URLError

from detectron2.utils.file_io import PathManager
from iopath.common.file_io import get_cache_dir

from querypose.checkpoint.files import DamagedFileError

_HEURISTICS = "matching_heuristics="
_GONE = (404, 410)


@contextmanager
def local_file(address: str) -> Iterator[str]:
    """The file at an address, on this disk.

    Downloads go to Detectron2's cache (``FVCORE_CACHE``). Of several processes, one downloads and
    the others wait. A download that turns out damaged is removed from the cache.

    Args:
        address: a path, or what a handler of Detectron2's ``PathManager`` takes: ``https://``,
            ``http://``, ``detectron2://``, ``catalog://``, a project's own prefix. A query belongs
            to the address, except for Detectron2's ``?matching_heuristics=True``.

    Yields:
        A path to read from.

    Raises:
        FileNotFoundError: there is no such file.
        ConnectionError: the server cannot be reached.
        OSError: the server does not send the file, or not all of it.
        ValueError: no handler takes the address, or the file was found damaged by whoever reads it.
    """
    target, _ = split_heuristics(address)
    path = _fetch(address, target)
    if path is None:
        with TemporaryDirectory() as folder:
            yield _copy_stream(address, target, folder)
    elif path == target:
        yield path
    else:
        with _told_of_copy(address, path):
            yield path


def split_heuristics(address: str) -> tuple[str, bool]:
    """Takes Detectron2's ``?matching_heuristics=True`` off an address.

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
    """A file's path on this disk; None where the handler can only open it."""
    try:
        path = os.fspath(PathManager.get_local_path(target))
    except NotImplementedError:
        return None
    except Exception as error:  # Handlers are anybody's.
        raise _failure(address, error) from error
    if os.path.isfile(path):
        return path
    prefix, separator, _ = target.partition("://")
    if separator and path == target:
        raise ValueError(
            f"{address} cannot be opened: no handler for {prefix}:// is registered with "
            "Detectron2's PathManager; register one, or download the file and give its path."
        )
    raise FileNotFoundError(f"There is no checkpoint file {address}.")


def _copy_stream(address: str, target: str, folder: str) -> str:
    path = os.path.join(folder, "copy")
    try:
        with PathManager.open(target, "rb") as stream, open(path, "wb") as copy:
            shutil.copyfileobj(stream, copy)
    except Exception as error:  # Handlers are anybody's.
        raise _failure(address, error) from error
    return path


@contextmanager
def _told_of_copy(address: str, path: str) -> Iterator[None]:
    """Keeps no damaged download, and makes errors of the reader speak of the copy."""
    try:
        yield
    except DamagedFileError as error:
        told = str(error).removesuffix(".")
        if not Path(path).resolve().is_relative_to(Path(get_cache_dir()).resolve()):
            raise DamagedFileError(f"{told}; it was read from {path}.") from error
        Path(path).unlink(missing_ok=True)
        raise DamagedFileError(f"{told}; the next try downloads it again.") from error
    except (FileNotFoundError, AssertionError) as error:
        if os.path.exists(path):
            raise
        raise FileNotFoundError(
            f"The copy of {address} in the cache is gone: another process found it damaged."
        ) from error


def _failure(address: str, error: Exception) -> OSError | ValueError:
    """One sentence on why a file could not be had."""
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
    told = " ".join(str(getattr(cause, "strerror", None) or cause).split()).rstrip(".!")
    if isinstance(error, URLError | ConnectionError | TimeoutError):
        return ConnectionError(
            f"{address} cannot be reached ({told}): check the network, or download the file "
            "elsewhere and give its path."
        )
    if isinstance(error, OSError):
        return OSError(f"{address} cannot be downloaded: {told}.")
    return ValueError(f"{address} cannot be opened: {type(error).__name__}: {told}.")
