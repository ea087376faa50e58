"""Trained models from configs: the device, the config with its options, and the weights."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from os import PathLike

import torch
from detectron2.config import CfgNode
from detectron2.modeling import META_ARCH_REGISTRY, build_model

from querypose import model_zoo
from querypose.checkpoint import QueryPoseCheckpointer
from querypose.config import merge_options, read_config
from querypose.data.datasets.coco import register_configured_datasets
from querypose.inference.acceleration import prepare_for_inference
from querypose.modeling.pose_model import PoseModel


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


def editable_config(config: CfgNode | str | PathLike[str] | None, opts: Sequence[str]) -> CfgNode:
    """A config with options that can be edited; None takes that of the packaged model."""
    if isinstance(config, str | PathLike):
        return read_config(config, opts)
    cfg = model_zoo.get_config() if config is None else config.clone()
    cfg.defrost()
    merge_options(cfg, opts)
    return cfg


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
    if not cfg.MODEL.SKELETON:
        register_configured_datasets(cfg)
    # The checkpoint includes the backbone: nothing else should be downloaded.
    cfg.MODEL.TIMM.PRETRAINED = False
    model = _build_model(cfg)
    checkpointer = QueryPoseCheckpointer(model, weights_only=cfg.MODEL.WEIGHTS_ONLY)
    checkpointer.load(weights)
    if checkpointer.loaded_backbone_only:
        raise ValueError(
            f"{weights} holds only a backbone, to start a training from: pass the weights of a "
            "trained model."
        )
    prepare_for_inference(model, cfg)
    return model
