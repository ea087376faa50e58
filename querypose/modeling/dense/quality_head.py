"""CIR-QEM's head: keypoints and scores of the poses that cells stand for."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from querypose.modeling.dense.cells import Cells
from querypose.modeling.dense.flip import average_maps
from querypose.modeling.dense.keypoint_queries import AGGREGATIONS, KeypointDecoder, KeypointMaps
from querypose.modeling.dense.score_branch import ScoreBranch

POSE_QUERIES = ("kq", "kps", "sp", "auto")
_INIT_STD = 0.001


class QualityMaps(NamedTuple):
    """The head's output for B images.

    Attributes:
        scores: (B, 1, H, W) float32.
        qualities: predicted OKS, (B, 1, H, W) float32, or None.
        keypoint_features: R_k, (B, K * c, H, W).
        queries: displacements to the keypoint queries, (B, 2 K, H, W) in cells, or None.
        displacements: to the keypoints, (B, 2 K, H, W) in cells, where the pose query needed them
            everywhere; else None.
    """

    scores: Tensor
    qualities: Tensor | None
    keypoint_features: Tensor
    queries: Tensor | None
    displacements: Tensor | None

    def halves(self) -> tuple[QualityMaps, QualityMaps]:
        """The maps of the first and of the second half of the images."""
        pairs = [(None, None) if maps is None else maps.chunk(2) for maps in self]
        first, second = zip(*pairs, strict=True)
        return QualityMaps(*first), QualityMaps(*second)

    def ranking(self, mirrored: QualityMaps | None = None) -> Tensor:
        """How good the pose of every cell is, (B, 1, H, W).

        The score; with a quality branch, the product of score and quality. Each is the mean of both
        views where there is a mirrored one.
        """
        scores, qualities = self.scores, self.qualities
        if mirrored is not None:
            scores = average_maps(scores, mirrored.scores)
        if qualities is None:
            return scores
        if mirrored is not None:
            qualities = average_maps(qualities, mirrored.qualities)
        return scores.clamp(min=0) * qualities.clamp(min=0)


class QualityHead(nn.Module):
    """Keypoint queries, keypoints and scores (Xiao et al., AAAI 2022).

    Scores are computed at all cells. Keypoints are computed where they are asked for, at owned
    cells in training and at peaks in inference: everywhere, they would take more time and memory
    than all the rest of the head.

    Args:
        in_channels: of the backbone's map.
        num_keypoints: K.
        keypoint_channels: c, of every keypoint's own features R_k.
        instance_channels: of R_I, which scores are made from.
        score_channels: that the score is predicted from.
        kqe: keypoint query encoding; without it, keypoints are read from R_k directly.
        num_semantic_points: N, around every keypoint query.
        aggregate: "sum" or "deform", see :class:`KeypointDecoder`.
        pqe: pose query encoding; without it, a score depends on its own cell alone.
        pose_query: the positions that a score depends on: keypoint queries "kq", keypoints "kps",
            semantic points "sp", or K positions of its own, "auto".
        quality_branch: whether a second map predicts the OKS.

    Raises:
        ValueError: the switches contradict each other.
    """

    def __init__(
        self,
        *,
        in_channels: int,
        num_keypoints: int,
        keypoint_channels: int = 24,
        instance_channels: int = 64,
        score_channels: int = 16,
        kqe: bool = True,
        num_semantic_points: int = 9,
        aggregate: str = "sum",
        pqe: bool = True,
        pose_query: str = "kq",
        quality_branch: bool = False,
    ) -> None:
        super().__init__()
        _check_switches(
            kqe=kqe,
            num_semantic_points=num_semantic_points,
            aggregate=aggregate,
            pqe=pqe,
            pose_query=pose_query,
        )
        self.pose_query = pose_query if pqe else None
        self.keypoint_maps = KeypointMaps(
            in_channels=in_channels,
            num_keypoints=num_keypoints,
            channels=keypoint_channels,
            has_queries=kqe,
        )
        points_per_keypoint = num_semantic_points if pose_query == "sp" else 1
        self.score_branch = ScoreBranch(
            in_channels=in_channels,
            num_points=num_keypoints * points_per_keypoint if pqe else 0,
            has_free_points=self.pose_query == "auto",
            instance_channels=instance_channels,
            score_channels=score_channels,
            has_quality=quality_branch,
        )
        self.keypoint_decoder = KeypointDecoder(
            num_keypoints=num_keypoints,
            channels=keypoint_channels,
            num_semantic_points=num_semantic_points,
            aggregate=aggregate,
            has_queries=kqe,
        )
        self._init_weights()

    def forward(self, features: Tensor) -> QualityMaps:
        """Maps the backbone's (B, C, H, W) features."""
        maps, queries = self.keypoint_maps(features)
        points, displacements = None, None
        if self.pose_query == "kq":
            points = queries.unflatten(1, (-1, 2))
        elif self.pose_query == "sp":
            points = self.keypoint_decoder.semantic_points(maps, queries).flatten(1, 2)
        elif self.pose_query == "kps":
            displacements = self.keypoint_decoder.everywhere(maps, queries)
            points = displacements.unflatten(1, (-1, 2))
        scores, qualities = self.score_branch(features, points)
        return QualityMaps(scores, qualities, maps, queries, displacements)

    def poses_at(self, maps: QualityMaps, cells: Cells) -> Tensor:
        """The poses of M cells, (M, K, 2) in cells, float32."""
        if maps.displacements is not None:
            displacements = cells.read(maps.displacements).unflatten(1, (-1, 2))
        else:
            displacements = self.keypoint_decoder(maps.keypoint_features, maps.queries, cells)
        return cells.positions[:, None] + displacements

    def displacements_everywhere(self, maps: QualityMaps) -> Tensor:
        """Displacements from every cell to its keypoints, (B, 2 K, H, W) in cells, float32."""
        if maps.displacements is not None:
            return maps.displacements
        return self.keypoint_decoder.everywhere(maps.keypoint_features, maps.queries)

    def _init_weights(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Conv2d) and module is not self.keypoint_decoder.aggregation:
                nn.init.normal_(module.weight, std=_INIT_STD)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        semantic = self.keypoint_decoder.semantic
        if semantic is not None:
            # Equal points have equal gradients: a sum would keep them together forever.
            num_points = semantic.out_channels // semantic.groups // 2
            spiral = square_spiral(num_points).flatten().repeat(semantic.groups)
            semantic.bias.data.copy_(spiral)


def square_spiral(length: int) -> Tensor:
    """The first whole positions of a square spiral, (length, 2): (0, 0), (1, 0), (1, 1), (0, 1)."""
    position, direction, positions = (0, 0), (1, 0), []
    steps = turns = 0
    for _ in range(length):
        positions.append(position)
        position = position[0] + direction[0], position[1] + direction[1]
        steps += 1
        # Sides of 1, 1, 2, 2, 3, 3 ... steps.
        if steps == turns // 2 + 1:
            steps, turns = 0, turns + 1
            direction = -direction[1], direction[0]
    return torch.tensor(positions, dtype=torch.float32).view(length, 2)


def _check_switches(
    *, kqe: bool, num_semantic_points: int, aggregate: str, pqe: bool, pose_query: str
) -> None:
    node = "MODEL.QUALITY_POSE"
    if aggregate not in AGGREGATIONS:
        raise ValueError(f"{node}.AGGREGATE is one of {AGGREGATIONS}, not {aggregate!r}.")
    if pose_query not in POSE_QUERIES:
        raise ValueError(f"{node}.POSE_QUERY is one of {POSE_QUERIES}, not {pose_query!r}.")
    if num_semantic_points < 0:
        raise ValueError(
            f"{node}.NUM_SEMANTIC_POINTS is not negative, unlike {num_semantic_points}."
        )
    if not kqe and pqe:
        raise ValueError(
            f"{node}.PQE gathers features at keypoint queries, which {node}.KQE False leaves out: "
            "set PQE False, too."
        )
    if not kqe and aggregate != "sum":
        raise ValueError(f"{node}.AGGREGATE {aggregate!r} needs {node}.KQE.")
    if not pqe and pose_query != "kq":
        raise ValueError(f"{node}.POSE_QUERY {pose_query!r} needs {node}.PQE.")
    if num_semantic_points == 0 and aggregate == "deform":
        raise ValueError(f"{node}.AGGREGATE 'deform' needs {node}.NUM_SEMANTIC_POINTS above 0.")
    if num_semantic_points == 0 and pose_query == "sp":
        raise ValueError(f"{node}.POSE_QUERY 'sp' needs {node}.NUM_SEMANTIC_POINTS above 0.")
