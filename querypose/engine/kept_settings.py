"""Settings that must not change while work that takes several runs goes on."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from querypose.atomic_files import replace_file
from querypose.engine.resumed_settings import Settings


def begin_or_continue(file: Path, settings: Settings) -> None:
    """Compares settings with those of the first run, or writes them if this is the first.

    Settings that this or the first run does not know are not compared: another version of the
    package may have others. New ones are added to the file.

    Args:
        file: where they are kept.
        settings: plain values by name.

    Raises:
        ValueError: they differ, or the file holds none.
    """
    settings = json.loads(json.dumps(settings))
    begun = _read(file) if file.is_file() else {}
    changed = [name for name in settings if settings[name] != begun.get(name, settings[name])]
    if changed:
        name, more = changed[0], f" ({len(changed) - 1} more differ)" if len(changed) > 1 else ""
        raise ValueError(
            f"{file.parent} was begun with other settings: {name} is {_shown(settings, name)}, but "
            f"was {_shown(begun, name)}{more}; set it back to continue, or name another output "
            "folder."
        )
    if begun and not begun.keys() & settings.keys():
        raise ValueError(_no_settings(file))
    if settings.keys() - begun.keys():
        text = json.dumps({**begun, **settings}, indent=1)
        replace_file(file, lambda target: target.write(text.encode()))


def digest_of(path: str) -> str:
    """What stands for the content of a file among settings, wherever the file is."""
    with open(path, "rb") as file:
        return hashlib.sha256(file.read()).hexdigest()


def _read(file: Path) -> Settings:
    try:
        settings = dict(json.loads(file.read_text()))
    except (ValueError, TypeError) as error:
        raise ValueError(_no_settings(file)) from error
    if not settings:
        raise ValueError(_no_settings(file))
    return settings


def _no_settings(file: Path) -> str:
    return f"{file} holds no settings: name another output folder."


def _shown(settings: Settings, name: str) -> str:
    return f"{settings.get(name)!r:.80}"
