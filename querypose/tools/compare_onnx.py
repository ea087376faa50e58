"""Compares ONNX files with their model: size, answers and time, all in one run.

Examples:
    python -m querypose compare_onnx lite0.onnx lite0_fp16.onnx lite0_int8.onnx
    python -m querypose compare_onnx model.onnx --weights model_final.pth --images photos/*.jpg
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import torch
from detectron2.structures import Instances

from querypose.inference.predictor import PosePredictor
from querypose.synthetic import SyntheticPeople, render

_NUM_GENERATED, _SIZE = 6, (512, 384)


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command, by default with the arguments of the process."""
    args = _build_parser().parse_args(argv)
    try:
        _run(args)
    except (ImportError, OSError, ValueError) as error:
        sys.exit(f"compare_onnx: {error}")


@torch.no_grad()
def _run(args: argparse.Namespace) -> None:
    from querypose.export import OnnxDetector
    from querypose.export.verification import batch_of, compare

    predictor = PosePredictor.from_config(args.config_file, weights=args.weights, device="cpu")
    threshold = {"score_threshold": predictor.confidence_threshold}
    inputs = [predictor.prepare(image, "RGB") | threshold for image in args.images or _generated()]
    runs: dict[str, Callable[..., Any]] = {"PyTorch": predictor.model}
    runs |= {path: OnnxDetector(path) for path in args.files}
    expected = [batch_of(_people(predictor.model, given)) for given in inputs]
    times = _times(runs, inputs, args.rounds)
    print(
        f"{len(inputs)} images, {sum(int(each.valid.sum()) for each in expected)} people, "
        f"{torch.get_num_threads()} threads"
    )
    print("| | MB | keypoints differ by, pixels | scores differ by | ms per image |")
    print("|---|---|---|---|---|")
    print(f"| PyTorch | | | | {times['PyTorch']:.0f} |")
    for path in args.files:
        differences = [
            compare(batch_of(_people(runs[path], given)), reference)
            for given, reference in zip(inputs, expected, strict=True)
        ]
        print(
            f"| {Path(path).name} | {Path(path).stat().st_size / 1e6:.1f} "
            f"| {max(each.pixels for each in differences):.3g} "
            f"| {max(each.scores for each in differences):.2g} | {times[path]:.0f} |"
        )


def _times(
    runs: dict[str, Callable[..., Any]], inputs: Sequence[dict[str, Any]], rounds: int
) -> dict[str, float]:
    """Medians in milliseconds; all take their turns with every image."""
    taken: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(rounds + 1):
        for given in inputs:
            for name, run in runs.items():
                start = time.perf_counter()
                run([given])
                if turn:
                    taken[name].append(1000 * (time.perf_counter() - start))
    return {name: median(values) for name, values in taken.items()}


def _people(run: Callable[..., Any], given: dict[str, Any]) -> Instances:
    return run([given])[0]["instances"]


def _generated() -> list[Any]:
    people = SyntheticPeople(_NUM_GENERATED, seed=0, image_size=_SIZE)
    return [render(people.scene(index)) for index in range(_NUM_GENERATED)]


def _build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m querypose compare_onnx",
        description="Compares ONNX files with their model.",
        epilog=(__doc__ or "").partition("\n\n")[2],
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("files", nargs="+", metavar="FILE.onnx")
    parser.add_argument("--config-file", help="as for querypose-export")
    parser.add_argument("--weights", help="as for querypose-export")
    parser.add_argument("--images", nargs="+", default=[], help="default: generated ones")
    parser.add_argument("--rounds", type=int, default=5, help="timed rounds over all images (5)")
    return parser


if __name__ == "__main__":
    main()
