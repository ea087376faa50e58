"""The command line arguments of the page, and what is wrong with them."""

from __future__ import annotations

import argparse
import importlib.util
import socket
from pathlib import Path
from typing import NamedTuple

from querypose.drawable import EXTRAS

DEFAULT_HOST, DEFAULT_PORT = "127.0.0.1", 7860

_PACKAGED = "small QueryPose, comes with the package"
# Arguments that say what becomes of files, and their values if they are not given.
_OF_FILES = {
    "webcam": None,
    "output": None,
    "save_json": "",
    "sheet": "",
    "show": False,
    "timing": False,
    "batch_size": None,
    "attention_stage": -1,
    "attention_person": None,
    "track": None,
}


class NamedModel(NamedTuple):
    """A model that the page offers beside the first one.

    Attributes:
        name: what the page calls it.
        weights: path or URL.
        config: a file or a name; None takes what the weights say.
    """

    name: str
    weights: str
    config: str | None


def add_web_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds ``--web`` and what belongs to it."""
    group = parser.add_argument_group("a page in the browser instead of files")
    group.add_argument(
        "--web",
        action="store_true",
        help="serve a page on this machine that takes photos and webcam snapshots; needs Gradio",
    )
    group.add_argument(
        "--model",
        action="append",
        type=_parse_model,
        default=[],
        metavar="NAME=WEIGHTS[,CONFIG]",
        help="offer another model, too; CONFIG where the weights do not say it. May be repeated",
    )
    group.add_argument("--host", help=f"address to listen on ({DEFAULT_HOST}: this machine alone)")
    group.add_argument("--port", type=int, help=f"port to listen on ({DEFAULT_PORT})")


def _parse_model(text: str) -> NamedModel:
    name, equals, rest = text.partition("=")
    weights, comma, config = rest.partition(",")
    if not (name and equals and weights) or (comma and not config):
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form NAME=WEIGHTS[,CONFIG]")
    return NamedModel(name, weights, config or None)


def first_name(args: argparse.Namespace) -> str:
    """What the page calls the model of ``--config-file`` and ``--weights``."""
    named = args.weights or args.config_file
    return Path(named).stem if named else _PACKAGED


def find_web_contradiction(args: argparse.Namespace) -> str:
    """What is wrong with the arguments if ``--web`` is there, in one sentence; "" if nothing is."""
    if args.input:
        return "--web takes its images from the browser: leave the files out."
    for name, default in _OF_FILES.items():
        if getattr(args, name) != default:
            return f"--{name.replace('_', '-')} is for files and streams, not for --web."
    extra = next((name for name in EXTRAS if name in args.draw), None)
    if extra:
        return f"--draw {extra} is for files: the page shows it of every model that has it."
    names = [first_name(args), *(model.name for model in args.model)]
    twice = next((name for name in names if names.count(name) > 1), None)
    return f"Two models are called {twice!r}: name one otherwise." if twice else ""


def check_page_possible(host: str, port: int) -> None:
    """Checks that Gradio is there and the address is free.

    Raises:
        ModuleNotFoundError: there is no Gradio.
        OSError: another program listens there, or this machine has no such address.
    """
    if importlib.util.find_spec("gradio") is None:
        raise ModuleNotFoundError("--web needs Gradio: pip install 'querypose[web]' or gradio.")
    try:
        with socket.create_server((host, port)):
            pass
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise OSError(
            f"The page cannot listen on {host}:{port} ({reason}): name another --port or --host."
        ) from error
