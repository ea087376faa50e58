#!/usr/bin/env python
"""Trains and evaluates pose models.

Examples:
    python train_net.py --config-file configs/coco/querypose_r50_3x.yaml --num-gpus 8
    python train_net.py --config-file ... --num-gpus 8 --resume
    python train_net.py --config-file ... --eval-only MODEL.WEIGHTS model_final.pth
    torchrun --nproc-per-node 8 train_net.py --config-file ...
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from detectron2.config import CfgNode
from detectron2.engine import default_argument_parser, default_setup
from detectron2.evaluation import verify_results
from detectron2.utils import comm
from detectron2.utils.logger import setup_logger
from torch.multiprocessing.spawn import ProcessException

from querypose.checkpoint import QueryPoseCheckpointer
from querypose.config import read_config
from querypose.data.datasets.coco import (
    check_configured_datasets,
    register_configured_datasets,
)
from querypose.engine import QueryPoseTrainer, launch
from querypose.engine.dataset_agreement import check_datasets
from querypose.inference.acceleration import accelerate_inference


def setup(args: argparse.Namespace) -> CfgNode:
    """Reads the config, registers the datasets it lists and sets up logging."""
    cfg = read_config(args.config_file, args.opts)
    cfg.freeze()
    # This package's log lines go to log.txt, too, as Detectron2's do.
    setup_logger(cfg.OUTPUT_DIR, distributed_rank=comm.get_rank(), name="querypose")
    register_configured_datasets(cfg)
    check_configured_datasets(cfg)
    resumes = args.resume and Path(cfg.OUTPUT_DIR, "last_checkpoint").is_file()
    if args.eval_only and not (cfg.MODEL.WEIGHTS or resumes):
        raise ValueError(
            "There are no weights to evaluate: name a file in MODEL.WEIGHTS, or pass --resume for "
            f"the last checkpoint of OUTPUT_DIR ({cfg.OUTPUT_DIR})."
        )
    default_setup(cfg, args)
    return cfg


def _without_pretrained(cfg: CfgNode) -> CfgNode:
    """A copy of a config that downloads no backbone; the checkpoint to evaluate contains it."""
    cfg = cfg.clone()
    cfg.defrost()
    cfg.MODEL.TIMM.PRETRAINED = False
    return cfg


def main(args: argparse.Namespace) -> dict[str, Any] | None:
    """Runs in every process; returns the evaluation's results."""
    cfg = setup(args)
    if not args.eval_only:
        trainer = QueryPoseTrainer(cfg)
        trainer.resume_or_load(resume=args.resume)
        return trainer.train()

    check_datasets(cfg)
    model = QueryPoseTrainer.build_model(_without_pretrained(cfg))
    checkpointer = QueryPoseCheckpointer(
        model, cfg.OUTPUT_DIR, weights_only=cfg.MODEL.WEIGHTS_ONLY, averaged=cfg.TEST.EMA
    )
    checkpointer.resume_or_load(cfg.MODEL.WEIGHTS, resume=args.resume)
    model = accelerate_inference(model, cfg)
    results = QueryPoseTrainer.test(cfg, model)
    if cfg.TEST.AUG.ENABLED:
        results.update(QueryPoseTrainer.test_with_TTA(cfg, model))
    if comm.is_main_process():
        verify_results(cfg, results)
    return results


if __name__ == "__main__":
    parser = default_argument_parser(epilog=__doc__)
    arguments = parser.parse_args()
    if not arguments.config_file:
        parser.error("name a config with --config-file, such as configs/quick/tiny.yaml")
    try:
        config = read_config(arguments.config_file, arguments.opts)
        launch(main, arguments, device=config.MODEL.DEVICE)
    except (OSError, FloatingPointError, ValueError, ProcessException) as error:
        # An error of another process ends with its message; the log has the whole text.
        sys.exit(f"train_net.py: {str(error).strip().splitlines()[-1]}")
    except KeyboardInterrupt:
        sys.exit("train_net.py: Interrupted; --resume continues from the last checkpoint.")
