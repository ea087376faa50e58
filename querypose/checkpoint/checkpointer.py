"""Detectron2's checkpointer, strict and weights-only."""

from __future__ import annotations

import logging
import pickle
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.checkpoint.c2_model_loading import align_and_update_state_dicts
from detectron2.utils.file_io import PathManager
from fvcore.common.checkpoint import _IncompatibleKeys, _strip_prefix_if_present
from torch import Tensor, nn

from querypose.checkpoint.backbones import (
    BACKBONE,
    foreign_backbone,
    may_be_missing,
    may_be_missing_in_backbone,
)
from querypose.checkpoint.files import (
    ArrayUnpickler,
    is_state_dict,
    read_safetensors,
    read_weights,
    refusal,
    replace_file,
)
from querypose.checkpoint.pinet_released import (
    convert_pinet_state_dict,
    is_pinet_state_dict,
    pinet_weights,
)
from querypose.checkpoint.released import (
    StateDict,
    convert_released_state_dict,
    is_released_state_dict,
)

# Their shapes follow from the keypoints and parts of a dataset.
_SKELETON_DEPENDENT = re.compile(
    r"decoder\.part_queries\.weight"
    r"|decoder\.keypoint_stages\.\d+\.(heads\..*"
    r"|part_embedding\.(attention_conv|query_projection)\..*)"
    r"|heatmap_head\.layers\.2\..*"
)


class QueryPoseCheckpointer(DetectionCheckpointer):
    """Detectron2's checkpointer, strict and weights-only.

    It reads, recognised by their tensor names: our own checkpoints, released ones, heat-map HRNets,
    ImageNet Swins (both into the backbone alone), and Detectron2's zoo files of ResNets.

    Args:
        model: to load into.
        save_dir: where checkpoints are written.
        weights_only: read files as weights alone; False unpickles them, running any code inside.
        new_heads: let a checkpoint of another skeleton start the training: whatever depends on the
            keypoints keeps its fresh values, and the log says so.
        averaged: read the moving average of the weights instead of the weights themselves.
        checkpointables: further objects to save and load.
    """

    def __init__(
        self,
        model: nn.Module,
        save_dir: str = "",
        *,
        weights_only: bool = True,
        new_heads: bool = False,
        averaged: bool = False,
        **checkpointables: Any,
    ) -> None:
        super().__init__(model, save_dir, **checkpointables)
        self.weights_only = weights_only
        self.new_heads = new_heads
        self.averaged = averaged
        self.logger = logging.getLogger(__name__)

    def load(self, path: str, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Loads a checkpoint; see :class:`fvcore.common.checkpoint.Checkpointer`.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: the file is no checkpoint, holds code, or does not fit the model.
        """
        if path and not self.path_manager.isfile(path.split("?")[0]) and "://" not in path:
            raise FileNotFoundError(f"There is no checkpoint file {path}; see MODEL.WEIGHTS.")
        self._path = path
        try:
            return super().load(path, *args, **kwargs)
        finally:
            self._parsed_url_during_load = None

    def save(self, name: str, **kwargs: Any) -> None:
        """Saves a checkpoint; a process that dies meanwhile leaves the previous one whole."""
        if not self.save_dir or not self.save_to_disk:
            return
        data = {"model": self.model.state_dict(), **kwargs}
        for key, checkpointable in self.checkpointables.items():
            data[key] = checkpointable.state_dict()
        path = Path(self.save_dir, f"{name}.pth")
        self.logger.info("Saving checkpoint to %s", path)
        replace_file(path, lambda file: torch.save(data, file))
        self.tag_last_checkpoint(path.name)

    def tag_last_checkpoint(self, last_filename_basename: str) -> None:
        """Names the checkpoint to resume from."""
        tag = Path(self.save_dir, "last_checkpoint")
        replace_file(tag, lambda file: file.write(last_filename_basename.encode()))

    def _load_file(self, filename: str) -> dict[str, Any]:
        if filename.endswith(".pkl") and self.weights_only:
            with PathManager.open(filename, "rb") as file:
                return self._read_arrays(file, filename)
        if filename.endswith(".safetensors"):
            return {"model": read_safetensors(filename)}
        return super()._load_file(filename)

    @staticmethod
    def _read_arrays(file: IO[bytes], filename: str) -> dict[str, Any]:
        try:
            data = ArrayUnpickler(file, encoding="latin1").load()
        except (pickle.UnpicklingError, EOFError, AttributeError) as error:
            raise ValueError(refusal(filename, error)) from error
        if "model" not in data:
            data = {"model": data.get("blobs", data), "__author__": "Caffe2"}
        data["matching_heuristics"] = True
        return data

    def _torch_load(self, filename: str) -> dict[str, Any]:
        return read_weights(filename, weights_only=self.weights_only)

    def _load_model(self, checkpoint: dict[str, Any]) -> _IncompatibleKeys:
        state_dict = pinet_weights(checkpoint.pop("model"))
        if not is_state_dict(state_dict):
            raise ValueError(f"{self._path} is no checkpoint: it does not map names to tensors.")
        if self.averaged:
            state_dict = self._averaged_weights(checkpoint)
        self._convert_ndarray_to_tensor(state_dict)
        _strip_prefix_if_present(state_dict, "module.")
        state_dict, backbone_only = self._to_our_names(state_dict, checkpoint)
        fresh = self._check(state_dict, self.model.state_dict(), backbone_only)
        for name in fresh:
            state_dict.pop(name, None)
        self.model.load_state_dict(state_dict, strict=False)
        # What may be missing or left over is checked; Detectron2 would warn of it again.
        return _IncompatibleKeys([], [], [])

    def _averaged_weights(self, checkpoint: dict[str, Any]) -> StateDict:
        if "ema" not in checkpoint:
            raise ValueError(
                f"{self._path} holds no averaged weights: train with SOLVER.EMA.ENABLED True or "
                "set TEST.EMA False."
            )
        return {name: value for name, value in checkpoint["ema"].items() if name != "n_averaged"}

    def _to_our_names(
        self, state_dict: StateDict, checkpoint: dict[str, Any]
    ) -> tuple[StateDict, bool]:
        """Renames; also says whether the file is of a backbone alone."""
        if checkpoint.get("matching_heuristics", False):
            aligned = align_and_update_state_dicts(
                {k: v for k, v in self.model.state_dict().items() if k.startswith(BACKBONE)},
                state_dict,
                c2_conversion=checkpoint.get("__author__") == "Caffe2",
            )
            return {k: v for k, v in aligned.items() if k.startswith(BACKBONE)}, True
        if is_released_state_dict(state_dict):
            return convert_released_state_dict(state_dict, self._released_parts(state_dict)), False
        if is_pinet_state_dict(state_dict):
            return convert_pinet_state_dict(state_dict), False
        foreign = foreign_backbone(state_dict)
        if foreign is not None:
            return foreign, True
        return dict(state_dict), False

    def _released_parts(self, state_dict: StateDict) -> Sequence[Sequence[int]] | None:
        """The model's parts, unless the file is of another skeleton and may be."""
        parts = self.model.skeleton.part_indices
        queries = state_dict.get("part_query.weight")
        same = queries is not None and len(queries) == len(parts)
        return parts if same and not self.new_heads else None

    def _check(
        self, given: StateDict, expected: Mapping[str, Tensor], backbone_only: bool
    ) -> set[str]:
        """Which tensors keep their fresh values.

        Raises:
            ValueError: a tensor is missing, unexpected or of another shape.
        """
        optional = may_be_missing_in_backbone if backbone_only else may_be_missing
        missing = {name for name in expected if name not in given and not optional(name)}
        unexpected = {name for name in given if name not in expected and not _aids_training(name)}
        reshaped = {
            name
            for name, value in given.items()
            if name in expected and value.shape != expected[name].shape
        }
        fresh: set[str] = set()
        if self.new_heads:
            fresh = {n for n in missing | unexpected | reshaped if _SKELETON_DEPENDENT.fullmatch(n)}
            for name in sorted(fresh):
                self.logger.warning("%s depends on the skeleton and starts afresh.", name)
        problems = [
            *(f"{name} is missing" for name in sorted(missing - fresh)),
            *(f"{name} is not expected" for name in sorted(unexpected - fresh)),
            *(
                f"{name} is {tuple(given[name].shape)} instead of {tuple(expected[name].shape)}"
                for name in sorted(reshaped - fresh)
            ),
        ]
        if problems:
            shown = "; ".join(problems[:5]) + ("; ..." if len(problems) > 5 else "")
            raise ValueError(
                f"{self._path} does not fit the configured model ({len(problems)} tensors): "
                f"{shown}. Use the config that the file was trained with."
            )
        return fresh


def _aids_training(name: str) -> bool:
    """Whether a model for prediction does without a tensor."""
    return name.startswith("heatmap_head.")
