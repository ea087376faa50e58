"""Explains the configuration keys that the package adds: ``python -m querypose keys``."""

from __future__ import annotations

import argparse
import linecache
import sys
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple
from unittest.mock import patch

from detectron2.config import CfgNode, get_cfg

from querypose.config import add_querypose_config

_INTRODUCTION = """\
# Configuration keys

These keys are added to those of Detectron2, which its own documentation explains. Any of them may
stand in a config file, as `KEY VALUE` behind `querypose-train`, and behind `--opts` of the other
commands. `python -m querypose keys` prints this page.
"""


class KeyGroup(NamedTuple):
    """Keys that one comment explains.

    Attributes:
        comment: one paragraph; empty if there is none.
        defaults: their values by full name.
    """

    comment: str
    defaults: dict[str, Any]


def added_keys() -> list[KeyGroup]:
    """The keys of :func:`querypose.config.add_querypose_config`, in the order of their sections."""
    lines: dict[tuple[int, str], tuple[str, int]] = {}
    set_key = CfgNode.__setattr__

    def recording(node: CfgNode, name: str, value: Any) -> None:
        caller = sys._getframe(1)
        lines[id(node), name] = (caller.f_code.co_filename, caller.f_lineno)
        set_key(node, name, value)

    cfg = get_cfg()
    with patch.object(CfgNode, "__setattr__", recording):
        add_querypose_config(cfg)
    groups: dict[tuple[str, int], KeyGroup] = {}
    for node, name, full_name in sorted(_leaves(cfg), key=lambda leaf: leaf[2].rpartition(".")[0]):
        if (id(node), name) in lines:
            place, comment = _comment_above(*lines[id(node), name])
            groups.setdefault(place, KeyGroup(comment, {})).defaults[full_name] = node[name]
    return list(groups.values())


def _leaves(node: CfgNode, prefix: str = "") -> Iterator[tuple[CfgNode, str, str]]:
    for name, value in node.items():
        if isinstance(value, CfgNode):
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield node, name, prefix + name


def _comment_above(file: str, number: int) -> tuple[tuple[str, int], str]:
    """The place and the text of the comment that explains a line: the closest one above it.

    It explains every line down to the next comment or empty line.
    """
    lines = [line.strip() for line in linecache.getlines(file)]
    end = number - 1
    while lines[end - 1] and not lines[end - 1].startswith(("#", "def ", '"""')):
        end -= 1
    start = end
    while lines[start - 1].startswith("#"):
        start -= 1
    return (file, start), " ".join(line.lstrip("# ") for line in lines[start:end])


def reference() -> str:
    """All added keys as a page of Markdown."""
    sections: dict[str, list[str]] = {}
    for comment, defaults in added_keys():
        keys = "<br>".join(f"`{name}`" for name in defaults)
        values = "<br>".join(f"`{value!r}`" for value in defaults.values())
        row = f"| {keys} | {values} | {comment.replace('|', chr(92) + '|')} |"
        sections.setdefault(_section(next(iter(defaults))), []).append(row)
    tables = [
        "\n".join([f"## {section}\n", "| key | default | meaning |", "|---|---|---|", *rows])
        for section, rows in sections.items()
    ]
    return "\n\n".join([_INTRODUCTION.strip(), *tables]) + "\n"


def _section(full_name: str) -> str:
    """MODEL.QUERYPOSE of "MODEL.QUERYPOSE.DENOISING.NUM_QUERIES, and MODEL of MODEL.SKELETON."""
    return ".".join(full_name.split(".")[:-1][:2])


def main(command_line: Sequence[str] | None = None) -> None:
    """Prints the page."""
    parser = argparse.ArgumentParser(
        prog="python -m querypose keys",
        description="Print the configuration keys that the package adds, with their meaning.",
    )
    parser.parse_args(command_line)
    print(reference(), end="")


if __name__ == "__main__":
    main()
