"""The model that comes with the package, its weights and its card (README.md)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from detectron2.utils.file_io import PathHandler, PathManager

_FOLDER = Path(__file__).parent
PREFIX = "querypose://"

CONFIG_FILE = _FOLDER / "lite0.yaml"
"""What the shipped weights were trained as; its ``MODEL.WEIGHTS`` names them."""


class ModelZooHandler(PathHandler):
    """Opens ``querypose://lite0.pth``, a file beside this one."""

    def _get_supported_prefixes(self) -> list[str]:
        return [PREFIX]

    def _get_local_path(self, path: str, force: bool = False, **kwargs: Any) -> str:
        return str(_FOLDER / path.removeprefix(PREFIX))

    def _open(self, path: str, mode: str = "r", buffering: int = -1, **kwargs: Any) -> Any:
        return open(self._get_local_path(path), mode, buffering, **kwargs)

    def _exists(self, path: str, **kwargs: Any) -> bool:
        return Path(self._get_local_path(path)).exists()

    def _isfile(self, path: str, **kwargs: Any) -> bool:
        return Path(self._get_local_path(path)).is_file()


PathManager.register_handler(ModelZooHandler(), allow_override=True)
