"""Predicts the people of large collections of images.

Examples:
    querypose-predict photos/ --output predicted/
    querypose-predict keypoints_coco_2017_val --output predicted/ --weights model_final.pth
    torchrun --nproc-per-node 8 -m querypose predict photos/ --output predicted/
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from querypose.cli.arguments import add_model_arguments, check_model
from querypose.cli.formats import Kind
from querypose.cli.inputs import Input
from querypose.cli.outputs import check_targets, collection_files

if TYPE_CHECKING:
    from detectron2.config import CfgNode

_SHARD_SIZE = 100

_EPILOG = """\
A stopped or killed run continues when the same command is given again, with as many processes as
you like: only unfinished shards are predicted. Images that cannot be read are named and left out.
In the output, results.json holds results in COCO's format, images.json the names of the images by
id, and skipped.json the images that were left out.
"""


def build_parser() -> argparse.ArgumentParser:
    """The parser of the command line."""
    parser = argparse.ArgumentParser(
        prog="querypose-predict",
        description=(__doc__ or "").splitlines()[0],
        epilog=(__doc__ or "").partition("\n\n")[2] + "\n" + _EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "collection",
        help="a folder with subfolders; a file in COCO's format (.json); another file with a path "
        "a line; or the name of a dataset",
    )
    parser.add_argument(
        "--output", required=True, metavar="FOLDER", help="one that all machines share"
    )
    parser.add_argument(
        "--image-root",
        metavar="FOLDER",
        help="of the names in a file; default: the folder of a .json file, the current one for a "
        "list",
    )
    parser.add_argument(
        "--shard-size",
        type=int,
        default=_SHARD_SIZE,
        metavar="N",
        help=f"images that are written at once, and that a process loses if it is killed "
        f"({_SHARD_SIZE})",
    )
    parser.add_argument(
        "--num-gpus", type=int, default=1, help="processes, one for each GPU (1); or use torchrun"
    )
    add_model_arguments(parser)
    parser.set_defaults(num_machines=1, machine_rank=0, dist_url="auto")
    return parser


def _read_config(args: argparse.Namespace) -> CfgNode:
    from querypose.checkpoint.download import fetch
    from querypose.inference.model_loading import find_config, find_device

    cfg, _ = find_config(args.config_file, args.weights, args.opts)
    if not cfg.MODEL.WEIGHTS:
        raise ValueError("There are no weights to predict with: pass --weights.")
    cfg.MODEL.DEVICE = str(find_device(args.device, cfg.MODEL.DEVICE))
    fetch(cfg.MODEL.WEIGHTS)
    return cfg


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command, by default with the arguments of the process.

    Raises:
        SystemExit: with a sentence, if it cannot start or continue.
    """
    parser = build_parser()
    args = parser.parse_args(arguments)
    if args.shard_size < 1:
        parser.error(f"--shard-size is at least 1, got {args.shard_size}.")
    try:
        check_model(args.config_file, args.weights)
        check_targets(collection_files(Path(args.output)), [Input(Kind.IMAGE, args.collection)])
    except (ValueError, OSError) as error:
        parser.error(str(error))
    # Loads PyTorch, which takes seconds.
    from querypose.cli.collection_run import predict_collection
    from querypose.cli.processes import run_in_processes

    run_in_processes(
        predict_collection,
        _read_config,
        args,
        command=parser.prog,
        way_on="; the same command continues",
    )


if __name__ == "__main__":
    main()
