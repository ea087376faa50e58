"""Trains and evaluates pose models.

Examples:
    querypose-train --config-file coco/querypose_r50_3x --num-gpus 8
    querypose-train --config-file ... --num-gpus 8 --resume
    querypose-train --config-file ... --eval-only MODEL.WEIGHTS model_final.pth
    torchrun --nproc-per-node 8 -m querypose train --config-file ...
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from detectron2.config import CfgNode
from detectron2.engine import default_argument_parser

from querypose.checkpoint.download import fetch
from querypose.cli.evaluate import evaluate
from querypose.cli.processes import run_in_processes
from querypose.config import read_config
from querypose.engine import QueryPoseTrainer, set_up


def _read_config(args: argparse.Namespace) -> CfgNode:
    return read_config(args.config_file, args.opts)


def _run(args: argparse.Namespace) -> dict[str, Any] | None:
    cfg = _read_config(args)
    _find_weights(cfg, args)
    set_up(cfg, args)
    if args.eval_only:
        return evaluate(cfg, resume=args.resume)
    trainer = QueryPoseTrainer(cfg)
    trainer.resume_or_load(resume=args.resume)
    return trainer.train()


def _find_weights(cfg: CfgNode, args: argparse.Namespace) -> None:
    if args.resume and Path(cfg.OUTPUT_DIR, "last_checkpoint").is_file():
        return
    if args.eval_only and not cfg.MODEL.WEIGHTS:
        raise ValueError(
            "There are no weights to evaluate: name a file in MODEL.WEIGHTS, or pass --resume for "
            f"the last checkpoint of OUTPUT_DIR ({cfg.OUTPUT_DIR})."
        )
    fetch(cfg.MODEL.WEIGHTS)


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command, by default with the arguments of the process."""
    parser = default_argument_parser(epilog=__doc__)
    args = parser.parse_args(arguments)
    if not args.config_file:
        parser.error("name a config with --config-file, such as quick/tiny")
    run_in_processes(
        _run,
        _read_config,
        args,
        command=parser.prog,
        way_on="; --resume continues from the last checkpoint",
    )
