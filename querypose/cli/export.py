"""Exports a trained model to ONNX.

Examples:
    querypose-export --output lite0.onnx
    querypose-export --weights model_final.pth --output model.onnx --max-people 30
    querypose-export --config-file coco/querypose_swin_t_light_6x --weights model.pth \\
        --output model.onnx --size 800 1216
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from querypose.cli.formats import Kind
from querypose.cli.inputs import Input
from querypose.cli.outputs import check_targets
from querypose.config_arguments import add_config_file, add_config_options
from querypose.printing import print_text


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command, by default with the arguments of the process."""
    parser = _build_parser()
    args = parser.parse_args(arguments)
    try:
        inputs = [Input(Kind.IMAGE, args.weights)] if args.weights else []
        check_targets([Path(args.output)], inputs)
        # Not before the arguments are known to be right: PyTorch takes seconds to load.
        from querypose.export import export_onnx

        report = export_onnx(
            args.output,
            config=args.config_file,
            weights=args.weights,
            opts=args.opts,
            max_people=args.max_people,
            precision=args.precision,
            size=None if args.size is None else tuple(args.size),
            input_type=args.input_type,
        )
    except (ImportError, OSError, ValueError) as error:
        sys.exit(f"{parser.prog}: {error}")
    difference = report.difference
    print_text(
        f"{report.path}: {report.num_bytes / 1e6:.1f} MB. onnx.checker finds no fault. On a "
        f"generated image it differs from PyTorch by {difference.pixels:.2g} pixels and "
        f"{difference.scores:.2g} of a score at most, over {difference.people} people."
    )


def _build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="querypose-export",
        description="Exports a trained model to ONNX.",
        epilog=(__doc__ or "").partition("\n\n")[2],
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_config_file(
        parser,
        "default: what the weights say, or without weights the packaged model",
    )
    parser.add_argument("--weights", help="path or URL of a checkpoint")
    parser.add_argument("--output", required=True, metavar="FILE.onnx")
    parser.add_argument(
        "--max-people", type=int, default=20, metavar="N", help="found in an image at most (20)"
    )
    parser.add_argument(
        "--precision",
        choices=("fp32", "fp16", "int8"),
        default="fp32",
        help="fp16 stores weights in half precision, int8 those of matrix products as integers",
    )
    parser.add_argument(
        "--size",
        nargs=2,
        type=int,
        metavar=("HEIGHT", "WIDTH"),
        help="of all images in pixels; default: any, which some backbones cannot",
    )
    parser.add_argument(
        "--input-type", choices=("uint8", "float32"), default="uint8", help="of the images (uint8)"
    )
    add_config_options(parser)
    return parser
