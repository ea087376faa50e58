"""The arguments by which commands take a config and options."""

from __future__ import annotations

import argparse


def add_config_file(parser: argparse.ArgumentParser, meaning: str) -> None:
    """Adds ``--config-file``.

    Args:
        parser: of the command.
        meaning: what the config does for the command, or what is taken without one.
    """
    parser.add_argument(
        "--config-file",
        metavar="FILE",
        help=f"a file, or a name that `python -m querypose configs` lists; {meaning}",
    )


def add_config_options(parser: argparse.ArgumentParser) -> None:
    """Adds ``--opts``, which takes all that follow."""
    parser.add_argument(
        "--opts",
        nargs=argparse.REMAINDER,
        default=[],
        metavar="KEY VALUE",
        help="config keys and values; must come last",
    )
