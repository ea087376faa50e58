"""The command line of the demo."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from querypose.cli.formats import Kind
from querypose.cli.inputs import Findings, Input, find_inputs
from querypose.cli.outputs import (
    WRITABLE_IMAGES,
    attention_target,
    check_targets,
    plan_outputs,
)
from querypose.cli.records import json_files
from querypose.cli.runner import Demo, DemoOptions, report
from querypose.cli.window import Window
from querypose.inference.predictor import PosePredictor
from querypose.visualization.visualizer import DRAWABLE

_GPU_BATCH_SIZE = 8

_EPILOG = """\
exit status: 0 all went well; 1 something was skipped; 2 it could not begin or not go on; 130
interrupted (a video then ends at that frame and the JSON holds what was seen).
"""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="querypose-demo", description="Finds and draws people's poses.", epilog=_EPILOG
    )
    _add_inputs_and_outputs(parser)
    _add_model(parser)
    _add_drawing(parser)
    return parser


def _add_inputs_and_outputs(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "input",
        nargs="*",
        help="images, animations, videos, folders or patterns; '-' reads one path a line from "
        "stdin",
    )
    parser.add_argument(
        "--webcam", nargs="?", type=int, const=0, metavar="N", help="look through webcam N (0)"
    )
    parser.add_argument(
        "--output",
        default="none",
        metavar="PATH",
        help="drawings: a folder, or a file for a single input, or none (none)",
    )
    parser.add_argument(
        "--save-json",
        default="",
        metavar="FILE.json",
        help="one line a frame; COCO's results go to FILE.coco.json",
    )
    parser.add_argument("--sheet", default="", metavar="FILE", help="a mosaic of all drawn images")
    parser.add_argument("--show", action="store_true", help="in a window; q quits")
    parser.add_argument(
        "--timing", action="store_true", help="print where the time went, a frame on average"
    )


def _add_model(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--config-file", help="of the model; default: the small model that comes with querypose"
    )
    parser.add_argument(
        "--weights", help="checkpoint, a file or its address; default: MODEL.WEIGHTS of the config"
    )
    parser.add_argument(
        "--device", help="cpu, cuda, cuda:1, ...; default: a GPU where there is one"
    )
    parser.add_argument(
        "--precision",
        choices=("fp32", "bf16", "fp16"),
        help="default: MODEL.INFERENCE.PRECISION of the config",
    )
    parser.add_argument(
        "--batch-size",
        type=int,
        help=f"images at once; default: {_GPU_BATCH_SIZE} on a GPU, 1 on a CPU",
    )
    parser.add_argument(
        "--confidence-threshold",
        type=float,
        help="people of a lower final score are left out; default: the config's "
        "DEMO.CONFIDENCE_THRESHOLD",
    )
    parser.add_argument(
        "--opts",
        nargs=argparse.REMAINDER,
        default=[],
        metavar="KEY VALUE",
        help="config keys and values; goes last",
    )


def _add_drawing(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--draw",
        type=_drawings,
        default=frozenset({"boxes", "skeleton", "scores"}),
        metavar="WHAT,...",
        help=f"of {', '.join(DRAWABLE)} and attention, which writes a further image for each "
        "image (boxes,skeleton,scores)",
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
        help="whose attention, from 1 by score; default: a row for everybody",
    )
    parser.add_argument(
        "--keypoint-threshold",
        type=float,
        help="keypoints that do not score higher are not drawn; default: the config's "
        "DEMO.KEYPOINT_THRESHOLD",
    )
    parser.add_argument(
        "--track",
        action=argparse.BooleanOptionalAction,
        help="keep people's ids and colors from frame to frame; default: in videos",
    )


def _drawings(text: str) -> frozenset[str]:
    wanted = frozenset(word.strip() for word in text.split(","))
    unknown = wanted - {*DRAWABLE, "attention"}
    if unknown:
        raise argparse.ArgumentTypeError(
            f"{', '.join(map(repr, sorted(unknown)))} cannot be drawn, "
            f"only {', '.join(DRAWABLE)}, attention"
        )
    return wanted


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the demo.

    Args:
        arguments: of the command line; None takes the process's own.

    Returns:
        The exit status: 0 all went well, 1 something was skipped, 2 it could not begin or not go
        on, 130 interrupted.
    """
    parser = _parser()
    args = parser.parse_args(arguments)
    # Detectron2 asks PyTorch a question whose answer newer versions of it comment on.
    logging.getLogger("torch.fx._symbolic_trace").setLevel(logging.ERROR)
    try:
        found = _find_inputs(args)
        for remark in found.remarks:
            report(remark)
        problem = _contradiction(args, found.inputs, found.problems)
        if problem:
            parser.error(problem)
        return _run(args, found.inputs, found.problems)
    except (ValueError, OSError, FloatingPointError) as error:
        report(str(error))
        return 2
    except torch.OutOfMemoryError:
        report("The GPU's memory does not suffice: lower --batch-size.")
        return 2
    except KeyboardInterrupt:
        return 130


def _find_inputs(args: argparse.Namespace) -> Findings:
    if args.webcam is not None and not args.input:
        return Findings([Input(Kind.WEBCAM, str(args.webcam))], [], [])
    return find_inputs(args.input, sys.stdin)


def _contradiction(
    args: argparse.Namespace, inputs: Sequence[Input], problems: Sequence[str]
) -> str:
    """What is wrong with the arguments; empty where nothing is."""
    attention = "attention" in args.draw
    writes = args.output not in ("", "none")
    if args.webcam is not None and args.input:
        return "--webcam goes alone, without files."
    if not inputs:
        return " ".join(problems) or "name images, videos or folders to look at, or --webcam."
    if not (writes or args.save_json or args.sheet or args.show):
        return "nothing would come of it: add --output, --save-json, --sheet or --show."
    if args.save_json and Path(args.save_json).suffix != ".json":
        return f"--save-json {args.save_json} must end with .json."
    if args.sheet and Path(args.sheet).suffix.lower() not in WRITABLE_IMAGES:
        return f"--sheet {args.sheet} must end with one of {', '.join(sorted(WRITABLE_IMAGES))}."
    if args.sheet and all(item.is_stream for item in inputs):
        return "--sheet shows images, and there are none among the inputs."
    if attention and not writes:
        return "--draw attention writes images: name a folder with --output."
    if attention and any(item.is_stream for item in inputs):
        stream = next(item.source for item in inputs if item.is_stream)
        return f"--draw attention is for images alone, and {stream} gives frames."
    if args.attention_person is not None and not (attention and args.attention_person > 0):
        return "--attention-person is a number from 1, and goes with --draw attention."
    return ""


def _plan(args: argparse.Namespace, inputs: Sequence[Input]) -> dict[Input, Path]:
    """Where every input's drawing goes, if all results have a place."""
    attention = "attention" in args.draw
    output = "" if args.output == "none" else args.output
    targets = plan_outputs(output, inputs, attention=attention)
    files = list(targets.values())
    if attention:
        files += map(attention_target, targets.values())
    if args.save_json:
        files += json_files(Path(args.save_json))
    if args.sheet:
        files.append(Path(args.sheet))
    check_targets(files, inputs)
    return targets


def _run(args: argparse.Namespace, inputs: Sequence[Input], problems: Sequence[str]) -> int:
    targets = _plan(args, inputs)
    window = Window() if args.show else None
    options = DemoOptions(
        save_json=args.save_json,
        sheet=args.sheet,
        window=window,
        draw=args.draw - {"attention"},
        attention="attention" in args.draw,
        attention_stage=args.attention_stage,
        attention_person=args.attention_person,
        keypoint_threshold=args.keypoint_threshold,
        track=args.track,
    )
    demo = Demo(_predictor(args), options)
    for problem in problems:
        demo.fail(problem)
    try:
        demo.run(inputs, targets)
    finally:
        if window is not None:
            window.close()
    if args.timing:
        report(f"{demo.num_frames} frames\n{demo.stopwatch.table(demo.num_frames)}")
    if demo.interruption.requested:
        return 130
    return 1 if demo.num_failures else 0


def _predictor(args: argparse.Namespace) -> PosePredictor:
    predictor = PosePredictor.from_config(
        args.config_file,
        weights=args.weights,
        opts=args.opts,
        device=args.device,
        confidence_threshold=args.confidence_threshold,
        precision=args.precision,
        batch_size=1 if args.batch_size is None else args.batch_size,
    )
    if args.batch_size is None and predictor.model.device.type != "cpu":
        predictor.batch_size = _GPU_BATCH_SIZE
    return predictor
