"""Evaluates trained pose models.

Examples:
    querypose-eval --weights model_final.pth --datasets keypoints_coco_2017_val
    querypose-eval --config-file coco/querypose_r50_light_3x --weights model.pth --num-gpus 8
    querypose-eval --weights model_final.pth --opts TEST.AUG.ENABLED True
    querypose-eval --weights model.onnx --datasets keypoints_coco_2017_val
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from detectron2.config import CfgNode
from detectron2.engine import default_argument_parser
from detectron2.evaluation import verify_results
from detectron2.utils import comm
from torch import nn

from querypose.checkpoint import QueryPoseCheckpointer
from querypose.checkpoint.download import fetch
from querypose.cli.processes import run_in_processes
from querypose.config_arguments import add_config_file, add_config_options
from querypose.engine import QueryPoseTrainer, set_up
from querypose.engine.dataset_agreement import check_datasets, check_trained_classes
from querypose.freed_memory import keep_freed_memory
from querypose.inference.acceleration import accelerate_inference
from querypose.inference.model_loading import find_config, find_device, take_skeleton
from querypose.modeling.pose_model import skeleton_from_config

if TYPE_CHECKING:
    from querypose.export import OnnxDetector


def evaluate(cfg: CfgNode, *, resume: bool = False) -> dict[str, Any]:
    """Evaluates a model on ``DATASETS.TEST``. Collective: every rank must call it.

    Args:
        cfg: a config whose datasets are registered.
        resume: take the last checkpoint of ``OUTPUT_DIR`` in place of ``MODEL.WEIGHTS``.

    Returns:
        Results by task.

    Raises:
        FileNotFoundError: the weights or a label file do not exist.
        ValueError: a dataset or the weights do not fit the model.
    """
    check_datasets(cfg)
    keep_freed_memory()
    model = _onnx_detector(cfg) if _is_onnx(cfg.MODEL.WEIGHTS) else _load_model(cfg, resume)
    results = QueryPoseTrainer.test(cfg, model)
    if cfg.TEST.AUG.ENABLED:
        results.update(QueryPoseTrainer.test_with_TTA(cfg, model))
    if comm.is_main_process():
        verify_results(cfg, results)
    return results


def _load_model(cfg: CfgNode, resume: bool) -> nn.Module:
    model = QueryPoseTrainer.build_model(_without_pretrained(cfg))
    checkpointer = QueryPoseCheckpointer(
        model,
        cfg.OUTPUT_DIR,
        weights_only=cfg.MODEL.WEIGHTS_ONLY,
        averaged=cfg.TEST.EMA,
        skeleton=skeleton_from_config(cfg),
    )
    weights = cfg.MODEL.WEIGHTS
    if resume and checkpointer.has_checkpoint():
        weights = checkpointer.get_checkpoint_file()
    if weights:
        check_trained_classes(cfg, weights)
    checkpointer.load(weights)
    return accelerate_inference(model, cfg)


def _is_onnx(weights: str | None) -> bool:
    return (weights or "").endswith(".onnx")


def _onnx_detector(cfg: CfgNode) -> OnnxDetector:
    from querypose.export import OnnxDetector

    if cfg.TEST.AUG.ENABLED:
        raise ValueError("An ONNX file is evaluated without TEST.AUG: its graph is one view's.")
    return OnnxDetector(cfg.MODEL.WEIGHTS)


def _without_pretrained(cfg: CfgNode) -> CfgNode:
    """A copy of a config that downloads no backbone; the checkpoint to evaluate contains it."""
    cfg = cfg.clone()
    cfg.defrost()
    cfg.MODEL.TIMM.PRETRAINED = False
    return cfg


def _read_config(args: argparse.Namespace) -> CfgNode:
    if _is_onnx(args.weights):
        cfg = _onnx_config(args)
    else:
        cfg, _ = find_config(args.config_file or None, args.weights, args.opts)
    if not cfg.MODEL.WEIGHTS:
        raise ValueError("There are no weights to evaluate: pass --weights.")
    cfg.MODEL.DEVICE = str(find_device(args.device, cfg.MODEL.DEVICE))
    fetch(cfg.MODEL.WEIGHTS)
    if args.datasets:
        cfg.DATASETS.TEST = tuple(args.datasets)
    if not cfg.DATASETS.TEST:
        raise ValueError("There is no dataset to evaluate on: pass --datasets.")
    if not args.config_file:
        # The datasets of the training need not be here.
        tested = {*cfg.DATASETS.TEST}
        cfg.DATASETS.TRAIN = ()
        cfg.DATASETS.REGISTER = [entry for entry in cfg.DATASETS.REGISTER if entry[0] in tested]
    take_skeleton(cfg)
    return cfg


def _onnx_config(args: argparse.Namespace) -> CfgNode:
    try:
        from querypose.export import config_of_onnx
    except ImportError as error:
        raise ValueError(str(error)) from error
    if args.config_file:
        raise ValueError("An ONNX file says itself what it is of: leave --config-file out.")
    return config_of_onnx(args.weights, args.opts)


def _run(args: argparse.Namespace) -> None:
    cfg = _read_config(args)
    set_up(cfg, args)
    evaluate(cfg)


def _build_parser() -> argparse.ArgumentParser:
    detectron2s = default_argument_parser()
    parser = argparse.ArgumentParser(
        prog="querypose-eval",
        description="Evaluates a trained model on datasets.",
        epilog=(__doc__ or "").partition("\n\n")[2],
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_config_file(parser, "default: what the weights say of their model")
    parser.add_argument(
        "--weights",
        help="path or URL of a checkpoint, or an ONNX file; default: MODEL.WEIGHTS of the config",
    )
    parser.add_argument(
        "--datasets", nargs="+", metavar="NAME", help="default: DATASETS.TEST of the config"
    )
    parser.add_argument(
        "--device", help="cpu, cuda, ...; default: MODEL.DEVICE, or the CPU if there is no GPU"
    )
    parser.add_argument("--num-gpus", type=int, default=1, help="processes, one for each GPU (1)")
    add_config_options(parser)
    parser.set_defaults(
        config_file="",
        eval_only=True,
        num_machines=1,
        machine_rank=0,
        dist_url=detectron2s.get_default("dist_url"),
    )
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command, by default with the arguments of the process."""
    parser = _build_parser()
    args = parser.parse_args(arguments)
    if not (args.config_file or args.weights):
        parser.error("name a checkpoint with --weights, and its config if it does not say it")
    run_in_processes(_run, _read_config, args, command=parser.prog)
