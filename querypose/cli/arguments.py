"""The command line arguments of the demo, and which of them exclude each other."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from querypose import drawable
from querypose.cli.inputs import Input
from querypose.cli.outputs import WRITABLE_IMAGES
from querypose.cli.web.arguments import add_web_arguments, find_web_contradiction
from querypose.config_arguments import add_config_file, add_config_options
from querypose.config_files import find_config_file
from querypose.drawable import EXTRAS

GPU_BATCH_SIZE = 8

_DEFAULT_OUTPUT = "poses/"

_EPILOG = """\
exit status: 0 success; 1 an input was skipped or a result could not be written; 2 the demo could
not start or continue; 130 interrupted (a video then ends at that frame, and the JSON holds the
frames so far).
"""


def build_parser() -> argparse.ArgumentParser:
    """The parser of the command line."""
    parser = argparse.ArgumentParser(
        prog="querypose-demo",
        description="Finds people in images and videos and draws their poses.",
        epilog=_EPILOG,
    )
    _add_inputs_and_outputs(parser)
    add_model_arguments(parser)
    _add_drawing(parser)
    add_web_arguments(parser)
    return parser


def _add_inputs_and_outputs(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "input",
        nargs="*",
        help="images, animations, videos, folders or patterns; '-' reads paths from stdin, one a "
        "line",
    )
    parser.add_argument(
        "--webcam", nargs="?", type=int, const=0, metavar="N", help="read webcam N (0)"
    )
    parser.add_argument(
        "--output",
        metavar="PATH",
        help="where drawings go: a folder, a file if there is one input, or none; default: "
        f"{_DEFAULT_OUTPUT}, or none where --save-json, --sheet or --show asks for another result",
    )
    parser.add_argument(
        "--save-json",
        default="",
        metavar="FILE.json",
        help="one line a frame; results in COCO's format go to FILE.coco.json",
    )
    parser.add_argument("--sheet", default="", metavar="FILE", help="a mosaic of all drawn images")
    parser.add_argument("--show", action="store_true", help="show drawings in a window; q quits")
    parser.add_argument(
        "--timing", action="store_true", help="print the mean time of each step per frame"
    )


def add_model_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments that say how to predict; ``--opts`` among them takes all that follow."""
    add_config_file(
        parser, "default: what the weights say, or the small model that comes with querypose"
    )
    parser.add_argument(
        "--weights", help="path or URL of a checkpoint; default: MODEL.WEIGHTS of the config"
    )
    parser.add_argument(
        "--device",
        help="cpu, cuda, cuda:1, ...; default: MODEL.DEVICE, or the CPU if there is no GPU",
    )
    parser.add_argument(
        "--precision",
        choices=("fp32", "bf16", "fp16"),
        help="default: MODEL.INFERENCE.PRECISION of the config",
    )
    parser.add_argument(
        "--batch-size",
        type=int,
        help=f"images per batch; default: {GPU_BATCH_SIZE} on a GPU, 1 on a CPU",
    )
    parser.add_argument(
        "--confidence-threshold",
        type=float,
        help="people with a lower score are left out; default: DEMO.CONFIDENCE_THRESHOLD of the "
        "config",
    )
    add_config_options(parser)


def _add_drawing(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--draw",
        type=_parse_drawings,
        default=drawable.DEFAULT,
        metavar="WHAT,...",
        help=f"some of {', '.join(drawable.PERSON)}, and of {', '.join(EXTRAS)}, which write files "
        "of their own for every image (boxes,skeleton)",
    )
    parser.add_argument(
        "--attention-stage",
        type=int,
        default=-1,
        metavar="N",
        help="decoder stage of the attention, from 0 (last)",
    )
    parser.add_argument(
        "--attention-person",
        type=int,
        metavar="N",
        help="draw the attention of one person, from 1 by falling score; default: of everybody",
    )
    parser.add_argument(
        "--keypoint-threshold",
        type=float,
        help="keypoints that do not score higher are not drawn; default: DEMO.KEYPOINT_THRESHOLD "
        "of the config",
    )
    parser.add_argument(
        "--track",
        action=argparse.BooleanOptionalAction,
        help="keep the ids and colors of people from frame to frame; default: in videos",
    )


def _parse_drawings(text: str) -> frozenset[str]:
    wanted = frozenset(word.strip() for word in text.split(","))
    known = (*drawable.PERSON, *EXTRAS)
    unknown = wanted - {*known}
    if unknown:
        raise argparse.ArgumentTypeError(
            f"{', '.join(map(repr, sorted(unknown)))} cannot be drawn, only {', '.join(known)}"
        )
    return wanted


def drawings_path(args: argparse.Namespace) -> str:
    """Where drawings go; "" for nowhere."""
    if args.output is None:
        return "" if args.save_json or args.sheet or args.show else _DEFAULT_OUTPUT
    return "" if args.output == "none" else args.output


def find_contradiction(
    args: argparse.Namespace, inputs: Sequence[Input], problems: Sequence[str]
) -> str:
    """What is wrong with the arguments, in one sentence; "" if nothing is.

    Args:
        args: parsed arguments.
        inputs: what ``args.input`` names.
        problems: a sentence for each argument that names no input.
    """
    if args.web:
        return find_web_contradiction(args)
    if args.model or args.host is not None or args.port is not None:
        return "--model, --host and --port are for --web."
    extra = next((name for name in EXTRAS if name in args.draw), None)
    writes_drawings = bool(drawings_path(args))
    if args.webcam is not None and args.input:
        return "--webcam cannot be combined with files."
    if not inputs:
        return " ".join(problems) or "name images, videos or folders, or pass --webcam or --web."
    if not (writes_drawings or args.save_json or args.sheet or args.show):
        return "no result is asked for: add --output, --save-json, --sheet or --show."
    if args.save_json and Path(args.save_json).suffix != ".json":
        return f"--save-json {args.save_json} must end with .json."
    if args.sheet and Path(args.sheet).suffix.lower() not in WRITABLE_IMAGES:
        return f"--sheet {args.sheet} must end with one of {', '.join(sorted(WRITABLE_IMAGES))}."
    if args.sheet and all(item.is_stream for item in inputs):
        return "--sheet shows images, and there are none among the inputs."
    if extra and not writes_drawings:
        return f"--draw {extra} writes images: name a folder with --output."
    if extra and any(item.is_stream for item in inputs):
        stream = next(item for item in inputs if item.is_stream)
        name = f"{stream.kind.value} {stream.source}"
        return f"--draw {extra} works on images only, not on the {name}."
    if args.attention_person is not None and not (
        "attention" in args.draw and args.attention_person > 0
    ):
        return "--attention-person is a number from 1 and needs --draw attention."
    return ""


def check_model_files(args: argparse.Namespace) -> None:
    """Checks the files of every model of the demo, see :func:`check_model`.

    Raises:
        FileNotFoundError: one does not exist.
    """
    check_model(args.config_file, args.weights)
    for model in args.model:
        check_model(model.config, model.weights)


def check_model(config: str | None, weights: str | None) -> None:
    """Checks that a config exists, and weights if they are a local file.

    Raises:
        FileNotFoundError: one does not.
    """
    if config:
        find_config_file(config)
    # Weights may also have an address.
    if weights and "://" not in weights and not Path(weights).is_file():
        raise FileNotFoundError(f"There are no weights {weights}.")
