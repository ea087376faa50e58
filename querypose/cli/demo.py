"""The command ``querypose-demo``: finds people in images, folders, videos, webcams, or on a page.

What is wrong with the arguments is said before PyTorch is loaded.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence
from pathlib import Path

from querypose.cli.arguments import (
    build_parser,
    check_model_files,
    drawings_path,
    find_contradiction,
)
from querypose.cli.formats import Kind
from querypose.cli.inputs import FoundInputs, Input, find_inputs
from querypose.cli.outputs import check_targets, extra_target, json_files, plan_outputs
from querypose.cli.progress import report
from querypose.cli.web.arguments import DEFAULT_HOST, DEFAULT_PORT, check_page_possible
from querypose.drawable import EXTRAS


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the demo.

    Args:
        arguments: of the command line; None takes those of the process.

    Returns:
        The exit status: 0 success, 1 an input was skipped or a result could not be written, 2 the
        demo could not start or continue, 130 interrupted.
    """
    parser = build_parser()
    args = parser.parse_args(arguments)
    try:
        found = _find_inputs(args)
        for remark in found.remarks:
            report(remark)
        contradiction = find_contradiction(args, found.inputs, found.problems)
        if contradiction:
            parser.error(contradiction)
        check_model_files(args)
        if args.web:
            return _serve(args)
        targets = _plan_targets(args, found.inputs)
        _load_package()
        from querypose.cli.work import find_people

        return find_people(args, found, targets)
    except (ValueError, OSError, FloatingPointError, ModuleNotFoundError) as error:
        report(str(error))
        return 2
    except KeyboardInterrupt:
        return 130


def _serve(args: argparse.Namespace) -> int:
    host, port = args.host or DEFAULT_HOST, DEFAULT_PORT if args.port is None else args.port
    check_page_possible(host, port)
    _load_package()
    from querypose.cli.web.server import serve

    return serve(args, host, port)


def _load_package() -> None:
    """Loads PyTorch, which takes seconds, and Detectron2 without its warnings."""
    importlib.import_module("querypose.plugin")


def _find_inputs(args: argparse.Namespace) -> FoundInputs:
    if args.webcam is not None and not args.input:
        return FoundInputs([Input(Kind.WEBCAM, str(args.webcam))], [], [])
    return find_inputs(args.input, sys.stdin)


def _plan_targets(args: argparse.Namespace, inputs: Sequence[Input]) -> dict[Input, Path]:
    """Where the drawing of each input goes; checks that every result can be written."""
    extras = sorted(args.draw & set(EXTRAS))
    targets = plan_outputs(drawings_path(args), inputs, extras=extras)
    files = list(targets.values())
    files += [extra_target(target, extra) for target in targets.values() for extra in extras]
    if args.save_json:
        files += json_files(Path(args.save_json))
    if args.sheet:
        files.append(Path(args.sheet))
    check_targets(files, inputs)
    return targets


if __name__ == "__main__":
    sys.exit(main())
