"""Runs the demo on arguments that were checked."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from querypose.cli.arguments import GPU_BATCH_SIZE
from querypose.cli.inputs import FoundInputs, Input
from querypose.cli.options import DemoOptions
from querypose.cli.progress import report
from querypose.cli.runner import Demo
from querypose.cli.window import Window
from querypose.drawable import EXTRAS
from querypose.freed_memory import keep_freed_memory
from querypose.plugin import PosePredictor
from querypose.printing import print_text

_MOST_NAMED = 4


def find_people(args: argparse.Namespace, found: FoundInputs, targets: Mapping[Input, Path]) -> int:
    """Predicts, and writes and shows what the arguments ask for.

    Args:
        args: of the command line, free of contradictions.
        found: what ``args.input`` names.
        targets: where the drawings of inputs go.

    Returns:
        The exit status, see :func:`querypose.cli.demo.main`.

    Raises:
        ValueError, OSError, FloatingPointError: the demo cannot start or continue.
    """
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
    try:
        demo = Demo(build_predictor(args), options)
        for problem in found.problems:
            demo.progress.fail(problem)
        demo.run(found.inputs, targets)
    except torch.cuda.OutOfMemoryError:
        report("The memory of the GPU is too small: lower --batch-size.")
        return 2
    finally:
        if window is not None:
            window.close()
    progress = demo.progress
    report_written(progress.written)
    if args.timing:
        report(f"{progress.num_frames} frames\n{progress.stopwatch.table(progress.num_frames)}")
    if progress.interruption.requested:
        return 130
    return 1 if progress.num_failures else 0


def build_predictor(args: argparse.Namespace) -> PosePredictor:
    """The predictor that the arguments name."""
    keep_freed_memory()
    # Newer versions of PyTorch log a remark on a function that Detectron2 calls.
    logging.getLogger("torch.fx._symbolic_trace").setLevel(logging.ERROR)
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


def report_written(files: Sequence[Path]) -> None:
    """Says where the results are: each file of a few, the folders of many."""
    if len(files) > _MOST_NAMED:
        folders = ", ".join(dict.fromkeys(f"{file.parent}/" for file in files))
        print_text(f"Written: {len(files)} files in {folders}")
    elif files:
        print_text(f"Written: {', '.join(map(str, files))}")
