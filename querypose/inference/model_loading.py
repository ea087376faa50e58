"""Trained models from configs: the device, the config with its options, and the weights."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from os import PathLike

import torch
from detectron2.config import CfgNode
from detectron2.modeling import META_ARCH_REGISTRY, build_model

from querypose import model_zoo
from querypose.checkpoint import ModelDescription, QueryPoseCheckpointer, read_description
from querypose.config import config_from_json, default_config, merge_options, read_config
from querypose.data.datasets.coco import register_configured_datasets, trained_category_ids
from querypose.inference.acceleration import prepare_for_inference
from querypose.modeling.pose_model import PoseModel, skeleton_from_config


def find_device(wanted: str | torch.device | None, configured: str) -> torch.device:
    """The wanted device, or if it is None the configured one, or the CPU if there is no GPU.

    Raises:
        ValueError: PyTorch cannot compute on the device.
    """
    name = configured if wanted is None else wanted
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ValueError(f"{name!r} is no device; use 'cpu', 'cuda' or 'cuda:1'.") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        if wanted is not None:
            raise ValueError(f"PyTorch finds no CUDA device here for {str(device)!r}; use 'cpu'.")
        logging.getLogger(__name__).info("PyTorch finds no CUDA device; predicting on the CPU.")
        return torch.device("cpu")
    try:
        torch.zeros(1, device=device).item()
    except RuntimeError as error:
        raise ValueError(f"PyTorch cannot compute on {str(device)!r} here; use 'cpu'.") from error
    return device


def find_config(
    config: CfgNode | str | PathLike[str] | None,
    weights: str | PathLike[str] | None = None,
    opts: Sequence[str] = (),
) -> tuple[CfgNode, tuple[int | str, ...]]:
    """The config of a model, which can be edited, and the category ids of its classes.

    Args:
        config: a config, its file or the name of a packaged one; None takes what the weights say of
            their model or, without weights, the packaged model.
        weights: path or URL of a checkpoint; None takes ``MODEL.WEIGHTS``.
        opts: alternating config keys and values.

    Raises:
        FileNotFoundError: the config or the weights do not exist.
        OSError: the weights cannot be downloaded.
        ValueError: the config or the weights are invalid, or there is no config and the weights
            say nothing.
    """
    if config is None and weights is not None:
        return _described_config(weights, opts)
    if isinstance(config, str | PathLike):
        cfg = read_config(config, opts)
    else:
        cfg = model_zoo.get_config() if config is None else config.clone()
        cfg.defrost()
        merge_options(cfg, opts)
    if weights is not None:
        cfg.MODEL.WEIGHTS = str(weights)
    return cfg, trained_category_ids(cfg) or _described_category_ids(cfg)


def _described_category_ids(cfg: CfgNode) -> tuple[int | str, ...]:
    """What the weights say, where the label file of their training is not."""
    description = _description(cfg) if cfg.MODEL.WEIGHTS else None
    return () if description is None else description.category_ids


def _description(cfg: CfgNode) -> ModelDescription | None:
    """What ``MODEL.WEIGHTS`` say of their model; None of an ONNX file, which is no checkpoint."""
    if cfg.MODEL.WEIGHTS.endswith(".onnx"):
        return None
    return read_description(cfg.MODEL.WEIGHTS, weights_only=cfg.MODEL.WEIGHTS_ONLY)


def _described_config(
    weights: str | PathLike[str], opts: Sequence[str]
) -> tuple[CfgNode, tuple[int | str, ...]]:
    default = default_config()
    merge_options(default, opts)
    description = read_description(weights, weights_only=default.MODEL.WEIGHTS_ONLY)
    if description is None:
        raise ValueError(
            f"{weights} does not say which model it is of: pass the config that it was trained "
            "with (--config-file; `config` in Python)."
        )
    cfg = config_from_json(description.config, str(weights))
    # What belongs to the place of the training, or to its trust in files, is of no concern here.
    cfg.OUTPUT_DIR = default.OUTPUT_DIR
    for key in ("DEVICE", "WEIGHTS_ONLY"):
        cfg.MODEL[key] = default.MODEL[key]
    cfg.MODEL.SKELETON = "" if description.skeleton is None else description.skeleton.to_yaml()
    merge_options(cfg, opts)
    cfg.MODEL.WEIGHTS = str(weights)
    return cfg, description.category_ids


def _build_model(cfg: CfgNode) -> PoseModel:
    try:
        architecture = META_ARCH_REGISTRY.get(cfg.MODEL.META_ARCHITECTURE)
        if not issubclass(architecture, PoseModel):
            raise ValueError(
                f"{cfg.MODEL.META_ARCHITECTURE} is no pose model: set MODEL.META_ARCHITECTURE to "
                "one of this package, such as QueryPose."
            )
        return build_model(cfg)
    except (KeyError, AssertionError) as error:
        reason = error.args[0] if error.args else repr(error)
        raise ValueError(f"The config's model cannot be built: {reason}") from error


def take_skeleton(cfg: CfgNode) -> None:
    """Sets ``MODEL.SKELETON`` to that of ``MODEL.WEIGHTS`` if the config leads to none here.

    Raises:
        FileNotFoundError: neither is there, or the weights do not exist.
        OSError: the weights cannot be downloaded.
        ValueError: neither the config nor the weights declare keypoints.
    """
    if cfg.MODEL.SKELETON:
        return
    try:
        register_configured_datasets(cfg)
        skeleton_from_config(cfg)
    except (FileNotFoundError, ValueError):
        # The datasets of the training need not be here.
        description = _description(cfg)
        if description is None or description.skeleton is None:
            raise
        cfg.MODEL.SKELETON = description.skeleton.to_yaml()


def load_model(cfg: CfgNode) -> PoseModel:
    """Builds the model of a config and loads ``MODEL.WEIGHTS``, ready for inference.

    Raises:
        FileNotFoundError: the weights do not exist.
        OSError: the weights cannot be downloaded.
        ValueError: the model cannot be built, or the weights are missing, do not fit or are those
            of a backbone only.
    """
    weights = cfg.MODEL.WEIGHTS
    if not weights:
        raise ValueError("There are no weights to predict with: pass `weights` or MODEL.WEIGHTS.")
    take_skeleton(cfg)
    # The checkpoint includes the backbone: nothing else should be downloaded.
    cfg.MODEL.TIMM.PRETRAINED = False
    model = _build_model(cfg)
    checkpointer = QueryPoseCheckpointer(
        model, weights_only=cfg.MODEL.WEIGHTS_ONLY, averaged=cfg.TEST.EMA
    )
    checkpointer.load(weights)
    if checkpointer.loaded_backbone_only:
        raise ValueError(
            f"{weights} holds only a backbone, to start a training from: pass the weights of a "
            "trained model."
        )
    prepare_for_inference(model, cfg)
    return model
