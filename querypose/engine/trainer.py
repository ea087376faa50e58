"""Detectron2's default trainer, as QueryPose wants it."""

from __future__ import annotations

import logging
import os
import weakref
from collections.abc import Iterable
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.data import (
    MetadataCatalog,
    build_detection_test_loader,
    build_detection_train_loader,
)
from detectron2.engine import DefaultTrainer, TrainerBase, create_ddp_model
from detectron2.evaluation import COCOEvaluator, DatasetEvaluator, DatasetEvaluators
from detectron2.utils import comm
from detectron2.utils.logger import setup_logger
from torch import nn

from querypose.checkpoint import QueryPoseCheckpointer
from querypose.data import QueryPoseDatasetMapper
from querypose.engine.optimizer import build_optimizer
from querypose.engine.train_step import QueryPoseTrainStep
from querypose.evaluation import CrowdPoseEvaluator
from querypose.skeleton import Skeleton

_EVALUATORS = {"coco": COCOEvaluator, "crowdpose": CrowdPoseEvaluator}


class QueryPoseTrainer(DefaultTrainer):
    """Trains any model of a QueryPose config.

    What differs from Detectron2's default: the optimiser's groups, the mapper, evaluators by the
    dataset's metadata, a strict weights-only checkpointer, and processes without a GPU.
    """

    def __init__(self, cfg: CfgNode) -> None:
        # Detectron2's own constructor would wrap the model for GPUs alone.
        TrainerBase.__init__(self)
        if not logging.getLogger("detectron2").isEnabledFor(logging.INFO):
            setup_logger()
        cfg = self.auto_scale_workers(cfg, comm.get_world_size())
        model = self.build_model(cfg)
        optimizer = self.build_optimizer(cfg, model)
        data_loader = self.build_train_loader(cfg)
        devices = {} if next(model.parameters()).is_cuda else {"device_ids": None}
        model = create_ddp_model(model, broadcast_buffers=False, **devices)
        self._trainer = QueryPoseTrainStep(cfg, model, data_loader, optimizer)
        self.scheduler = self.build_lr_scheduler(cfg, optimizer)
        self.checkpointer = QueryPoseCheckpointer(
            model,
            cfg.OUTPUT_DIR,
            weights_only=cfg.MODEL.WEIGHTS_ONLY,
            new_heads=True,
            trainer=weakref.proxy(self),
        )
        self.start_iter = 0
        self.max_iter = cfg.SOLVER.MAX_ITER
        self.cfg = cfg
        self.register_hooks(self.build_hooks())

    @classmethod
    def build_optimizer(cls, cfg: CfgNode, model: nn.Module) -> torch.optim.Optimizer:
        """See :func:`querypose.engine.optimizer.build_optimizer`."""
        return build_optimizer(cfg, model)

    @classmethod
    def build_train_loader(cls, cfg: CfgNode) -> Iterable[list[dict[str, Any]]]:
        """Detectron2's loader over :class:`QueryPoseDatasetMapper`."""
        return build_detection_train_loader(cfg, mapper=QueryPoseDatasetMapper(cfg, is_train=True))

    @classmethod
    def build_test_loader(
        cls, cfg: CfgNode, dataset_name: str
    ) -> Iterable[list[dict[str, Any]]]:
        """Detectron2's loader over :class:`QueryPoseDatasetMapper`."""
        mapper = QueryPoseDatasetMapper(cfg, is_train=False)
        return build_detection_test_loader(cfg, dataset_name, mapper=mapper)

    @classmethod
    def build_evaluator(cls, cfg: CfgNode, dataset_name: str) -> DatasetEvaluator:
        """The evaluator that the dataset's metadata asks for, with its skeleton's OKS sigmas.

        Raises:
            ValueError: no evaluator is known for the dataset's ``evaluator_type``.
        """
        metadata = MetadataCatalog.get(dataset_name)
        kind = metadata.get("evaluator_type", "coco")
        if kind not in _EVALUATORS:
            raise ValueError(
                f"Dataset {dataset_name!r} asks for the evaluator {kind!r}; "
                f"known are {sorted(_EVALUATORS)}."
            )
        sigmas = cfg.TEST.KEYPOINT_OKS_SIGMAS or Skeleton.from_metadata(metadata).sigmas
        evaluator = _EVALUATORS[kind](
            dataset_name,
            tasks=("bbox", "keypoints"),
            output_dir=os.path.join(cfg.OUTPUT_DIR, "inference", dataset_name),
            kpt_oks_sigmas=list(sigmas),
        )
        return DatasetEvaluators([evaluator])
