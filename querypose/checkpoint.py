"""Reading checkpoints: our own, released ones, and backbones of other projects."""

from __future__ import annotations

import logging
import os
import pickle
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, ClassVar

import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.checkpoint.c2_model_loading import align_and_update_state_dicts
from detectron2.utils.file_io import PathManager
from fvcore.common.checkpoint import _IncompatibleKeys, _strip_prefix_if_present
from torch import Tensor, nn

from querypose.skeleton import COCO_SKELETON, CROWDPOSE_SKELETON

StateDict = dict[str, Tensor]

_BACKBONE = "backbone.bottom_up."

# Tensors of a released checkpoint that its own model never reads.
_UNUSED_RELEASED = re.compile(
    r"backbone\.fpn_conv\.4\..*|backbone\.lateral_conv\.0\..*"
    r"|head\.pose_head_series\.\d+\.updater\.(fc3|norm_fc3)\..*"
)

# Beginnings of released names and of ours.
_RENAMES = {
    "init_proposal_features.": "decoder.queries.",
    "init_proposal_boxes.": "decoder.proposal_boxes.",
    "part_query.": "decoder.part_queries.",
    "criterion.flow.flow.mask": "criterion.keypoint_loss.flow.masks",
    "criterion.flow.flow.s.": "criterion.keypoint_loss.flow.scales.",
    "criterion.flow.flow.t.": "criterion.keypoint_loss.flow.translations.",
}

_BOX_STAGE_RENAMES = {
    "self_attn": "self_attention",
    "norm1": "attention_norm",
    "inst_interact": "interaction",
    "norm2": "interaction_norm",
    "linear1": "feed_forward.linear1",
    "linear2": "feed_forward.linear2",
    "norm3": "feed_forward.norm",
    "cls_module": "class_branch",
    "class_logits": "class_logits",
    "reg_module": "box_branch",
    "bboxes_delta": "box_deltas",
}

_KEYPOINT_STAGE_RENAMES = {
    "inst_convs": "convs",
    "pose_decoder_inst_interact": "feedback.interaction",
    "inst_norm": "feedback.norm",
    "linear1": "feedback.feed_forward.linear1",
    "linear2": "feedback.feed_forward.linear2",
    "norm2": "feedback.feed_forward.norm",
    "part_embed_generator.upsample": "part_embedding.upsample",
    "part_embed_generator.LSA_conv": "part_embedding.attention_conv",
    "part_embed_generator.fc": "part_embedding.embedding",
    "updater.fc1": "selective_iteration.squeeze",
    "updater.norm_fc1": "selective_iteration.norm",
    "updater.fc2": "selective_iteration.gates",
    "kps_self_attn": "self_attention",
    "self_attn_norm": "attention_norm",
    "linear1_l": "feed_forward.linear1",
    "linear2_l": "feed_forward.linear2",
    "norm2_l": "feed_forward.norm",
}

_STAGES = {
    "head.head_series": ("decoder.box_stages", _BOX_STAGE_RENAMES),
    "head.pose_head_series": ("decoder.keypoint_stages", _KEYPOINT_STAGE_RENAMES),
}
_STAGE_NAME = re.compile(r"^(head\.(?:pose_)?head_series)\.(\d+)\.(.+)$")
_PER_PART_NAME = re.compile(
    r"^head\.pose_head_series\.(\d+)\.(residual_filter|fc_coord|fc_sigma)\.(\d+)\."
    r"(?:linear\.)?(weight|bias)$"
)

# Their shapes follow from the keypoints and parts of a dataset.
_SKELETON_DEPENDENT = re.compile(
    r"decoder\.part_queries\.weight"
    r"|decoder\.keypoint_stages\.\d+\.(heads\..*"
    r"|part_embedding\.(attention_conv|query_projection)\..*)"
    r"|heatmap_head\.layers\.2\..*"
)


def is_released_state_dict(names: Iterable[str]) -> bool:
    """Whether tensor names are those of a checkpoint published by the method's authors."""
    return any(name.startswith("head.head_series.") for name in names)


def convert_released_state_dict(
    state_dict: Mapping[str, Tensor], part_indices: Sequence[Sequence[int]] | None = None
) -> StateDict:
    """Maps a released checkpoint's tensors to our names.

    Tensors that the released model never reads are dropped. Per-part heads are joined into one
    tensor in the dataset's keypoint order.

    Args:
        state_dict: as in the released file.
        part_indices: the keypoints of each part; None recognises COCO's and CrowdPose's.

    Returns:
        A state dict of :class:`querypose.modeling.QueryPose`.

    Raises:
        ValueError: a tensor's name is unknown, or the parts are of no known skeleton.
    """
    converted: StateDict = {}
    per_part: dict[tuple[str, str, str], dict[int, Tensor]] = {}
    for name, value in state_dict.items():
        match = _PER_PART_NAME.match(name)
        if match:
            stage, head, part, kind = match.groups()
            per_part.setdefault((stage, head, kind), {})[int(part)] = value
        elif not _UNUSED_RELEASED.fullmatch(name):
            converted[_renamed(name)] = value
    for (stage, head, kind), values in per_part.items():
        parts = [values[part] for part in sorted(values)]
        target = f"decoder.keypoint_stages.{stage}."
        if head == "residual_filter":
            converted[f"{target}part_embedding.query_projection.{kind}"] = torch.cat(parts)
            continue
        indices = part_indices or _known_parts(parts)
        role = {"fc_coord": "coordinate", "fc_sigma": "sigma"}[head]
        converted[f"{target}heads.{role}_{kind}"] = _in_keypoint_order(parts, indices)
    return converted


def _renamed(name: str) -> str:
    if name.startswith("backbone."):
        return name
    match = _STAGE_NAME.match(name)
    if match:
        series, stage, rest = match.groups()
        target, renames = _STAGES[series]
        for old in sorted(renames, key=len, reverse=True):
            if rest.startswith(old + "."):
                return f"{target}.{stage}.{renames[old]}{rest[len(old) :]}"
    for old, new in _RENAMES.items():
        if name.startswith(old):
            return new + name[len(old) :]
    raise ValueError(f"The checkpoint holds {name!r}, which no released QueryPose model has.")


def _known_parts(parts: Sequence[Tensor]) -> Sequence[Sequence[int]]:
    counts = [len(part) // 2 for part in parts]
    for skeleton in (COCO_SKELETON, CROWDPOSE_SKELETON):
        if counts == [len(part) for part in skeleton.parts]:
            return skeleton.part_indices
    raise ValueError(
        f"The checkpoint's parts have {counts} keypoints, neither COCO's nor CrowdPose's: "
        "pass part_indices."
    )


def _in_keypoint_order(parts: Sequence[Tensor], part_indices: Sequence[Sequence[int]]) -> Tensor:
    """Per-part (2k, ...) tensors to one (K, 2, ...) tensor."""
    order = torch.tensor([keypoint for part in part_indices for keypoint in part])
    pairs = torch.cat([part.unflatten(0, (-1, 2)) for part in parts])
    if len(pairs) != len(order):
        raise ValueError(
            f"The checkpoint has heads for {len(pairs)} keypoints, the model for {len(order)}."
        )
    return pairs[order.argsort()]


def convert_released_on_load(
    module: nn.Module, state_dict: StateDict, prefix: str, *_: object
) -> None:
    """A ``load_state_dict`` pre-hook that lets any loader read a released checkpoint, in place."""
    own = {
        name[len(prefix) :]: value for name, value in state_dict.items() if name.startswith(prefix)
    }
    if not is_released_state_dict(own):
        return
    for name in own:
        del state_dict[prefix + name]
    converted = convert_released_state_dict(own, module.skeleton.part_indices)
    state_dict.update({prefix + name: value for name, value in converted.items()})


class _ArrayUnpickler(pickle.Unpickler):
    """Reads Detectron2's zoo files: arrays in dictionaries, and nothing that could run."""

    _ALLOWED: ClassVar = {
        ("numpy", "ndarray"),
        ("numpy", "dtype"),
        ("numpy.core.multiarray", "_reconstruct"),
        ("numpy.core.multiarray", "scalar"),
        ("numpy._core.multiarray", "_reconstruct"),
        ("numpy._core.multiarray", "scalar"),
        ("collections", "OrderedDict"),
        ("_codecs", "encode"),
    }

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self._ALLOWED:
            raise pickle.UnpicklingError(f"it holds {module}.{name}")
        return super().find_class(module, name)


def _foreign_backbone(state_dict: StateDict) -> StateDict | None:
    """A heat-map HRNet's or an ImageNet Swin's tensors under our names; None for other files."""
    if any(name.startswith("stage4.") for name in state_dict):
        unused = ("final_layer.", "incre_modules.", "downsamp_modules.", "final_", "classifier.")
        return _prefixed(state_dict, lambda name: name.startswith(unused))
    if (
        "patch_embed.proj.weight" in state_dict
        and "layers.0.blocks.0.attn.qkv.weight" in state_dict
    ):
        return _prefixed(
            state_dict,
            lambda name: name.startswith(("head", "norm.")) or name.endswith("attn_mask"),
        )
    return None


def _prefixed(state_dict: StateDict, unused: Callable[[str], bool]) -> StateDict:
    return {_BACKBONE + name: value for name, value in state_dict.items() if not unused(name)}


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
            from safetensors.torch import load_file

            return {"model": load_file(filename)}
        return super()._load_file(filename)

    @staticmethod
    def _read_arrays(file: IO[bytes], filename: str) -> dict[str, Any]:
        try:
            data = _ArrayUnpickler(file, encoding="latin1").load()
        except (pickle.UnpicklingError, EOFError, AttributeError) as error:
            raise ValueError(_refusal(filename, error)) from error
        if "model" not in data:
            data = {"model": data.get("blobs", data), "__author__": "Caffe2"}
        data["matching_heuristics"] = True
        return data

    def _torch_load(self, filename: str) -> dict[str, Any]:
        try:
            return torch.load(filename, map_location="cpu", weights_only=self.weights_only)
        except (pickle.UnpicklingError, EOFError, RuntimeError) as error:
            raise ValueError(_refusal(filename, error)) from error

    def _load_model(self, checkpoint: dict[str, Any]) -> _IncompatibleKeys:
        state_dict = checkpoint.pop("model")
        if self.averaged:
            state_dict = self._averaged_weights(checkpoint)
        self._convert_ndarray_to_tensor(state_dict)
        _strip_prefix_if_present(state_dict, "module.")
        state_dict, backbone_only = self._to_our_names(state_dict, checkpoint)
        fresh = self._check(state_dict, self.model.state_dict(), backbone_only)
        for name in fresh:
            state_dict.pop(name, None)
        incompatible = self.model.load_state_dict(state_dict, strict=False)
        return _IncompatibleKeys([], incompatible.unexpected_keys, [])

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
                {k: v for k, v in self.model.state_dict().items() if k.startswith(_BACKBONE)},
                state_dict,
                c2_conversion=checkpoint.get("__author__") == "Caffe2",
            )
            return {k: v for k, v in aligned.items() if k.startswith(_BACKBONE)}, True
        if is_released_state_dict(state_dict):
            return convert_released_state_dict(state_dict, self._released_parts(state_dict)), False
        foreign = _foreign_backbone(state_dict)
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
        optional = _optional_in_backbone if backbone_only else _optional
        missing = {name for name in expected if name not in given and not optional(name)}
        unexpected = {name for name in given if name not in expected}
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


def replace_file(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    """Writes a file aside and renames it, so that readers see the old or the new one whole."""
    aside = path.with_name(f".{path.name}.partial")
    with aside.open("wb") as file:
        write(file)
        file.flush()
        os.fsync(file.fileno())
    aside.replace(path)


def _optional(name: str) -> bool:
    """Tensors that any file may lack: Swin computes its index, heat maps are auxiliary."""
    return name.endswith("relative_position_index") or name.startswith("heatmap_head.")


def _optional_in_backbone(name: str) -> bool:
    """Tensors that a backbone's file lacks: the rest of the model, norms added for detection."""
    if not name.startswith(_BACKBONE) or _optional(name):
        return True
    own = name[len(_BACKBONE) :]
    # Swin's output norms are new; a pose HRNet of one output lacks the last fusions; Caffe2 folded
    # the statistics of its ResNets into scale and bias.
    return bool(re.match(r"norm\d\.|stage4\.2\.fuse_layers\.[123]\.", own)) or own.endswith(
        ("num_batches_tracked", ".norm.running_mean", ".norm.running_var")
    )


def _refusal(filename: str, error: Exception) -> str:
    reason = str(error).strip().splitlines()[0] if str(error).strip() else "it is cut short"
    return (
        f"{filename} cannot be read as weights alone ({reason}); if you trust its origin, "
        "set MODEL.WEIGHTS_ONLY False."
    )
