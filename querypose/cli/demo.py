"""The demo: finds people in images, folders, videos and webcams."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from querypose.cli.arguments import GPU_BATCH_SIZE, build_parser, find_contradiction
from querypose.cli.formats import Kind
from querypose.cli.inputs import FoundInputs, Input, find_inputs
from querypose.cli.options import EXTRAS, DemoOptions
from querypose.cli.outputs import check_targets, extra_target, plan_outputs
from querypose.cli.progress import report
from querypose.cli.records import json_files
from querypose.cli.runner import Demo
from querypose.cli.window import Window
from querypose.inference.predictor import PosePredictor


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
    # Newer versions of PyTorch log a remark on a function that Detectron2 calls.
    logging.getLogger("torch.fx._symbolic_trace").setLevel(logging.ERROR)
    try:
        found = _find_inputs(args)
        for remark in found.remarks:
            report(remark)
        contradiction = find_contradiction(args, found.inputs, found.problems)
        if contradiction:
            parser.error(contradiction)
        return _run(args, found.inputs, found.problems)
    except (ValueError, OSError, FloatingPointError) as error:
        report(str(error))
        return 2
    except torch.OutOfMemoryError:
        report("The memory of the GPU is too small: lower --batch-size.")
        return 2
    except KeyboardInterrupt:
        return 130


def _find_inputs(args: argparse.Namespace) -> FoundInputs:
    if args.webcam is not None and not args.input:
        return FoundInputs([Input(Kind.WEBCAM, str(args.webcam))], [], [])
    return find_inputs(args.input, sys.stdin)


def _run(args: argparse.Namespace, inputs: Sequence[Input], problems: Sequence[str]) -> int:
    targets = _plan_targets(args, inputs)
    window = Window() if args.show else None
    options = DemoOptions(
        save_json=args.save_json,
        sheet=args.sheet,
        window=window,
        draw=args.draw - set(EXTRAS),
        extras=args.draw & set(EXTRAS),
        attention_stage=args.attention_stage,
        attention_person=args.attention_person,
        keypoint_threshold=args.keypoint_threshold,
        track=args.track,
    )
    demo = Demo(_build_predictor(args), options)
    progress = demo.progress
    for problem in problems:
        progress.fail(problem)
    try:
        demo.run(inputs, targets)
    finally:
        if window is not None:
            window.close()
    if args.timing:
        report(f"{progress.num_frames} frames\n{progress.stopwatch.table(progress.num_frames)}")
    if progress.interruption.requested:
        return 130
    return 1 if progress.num_failures else 0


def _plan_targets(args: argparse.Namespace, inputs: Sequence[Input]) -> dict[Input, Path]:
    """Where the drawing of each input goes; checks that every result can be written."""
    extras = sorted(args.draw & set(EXTRAS))
    output = "" if args.output == "none" else args.output
    targets = plan_outputs(output, inputs, extras=extras)
    files = list(targets.values())
    files += [extra_target(target, extra) for target in targets.values() for extra in extras]
    if args.save_json:
        files += json_files(Path(args.save_json))
    if args.sheet:
        files.append(Path(args.sheet))
    check_targets(files, inputs)
    return targets


def _build_predictor(args: argparse.Namespace) -> PosePredictor:
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
        predictor.batch_size = GPU_BATCH_SIZE
    return predictor
