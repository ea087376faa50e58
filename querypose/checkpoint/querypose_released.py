"""Conversion of the checkpoints that QueryPose's authors published."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn

from querypose.checkpoint.formats import CheckpointFormat, StateDict, register_format
from querypose.skeleton import COCO_SKELETON, CROWDPOSE_SKELETON

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


def is_released_state_dict(names: Iterable[str]) -> bool:
    """Whether tensor names are those of a checkpoint published by QueryPose's authors."""
    return any(name.startswith("head.head_series.") for name in names)


def convert_released_state_dict(
    state_dict: Mapping[str, Tensor], part_indices: Sequence[Sequence[int]] | None = None
) -> StateDict:
    """Maps the tensors of a released checkpoint to our names.

    Tensors that the released model never reads are dropped. The heads of all parts are joined into
    one tensor in the keypoint order of the dataset.

    Args:
        state_dict: as in the released file.
        part_indices: the keypoints of each part of the model. If their numbers do not fit the
            file, the parts of COCO or CrowdPose are used.

    Returns:
        A state dict of :class:`querypose.modeling.meta_arch.querypose.QueryPose`.

    Raises:
        ValueError: a tensor's name is unknown, or the parts are those of no known skeleton.
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
        indices = _matching_parts(parts, part_indices)
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


def _matching_parts(
    heads: Sequence[Tensor], part_indices: Sequence[Sequence[int]] | None
) -> Sequence[Sequence[int]]:
    """The first parts whose sizes fit the heads: those of the model, COCO or CrowdPose."""
    counts = [len(head) // 2 for head in heads]
    known = [skeleton.part_indices for skeleton in (COCO_SKELETON, CROWDPOSE_SKELETON)]
    for parts in ([part_indices] if part_indices else []) + known:
        if counts == [len(part) for part in parts]:
            return parts
    raise ValueError(
        f"The checkpoint's parts have {counts} keypoints, which are neither those of the model nor "
        "those of COCO or CrowdPose; pass the part_indices that it was trained with."
    )


def _in_keypoint_order(parts: Sequence[Tensor], part_indices: Sequence[Sequence[int]]) -> Tensor:
    """Per-part (2k, ...) tensors to one (K, 2, ...) tensor."""
    order = torch.tensor([keypoint for part in part_indices for keypoint in part])
    return torch.cat([part.unflatten(0, (-1, 2)) for part in parts])[order.argsort()]


def _convert(state_dict: Mapping[str, Tensor], model: nn.Module) -> StateDict:
    return convert_released_state_dict(state_dict, model.skeleton.part_indices)


register_format(CheckpointFormat(is_released_state_dict, _convert, backbone_only=False))
