"""The commands of the package; ``python -m querypose`` lists and runs them."""

from __future__ import annotations

import difflib
import importlib
import sys
from collections.abc import Sequence
from typing import NamedTuple

from querypose.config import config_names


class Command(NamedTuple):
    """A command.

    Attributes:
        summary: what it does, in one line.
        module: where its ``main`` is; it may be one that needs packages of an extra.
    """

    summary: str
    module: str


COMMANDS = {
    "demo": Command("draw poses on photos, videos and webcams", "querypose.cli.demo"),
    "predict": Command("predict large collections of images", "querypose.cli.predict"),
    "train": Command("train a model of a config", "querypose.cli.train"),
    "eval": Command("evaluate a trained model on datasets", "querypose.cli.evaluate"),
    "export": Command("export a model to ONNX", "querypose.cli.export"),
    "check": Command("find mistakes in a dataset", "querypose.tools.check_dataset"),
}
"""Also installed as scripts, ``querypose-demo`` and so on."""

TOOLS = {
    "configs": Command("list the configs that come with querypose", __name__),
    "keys": Command("explain the configuration keys", "querypose.tools.config_keys"),
    "benchmark": Command("time the parts of a model", "querypose.tools.benchmark.__main__"),
    "compare_trainings": Command(
        "train several configs alike and compare them",
        "querypose.tools.compare_trainings.__main__",
    ),
    "compare_onnx": Command("compare ONNX files with their model", "querypose.tools.compare_onnx"),
    "export_weights": Command(
        "write only the weights of a checkpoint", "querypose.tools.export_weights"
    ),
    "score_quality": Command(
        "measure how well scores predict the OKS", "querypose.tools.score_quality"
    ),
    "score_threshold": Command(
        "print precision and recall above scores", "querypose.tools.score_threshold"
    ),
}
"""Run by ``python -m querypose NAME`` alone."""


def main(arguments: Sequence[str]) -> None:
    """Lists the packaged configs."""
    if arguments:
        sys.exit("usage: python -m querypose configs")
    print(*config_names(), sep="\n")


def _listing() -> str:
    lines = ["usage: python -m querypose COMMAND ...; COMMAND --help tells its arguments.", ""]
    for commands, prefix in ((COMMANDS, "querypose-"), (TOOLS, "")):
        lines += [
            f"  {name:<16}{f'{prefix}{name}' if prefix else '':<20}{command.summary}"
            for name, command in commands.items()
        ]
    return "\n".join(lines)


def run(arguments: Sequence[str]) -> int | None:
    """Runs the command that the first argument names with the others; lists all without one.

    Returns:
        The exit status of the command, or None for success.

    Raises:
        SystemExit: no command has the name, or the command ends so.
    """
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(_listing())
        return None
    name, *rest = arguments
    known = COMMANDS | TOOLS
    if name not in known:
        close = difflib.get_close_matches(name, known, n=1)
        meant = f"Did you mean {close[0]}?" if close else f"Commands are {', '.join(known)}."
        sys.exit(f"querypose: There is no command {name!r}. {meant}")
    sys.argv[0] = f"querypose-{name}"
    return importlib.import_module(known[name].module).main(rest)
