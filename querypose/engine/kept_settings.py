"""Settings that must not change while work that takes several runs goes on."""

from __future__ import annotations

import json
from pathlib import Path

from querypose.atomic_files import replace_file
from querypose.engine.resumed_settings import Settings


def begin_or_continue(file: Path, settings: Settings) -> None:
    """Compares settings with those of the first run, or writes them if this is the first.

    Args:
        file: where they are kept.
        settings: plain values by name.

    Raises:
        ValueError: they differ, or the file holds none.
    """
    settings = json.loads(json.dumps(settings))
    if not file.is_file():
        text = json.dumps(settings, indent=1)
        replace_file(file, lambda target: target.write(text.encode()))
        return
    try:
        begun = dict(json.loads(file.read_text()))
    except (ValueError, TypeError) as error:
        raise ValueError(f"{file} holds no settings: name another output folder.") from error
    changed = [name for name in {**settings, **begun} if settings.get(name) != begun.get(name)]
    if changed:
        name, more = changed[0], f" ({len(changed) - 1} more differ)" if len(changed) > 1 else ""
        raise ValueError(
            f"{file.parent} was begun with other settings: {name} is {_shown(settings, name)}, but "
            f"was {_shown(begun, name)}{more}; set it back to continue, or name another output "
            "folder."
        )


def _shown(settings: Settings, name: str) -> str:
    return f"{settings.get(name)!r:.80}"
