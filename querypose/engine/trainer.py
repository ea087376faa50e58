"""The trainer: Detectron2's ``DefaultTrainer`` for pose models."""

from __future__ import annotations

import itertools
import logging
import os
import weakref
from collections import OrderedDict
from collections.abc import Iterable
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.data import build_detection_test_loader
from detectron2.engine import DefaultTrainer, HookBase, TrainerBase, create_ddp_model, hooks
from detectron2.evaluation import DatasetEvaluator
from detectron2.utils import comm
from detectron2.utils.logger import setup_logger
from fvcore.nn.precise_bn import get_bn_modules
from torch import nn
from torch.optim.swa_utils import AveragedModel

from querypose.checkpoint import ModelDescription, QueryPoseCheckpointer
from querypose.config import config_to_json
from querypose.data import QueryPoseDatasetMapper, build_train_mapper
from querypose.data.datasets.coco import trained_category_ids, trained_class_names
from querypose.data.datasets.records import load_records
from querypose.engine.dataset_agreement import check_datasets
from querypose.engine.hooks import (
    BestCheckpointer,
    PeriodicCheckpointer,
    StopOnSigterm,
    WeightAverager,
    WeightsCheckpointer,
)
from querypose.engine.initial_weights import warn_of_random_weights
from querypose.engine.memory_layout import use_fast_layout
from querypose.engine.optimizer import build_optimizer, restate_learning_rates
from querypose.engine.resumed_settings import resume_settings, training_settings
from querypose.engine.train_loader import ResumableTrainLoader
from querypose.engine.train_step import QueryPoseTrainStep
from querypose.engine.weight_average import build_averaged_model
from querypose.evaluation import build_evaluator
from querypose.freed_memory import keep_freed_memory
from querypose.inference.tta import PoseModelWithTTA
from querypose.modeling.pose_model import skeleton_from_config
from querypose.precision import AutocastModel, check_precision

_WRITER_PERIOD = 20


class QueryPoseTrainer(DefaultTrainer):
    """Trains any model of a QueryPose config.

    It differs from Detectron2's ``DefaultTrainer`` in the optimizer's groups, the mapper, the
    evaluators, a strict weights-only checkpointer, training on CPUs, averaged weights, and exact
    resumption: a training that was killed and resumed ends with the same weights as one that was
    not.
    """

    def __init__(self, cfg: CfgNode) -> None:
        # Detectron2's own constructor would wrap the model for GPUs only.
        TrainerBase.__init__(self)
        if not logging.getLogger("detectron2").isEnabledFor(logging.INFO):
            setup_logger()
        keep_freed_memory()
        cfg = self.auto_scale_workers(cfg, comm.get_world_size())
        model = self.build_model(cfg)
        use_fast_layout(model)
        check_precision(cfg.MODEL.INFERENCE.PRECISION, next(model.parameters()).device)
        optimizer = self.build_optimizer(cfg, model)
        data_loader = self.build_train_loader(cfg)
        check_datasets(cfg)
        devices = {} if next(model.parameters()).is_cuda else {"device_ids": None}
        model = create_ddp_model(model, broadcast_buffers=False, **devices)
        self._trainer = QueryPoseTrainStep(cfg, model, data_loader, optimizer)
        self.scheduler = self.build_lr_scheduler(cfg, optimizer)
        self.averaged = self.build_averaged_model(cfg, model)
        averaged = {} if self.averaged is None else {"ema": self.averaged}
        description = self._describe(cfg, model)
        self.checkpointer = QueryPoseCheckpointer(
            model,
            cfg.OUTPUT_DIR,
            weights_only=cfg.MODEL.WEIGHTS_ONLY,
            new_heads=True,
            description=description,
            trainer=weakref.proxy(self),
            **averaged,
        )
        self.best_checkpointer = WeightsCheckpointer(
            model, cfg.OUTPUT_DIR, description=self._describe_best(cfg, model), **averaged
        )
        self.start_iter = 0
        self.max_iter = cfg.SOLVER.MAX_ITER
        self.cfg = cfg
        self.settings = training_settings(cfg)
        self.register_hooks(self.build_hooks())

    @staticmethod
    def _describe(cfg: CfgNode, model: nn.Module) -> ModelDescription:
        skeleton = getattr(getattr(model, "module", model), "skeleton", None)
        # Detectron2's own models have none.
        if skeleton is None and cfg.MODEL.KEYPOINT_ON:
            skeleton = skeleton_from_config(cfg)
        return ModelDescription(
            config_to_json(cfg), skeleton, trained_category_ids(cfg), trained_class_names(cfg)
        )

    @classmethod
    def _describe_best(cls, cfg: CfgNode, model: nn.Module) -> ModelDescription:
        cfg = cfg.clone()
        cfg.defrost()
        # Whoever reads the file alone gets the weights that were found best.
        cfg.TEST.EMA = cfg.SOLVER.EMA.ENABLED
        return cls._describe(cfg, model)

    def resume_or_load(self, resume: bool = True) -> None:
        """Loads the last checkpoint of ``OUTPUT_DIR``, or ``MODEL.WEIGHTS`` if there is none.

        If the config has changed since, its new values hold, with the exceptions that the log
        names; see :mod:`querypose.engine.resumed_settings`.

        Raises:
            FileNotFoundError: not every process sees the checkpoint.
            ValueError: a setting changed that cannot change within a training.
        """
        if resume and not self.checkpointer.has_checkpoint():
            logging.getLogger(__name__).warning(
                "OUTPUT_DIR (%s) has no checkpoint to resume from: the training starts anew.",
                self.cfg.OUTPUT_DIR,
            )
        if not (resume and self.checkpointer.has_checkpoint()):
            warn_of_random_weights(self.cfg, self.model)
        super().resume_or_load(resume)
        if resume and self.start_iter == self.max_iter:
            logging.getLogger(__name__).warning(
                "All %d iterations (SOLVER.MAX_ITER) are done: nothing is left to train.",
                self.max_iter,
            )
        starts = comm.all_gather(self.start_iter)
        if len(set(starts)) > 1:
            raise FileNotFoundError(
                f"The processes would start at the iterations {starts}: put OUTPUT_DIR "
                f"({self.cfg.OUTPUT_DIR}) on a disk that all of them see."
            )

    def state_dict(self) -> dict[str, Any]:
        """Adds the training's settings."""
        return super().state_dict() | {"settings": self.settings}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continues a training with this config's settings.

        Raises:
            ValueError: a setting changed that cannot change within a training.
        """
        saved = state_dict.get("settings")
        self.settings = resume_settings(saved, self.settings)
        super().load_state_dict(state_dict)
        if self.iter >= self.max_iter:
            raise ValueError(
                f"SOLVER.MAX_ITER is {self.max_iter}, but the checkpoint to resume from is of the "
                f"later iteration {self.iter}: raise it, or evaluate with --eval-only --resume."
            )
        restate_learning_rates(self.optimizer, self.scheduler)
        if saved is not None:
            # The data position counts batches, whose size may have changed.
            seen = self.data_loader.num_batches * saved["SOLVER.IMS_PER_BATCH"]
            self.data_loader.num_batches = seen // self.cfg.SOLVER.IMS_PER_BATCH

    def train(self) -> dict[str, Any] | None:
        """Trains, and ends the worker processes even after an error."""
        try:
            return super().train()
        finally:
            self._trainer.release_data_loader()
            self._stopper.release()

    def build_hooks(self) -> list[HookBase | None]:
        """Detectron2's hooks in its order, with this package's variants in their places."""
        cfg, on_main = self.cfg, comm.is_main_process()
        period = cfg.TEST.EVAL_PERIOD
        # What a checkpoint saves comes before it, what may fail comes after it.
        built: list[HookBase | None] = [hooks.IterationTimer(), hooks.LRScheduler()]
        if cfg.TEST.PRECISE_BN.ENABLED and get_bn_modules(self.model):
            loader, num_iter = self.build_train_loader(cfg), cfg.TEST.PRECISE_BN.NUM_ITER
            built.append(hooks.PreciseBN(period, self.model, loader, num_iter))
        if self.averaged is not None:
            built.append(WeightAverager(self.averaged))
        if on_main:
            built.append(
                PeriodicCheckpointer(
                    self.checkpointer,
                    # 0 saves at the end alone, as 0 evaluates at the end alone.
                    cfg.SOLVER.CHECKPOINT_PERIOD or cfg.SOLVER.MAX_ITER + 1,
                    max_to_keep=cfg.SOLVER.CHECKPOINTS_TO_KEEP or None,
                )
            )
        self._stopper = StopOnSigterm(self.checkpointer, next(self.model.parameters()).device)
        built += [self._stopper, hooks.EvalHook(period, self._evaluate)]
        if cfg.TEST.AUG.ENABLED:
            # Only at the end, as in Detectron2.
            built.append(hooks.EvalHook(0, self._evaluate_with_TTA))
        if on_main and cfg.TEST.BEST_METRIC and cfg.DATASETS.TEST:
            metric = self._best_metric(cfg)
            built.append(BestCheckpointer(period, self.best_checkpointer, metric))
        if on_main:
            built.append(hooks.PeriodicWriter(self.build_writers(), _WRITER_PERIOD))
        return built

    @staticmethod
    def _best_metric(cfg: CfgNode) -> str:
        """The name of the first test dataset's metric in the event storage."""
        several, averaged = len(cfg.DATASETS.TEST) > 1, cfg.SOLVER.EMA.ENABLED
        dataset = f"{cfg.DATASETS.TEST[0]}/" if several else ""
        return f"{'ema/' if averaged else ''}{dataset}{cfg.TEST.BEST_METRIC}"

    def _evaluate(self) -> dict[str, Any]:
        """Evaluates the weights and, as ``ema``, their average."""
        if comm.get_world_size() > 1:
            # Batch norm statistics differ between processes; checkpoints have those of rank 0.
            averaged = [] if self.averaged is None else self.averaged.buffers()
            for buffer in itertools.chain(self.model.buffers(), averaged):
                torch.distributed.broadcast(buffer, 0)
        with self._stopper.evaluation():
            results = self.test(self.cfg, self._in_test_precision(self.model))
            if self.averaged is not None:
                cfg = _in_subfolder(self.cfg, "ema")
                averaged = self._in_test_precision(self.averaged.module)
                results = OrderedDict(results, ema=self.test(cfg, averaged))
        self._last_eval_results = results
        return results

    def _evaluate_with_TTA(self) -> dict[str, Any]:  # noqa: N802
        """Evaluates the averaged weights, or the raw ones if there is no average."""
        wrapped = self.model if self.averaged is None else self.averaged
        with self._stopper.evaluation():
            model = self._in_test_precision(getattr(wrapped, "module", wrapped))
            return self.test_with_TTA(self.cfg, model)

    def _in_test_precision(self, model: nn.Module) -> AutocastModel:
        return AutocastModel(model, self.cfg.MODEL.INFERENCE.PRECISION)

    @classmethod
    def test_with_TTA(cls, cfg: CfgNode, model: nn.Module) -> dict[str, Any]:  # noqa: N802
        """Evaluates with test-time augmentation (``TEST.AUG``).

        The names of method and results are those of Detectron2's ``train_net.py``.
        """
        logging.getLogger(__name__).info("Evaluating with test-time augmentation.")
        results = cls.test(_in_subfolder(cfg, "TTA"), PoseModelWithTTA(cfg, model))
        return OrderedDict((f"{name}_TTA", values) for name, values in results.items())

    @classmethod
    def build_averaged_model(cls, cfg: CfgNode, model: nn.Module) -> AveragedModel | None:
        """See :func:`querypose.engine.weight_average.build_averaged_model`."""
        return build_averaged_model(cfg, model)

    @classmethod
    def build_optimizer(cls, cfg: CfgNode, model: nn.Module) -> torch.optim.Optimizer:
        """See :func:`querypose.engine.optimizer.build_optimizer`."""
        return build_optimizer(cfg, model)

    @classmethod
    def build_train_loader(cls, cfg: CfgNode) -> ResumableTrainLoader:
        """See :class:`ResumableTrainLoader`; ``INPUT.MAPPER`` names the mapper."""
        return ResumableTrainLoader(cfg, build_train_mapper(cfg))

    @classmethod
    def build_test_loader(cls, cfg: CfgNode, dataset_name: str) -> Iterable[list[dict[str, Any]]]:
        """Detectron2's loader over :class:`QueryPoseDatasetMapper`.

        The records are those of :func:`load_records`, whose labels the evaluator reads, too.
        """
        return build_detection_test_loader(
            load_records(dataset_name),
            mapper=QueryPoseDatasetMapper(cfg, is_train=False),
            num_workers=cfg.DATALOADER.NUM_WORKERS,
        )

    @classmethod
    def build_evaluator(cls, cfg: CfgNode, dataset_name: str) -> DatasetEvaluator:
        """See :func:`querypose.evaluation.build_evaluator`."""
        return build_evaluator(cfg, dataset_name)


def _in_subfolder(cfg: CfgNode, name: str) -> CfgNode:
    """A copy of a config whose ``OUTPUT_DIR`` is a subfolder of the original's."""
    cfg = cfg.clone()
    cfg.defrost()
    cfg.OUTPUT_DIR = os.path.join(cfg.OUTPUT_DIR, name)
    return cfg
