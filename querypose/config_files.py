"""Config files, by path or by the name of one that comes with the package."""

from __future__ import annotations

import difflib
import os
from pathlib import Path

_PACKAGE = Path(__file__).parent
_INSTALLED = _PACKAGE / "model_zoo" / "configs"
_BASE_PREFIX = "Base-"
_MOST_SUGGESTIONS = 3


def _folder() -> Path:
    """The packaged configs: in an installed package, or beside the package in a checkout."""
    return _INSTALLED if _INSTALLED.is_dir() else _PACKAGE.parent / "configs"


def config_names() -> list[str]:
    """Names of the packaged configs, such as "coco/querypose_r50_light_3x", in order."""
    files = (path.relative_to(_folder()) for path in _folder().rglob("*.yaml"))
    return sorted(
        file.with_suffix("").as_posix() for file in files if not file.name.startswith(_BASE_PREFIX)
    )


def packaged_config_file(name: str) -> Path:
    """The file of a packaged config.

    Args:
        name: one of :func:`config_names`; ".yaml" at its end and "configs/" before it may be there.
            Or the name of a LazyConfig, such as "lazy/querypose_r50_light_3x.py".

    Raises:
        FileNotFoundError: there is no such config; the message suggests the closest names.
    """
    names, wanted = config_names(), name.removeprefix("configs/").removesuffix(".yaml")
    if wanted.endswith(".py") and (_folder() / wanted).is_file():
        return _folder() / wanted
    if wanted in names:
        return _folder() / f"{wanted}.yaml"
    # A name without its folder is close to no full name.
    close = [full for full in names if full.endswith(f"/{wanted}")]
    close = close or difflib.get_close_matches(wanted, names, n=_MOST_SUGGESTIONS)
    hint = (
        f"Did you mean {' or '.join(close)}?"
        if close
        else "`python -m querypose configs` lists those that come with querypose."
    )
    raise FileNotFoundError(f"There is no config file {name}. {hint}")


def find_config_file(config: str | os.PathLike[str]) -> Path:
    """The file of a config: a path, or else the name of a packaged config.

    Raises:
        FileNotFoundError: there is neither; the message suggests the closest names.
    """
    path = Path(config)
    return path if path.is_file() else packaged_config_file(path.as_posix())


def find_base_file(path: str) -> str:
    """The file that a config's ``_BASE_`` means: a path, or else the name of a packaged config.

    Args:
        path: as Detectron2 resolves it, relative to the folder of the config.

    Returns:
        The path itself where it is a file or an address, or no packaged config has its name.
    """
    if "://" in path or os.path.isfile(path):
        return path
    parts = Path(os.path.normpath(path)).parts
    ends = (Path(*parts[start:]) for start in range(len(parts)))
    packaged = (_folder() / end for end in ends if not end.is_absolute())
    return next((os.fspath(file) for file in packaged if file.is_file()), path)
