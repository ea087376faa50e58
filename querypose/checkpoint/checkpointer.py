"""Detectron2's checkpointer, strict and weights-only."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.checkpoint.c2_model_loading import align_and_update_state_dicts
from fvcore.common.checkpoint import Checkpointer, _IncompatibleKeys, _strip_prefix_if_present
from torch import Tensor, nn

from querypose.atomic_files import replace_file
from querypose.checkpoint.backbones import may_be_missing_in_backbone, timm_weights
from querypose.checkpoint.description import ModelDescription
from querypose.checkpoint.download import read_at, split_heuristics
from querypose.checkpoint.files import is_state_dict, read_checkpoint
from querypose.checkpoint.formats import (
    BACKBONE,
    StateDict,
    find_format,
    inner_weights,
    is_computed,
)
from querypose.skeleton import Skeleton


class QueryPoseCheckpointer(DetectionCheckpointer):
    """Detectron2's checkpointer, strict and weights-only.

    It recognizes by their tensor names: our own checkpoints, the registered formats
    (:mod:`querypose.checkpoint.formats`), files of timm, and ResNets of Detectron2's model zoo.

    Args:
        model: the model to load into and to save.
        save_dir: folder of the checkpoints that it writes.
        weights_only: read files as weights alone; False unpickles them, which runs any code inside.
        new_heads: accept a checkpoint of another skeleton: tensors that depend on the skeleton keep
            their initial values, with a warning in the log.
        averaged: read the moving average of the weights instead of the weights themselves.
        description: what saved files say of the model; None leaves it out.
        skeleton: the model's keypoints, for models that do not know them, such as Detectron2's own.
        checkpointables: further objects to save and load.

    Attributes:
        loaded_backbone_only: whether the last loaded file holds a backbone alone.
    """

    def __init__(
        self,
        model: nn.Module,
        save_dir: str = "",
        *,
        weights_only: bool = True,
        new_heads: bool = False,
        averaged: bool = False,
        description: ModelDescription | None = None,
        skeleton: Skeleton | None = None,
        **checkpointables: Any,
    ) -> None:
        super().__init__(model, save_dir, **checkpointables)
        self.weights_only = weights_only
        self.new_heads = new_heads
        self.averaged = averaged
        self.description = description
        self.skeleton = getattr(self.model, "skeleton", skeleton)
        self.loaded_backbone_only = False
        self.logger = logging.getLogger(__name__)

    def load(self, path: str, checkpointables: list[str] | None = None) -> dict[str, Any]:
        """Loads a checkpoint; see :class:`fvcore.common.checkpoint.Checkpointer`.

        Args:
            path: any address that :func:`querypose.checkpoint.download.read_at` takes; "" loads
                nothing.
            checkpointables: names of the further objects to load; None loads all of them.

        Raises:
            FileNotFoundError: there is no such file.
            OSError: it cannot be downloaded.
            ValueError: the file is not a checkpoint, holds code, or does not fit the model.
        """
        if not path:
            return super().load("", checkpointables)
        self._path = os.fspath(path)
        self.logger.info("Loading %s", self._path)
        # Not `super().load`: Detectron2 would cut the name of a cached copy at its "?".
        return read_at(self._path, lambda file: Checkpointer.load(self, file, checkpointables))

    def save(self, name: str, **kwargs: Any) -> None:
        """Saves a checkpoint; if the process dies meanwhile, the previous one stays whole."""
        if not self.save_dir or not self.save_to_disk:
            return
        data = {"model": self.model.state_dict(), **kwargs}
        if self.description is not None:
            data |= self.description.fields()
        for key, checkpointable in self.checkpointables.items():
            data[key] = checkpointable.state_dict()
        path = Path(self.save_dir, f"{name}.pth")
        self.logger.info("Saving checkpoint to %s", path)
        replace_file(path, lambda file: torch.save(data, file))
        self.tag_last_checkpoint(path.name)

    def tag_last_checkpoint(self, last_filename_basename: str) -> None:
        """Records the checkpoint to resume from."""
        tag = Path(self.save_dir, "last_checkpoint")
        replace_file(tag, lambda file: file.write(last_filename_basename.encode()))

    def _load_file(self, filename: str) -> dict[str, Any]:
        checkpoint = read_checkpoint(filename, name=self._path, weights_only=self.weights_only)
        if split_heuristics(self._path)[1]:
            checkpoint["matching_heuristics"] = True
        return checkpoint

    def _load_model(self, checkpoint: dict[str, Any]) -> _IncompatibleKeys:
        state_dict = inner_weights(checkpoint.pop("model"))
        if not is_state_dict(state_dict):
            raise ValueError(f"{self._path} is not a checkpoint: it does not map names to tensors.")
        self._compare_keypoints(ModelDescription.from_checkpoint(checkpoint, self._path))
        if self.averaged:
            state_dict = self._averaged_weights(state_dict, checkpoint)
        self._convert_ndarray_to_tensor(state_dict)
        # Names of models that were compiled, distributed, or both.
        for prefix in ("module.", "_orig_mod.", "module."):
            _strip_prefix_if_present(state_dict, prefix)
        state_dict, backbone_only = self._to_our_names(state_dict, checkpoint)
        self.loaded_backbone_only = backbone_only
        for name in self._check_fit(state_dict, self.model.state_dict(), backbone_only):
            state_dict.pop(name, None)
        self.model.load_state_dict(state_dict, strict=False)
        # Differences are checked above; Detectron2 would warn of the accepted ones.
        return _IncompatibleKeys([], [], [])

    def _compare_keypoints(self, description: ModelDescription | None) -> None:
        """Compares the keypoints of the file with the model's; shapes do not tell equal numbers.

        Raises:
            ValueError: they have another order, and no training follows.
        """
        if description is None or description.skeleton is None or self.skeleton is None:
            return
        trained, expected = description.skeleton.keypoints, self.skeleton.keypoints
        if trained == expected:
            return
        if sorted(trained) == sorted(expected) and not self.new_heads:
            raise ValueError(
                f"{self._path} was trained on the keypoints {list(trained)}, in another order than "
                f"the configured model's, {list(expected)}: set MODEL.SKELETON to the first."
            )
        if len(trained) == len(expected):
            self.logger.warning(
                "%s was trained on the keypoints %s; here, in their places, are %s.",
                self._path,
                list(trained),
                list(expected),
            )

    def _averaged_weights(self, state_dict: StateDict, checkpoint: dict[str, Any]) -> StateDict:
        if "ema" not in checkpoint:
            if "trainer" in checkpoint:
                raise ValueError(
                    f"{self._path} holds no averaged weights: train with SOLVER.EMA.ENABLED True, "
                    "or set TEST.EMA False."
                )
            self.logger.warning(
                "%s holds one set of weights, which is taken: TEST.EMA True chooses nothing here.",
                self._path,
            )
            return state_dict
        averaged = checkpoint["ema"]
        # Earlier versions averaged indices, too.
        return {n: averaged[n] for n in averaged if n != "n_averaged" and not is_computed(n)}

    def _to_our_names(
        self, state_dict: StateDict, checkpoint: dict[str, Any]
    ) -> tuple[StateDict, bool]:
        """Renames the tensors; also returns whether the file holds a backbone alone."""
        if checkpoint.get("matching_heuristics", False):
            aligned = align_and_update_state_dicts(
                {k: v for k, v in self.model.state_dict().items() if k.startswith(BACKBONE)},
                state_dict,
                c2_conversion=checkpoint.get("__author__") == "Caffe2",
            )
            return {k: v for k, v in aligned.items() if k.startswith(BACKBONE)}, True
        # First, since timm's Swins share names with the ImageNet files of Swin's authors.
        timm_backbone = timm_weights(state_dict, self.model)
        if timm_backbone is not None:
            return timm_backbone, True
        file_format = find_format(state_dict)
        if file_format is not None:
            return file_format.convert(state_dict, self.model), file_format.backbone_only
        return dict(state_dict), False

    def _check_fit(
        self, loaded: StateDict, expected: Mapping[str, Tensor], backbone_only: bool
    ) -> set[str]:
        """Names of the tensors that keep their initial values because of another skeleton.

        Raises:
            ValueError: a tensor is missing, unexpected or of another shape.
        """
        aids_training = getattr(self.model, "is_training_aid", lambda _: False)
        optional = may_be_missing_in_backbone if backbone_only else is_computed
        missing = {
            name
            for name in expected
            if name not in loaded and not optional(name) and not aids_training(name)
        }
        unexpected = {name for name in loaded if name not in expected and not aids_training(name)}
        reshaped = {
            name
            for name, value in loaded.items()
            if name in expected and value.shape != expected[name].shape
        }
        fresh: set[str] = set()
        if self.new_heads:
            dependent = getattr(self.model, "is_skeleton_dependent", lambda _: False)
            fresh = {name for name in missing | unexpected | reshaped if dependent(name)}
        problems = [
            *(f"{name} is missing" for name in sorted(missing - fresh)),
            *(f"{name} is not expected" for name in sorted(unexpected - fresh)),
            *(
                f"{name} is {tuple(loaded[name].shape)} instead of {tuple(expected[name].shape)}"
                for name in sorted(reshaped - fresh)
            ),
        ]
        if problems:
            shown = "; ".join(problems[:5]) + ("; ..." if len(problems) > 5 else "")
            raise ValueError(
                f"{self._path} does not fit the configured model ({len(problems)} tensors): "
                f"{shown}. Use the config that the file was trained with."
            )
        if fresh:
            self.logger.warning(
                "%s has another skeleton: what depends on it starts afresh (%d tensors, such as "
                "%s).",
                self._path,
                len(fresh),
                min(fresh),
            )
        return fresh
