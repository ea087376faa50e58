"""The losses of QueryPose."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torchvision.ops import generalized_box_iou_loss, sigmoid_focal_loss

from querypose.modeling.loss_normalizer import mean_over_processes
from querypose.modeling.sparse.box_coordinates import keypoints_to_box
from querypose.modeling.sparse.keypoint_stage import KeypointStageOutput
from querypose.modeling.sparse.matcher import HungarianMatcher
from querypose.modeling.sparse.part_attention import attention_loss
from querypose.modeling.sparse.query_rows import flat_rows, positions_among
from querypose.modeling.sparse.rle import ResidualLogLikelihoodLoss
from querypose.modeling.sparse.stage_state import StageState
from querypose.modeling.targets import PersonTargets

Matches = Sequence[tuple[Tensor, Tensor]]
"""Per image, indices of queries and of their people."""


class QueryPoseCriterion(nn.Module):
    """Classification, box and keypoint losses of every stage (paper section 3.5).

    Args:
        matcher: assigns queries to people.
        class_weight: weight of the sigmoid focal loss.
        l1_weight: weight of the L1 loss of boxes divided by the size of the image.
        giou_weight: weight of the generalized IoU loss.
        keypoint_weight: weight of the residual log-likelihood loss.
        attention_weight: weight of the cross entropy of the part attention; not in the paper, and
            not computed at 0.
        part_of_keypoint: index of the part of each keypoint, for the part attention.
        focal_alpha: weight of positives in the focal loss.
        focal_gamma: exponent of the focal loss.
    """

    def __init__(
        self,
        *,
        matcher: HungarianMatcher,
        class_weight: float,
        l1_weight: float,
        giou_weight: float,
        keypoint_weight: float,
        focal_alpha: float = 0.25,
        focal_gamma: float = 2.0,
        attention_weight: float = 0.0,
        part_of_keypoint: Sequence[int] = (),
    ) -> None:
        super().__init__()
        self.matcher = matcher
        self.weights = {
            "loss_ce": class_weight,
            "loss_bbox": l1_weight,
            "loss_giou": giou_weight,
            "loss_keypoint": keypoint_weight,
            "loss_attention": attention_weight,
        }
        self.part_of_keypoint = list(part_of_keypoint)
        self.focal_alpha = focal_alpha
        self.focal_gamma = focal_gamma
        self.keypoint_loss = ResidualLogLikelihoodLoss()

    def match(
        self, states: Sequence[StageState], targets: Sequence[PersonTargets]
    ) -> list[list[tuple[Tensor, Tensor]]]:
        """Assigns the queries of every stage to people; see :class:`HungarianMatcher`."""
        logits, boxes = [state.logits for state in states], [state.boxes for state in states]
        try:
            return self.matcher(logits, boxes, targets)
        except FloatingPointError:
            # The other ranks would wait for this one in their collective count of people.
            self.num_people(targets)
            raise

    def forward(
        self,
        states: Sequence[StageState],
        keypoints: Sequence[KeypointStageOutput],
        query_indices: Sequence[Sequence[Tensor]],
        matches: Sequence[Matches],
        targets: Sequence[PersonTargets],
    ) -> dict[str, Tensor]:
        """Computes the weighted losses.

        Args:
            states: per stage, of all queries.
            keypoints: per stage, of the queries in ``query_indices``.
            query_indices: per stage and image, the decoded queries, which include the matched ones.
            matches: per stage and image, from :meth:`match`.
            targets: per image.

        Returns:
            Scalars ``loss_ce``, ``loss_bbox``, ``loss_giou``, ``loss_keypoint`` and, with an
            ``attention_weight``, ``loss_attention`` of the last stage, and the same names with
            ``_0``, ``_1``, ... of the earlier stages.
        """
        person_losses = self._person_losses(states, keypoints, query_indices, matches, targets)
        losses = [
            {"loss_ce": self._class_loss(state.logits, match, targets)} | stage_losses
            for state, match, stage_losses in zip(states, matches, person_losses, strict=True)
        ]
        return self._weighted(losses, self.num_people(targets))

    def denoising(
        self,
        states: Sequence[StageState],
        keypoints: Sequence[KeypointStageOutput],
        query_indices: Sequence[Sequence[Tensor]],
        matches: Sequence[Matches],
        targets: Sequence[PersonTargets],
    ) -> dict[str, Tensor]:
        """Computes the box and keypoint losses of noised people, averaged over their queries.

        There is no class loss: the matched queries alone learn which of several queries stands for
        a person.

        Args:
            states: as in :meth:`forward`, of the additional queries alone.
            keypoints: of the additional queries.
            query_indices: of the additional queries, counted from 0.
            matches: per stage and image, the person of every additional query.
            targets: per image.

        Returns:
            The same as :meth:`forward`, with ``_denoising`` in the names.
        """
        losses = self._person_losses(states, keypoints, query_indices, matches, targets)
        return self._weighted(losses, states[0].boxes.shape[:2].numel(), "_denoising")

    def _person_losses(
        self,
        states: Sequence[StageState],
        keypoints: Sequence[KeypointStageOutput],
        query_indices: Sequence[Sequence[Tensor]],
        matches: Sequence[Matches],
        targets: Sequence[PersonTargets],
    ) -> list[dict[str, Tensor]]:
        """Box and keypoint losses of every stage, summed over matched queries."""
        losses = []
        for state, points, decoded, match in zip(
            states, keypoints, query_indices, matches, strict=True
        ):
            rows = _matched_rows(decoded, match, state.boxes.shape[1])
            keypoint_boxes = _matched(state.keypoint_boxes, match)
            keypoint_losses = self._keypoint_losses(points, rows, keypoint_boxes, match, targets)
            losses.append(self._box_losses(state.boxes, match, targets) | keypoint_losses)
        return losses

    def _weighted(
        self, losses: Sequence[dict[str, Tensor]], normalizer: Tensor | int, kind: str = ""
    ) -> dict[str, Tensor]:
        last = len(losses) - 1
        return {
            f"{name}{kind}" + ("" if stage == last else f"_{stage}"): self.weights[name]
            * loss
            / normalizer
            for stage, stage_losses in enumerate(losses)
            for name, loss in stage_losses.items()
        }

    @staticmethod
    def num_people(targets: Sequence[PersonTargets]) -> Tensor:
        """Mean number of people per process, at least 1; collective: every rank must call it."""
        count = torch.tensor(sum(len(target.boxes) for target in targets))
        return mean_over_processes(count.to(targets[0].boxes.device))

    def _class_loss(
        self, logits: Tensor, matches: Matches, targets: Sequence[PersonTargets]
    ) -> Tensor:
        labels = torch.zeros_like(logits, dtype=torch.float32)
        for image, ((queries, people), target) in enumerate(zip(matches, targets, strict=True)):
            labels[image, queries, target.classes[people]] = 1
        return sigmoid_focal_loss(
            logits.float(), labels, alpha=self.focal_alpha, gamma=self.focal_gamma, reduction="sum"
        )

    @staticmethod
    def _box_losses(
        boxes: Tensor, matches: Matches, targets: Sequence[PersonTargets]
    ) -> dict[str, Tensor]:
        predicted = _matched(boxes, matches)
        expected = _of_people([target.boxes for target in targets], matches)
        sizes = [target.size_xyxy.expand_as(target.boxes) for target in targets]
        relative_errors = (predicted - expected).abs() / _of_people(sizes, matches)
        return {
            "loss_bbox": relative_errors.sum(),
            "loss_giou": generalized_box_iou_loss(predicted, expected, reduction="sum"),
        }

    def _keypoint_losses(
        self,
        output: KeypointStageOutput,
        rows: Tensor,
        boxes: Tensor,
        matches: Matches,
        targets: Sequence[PersonTargets],
    ) -> dict[str, Tensor]:
        """Losses of supervised keypoints, divided by the number of keypoints of a person."""
        expected = _of_people([target.keypoints for target in targets], matches)
        num_keypoints = expected.shape[1]
        relative = keypoints_to_box(expected[..., :2], boxes)
        # The heads cannot reach a keypoint outside the box.
        supervised = (expected[..., 2] > 0) & (relative.abs() <= 0.5).all(dim=-1)
        likelihood_loss = self.keypoint_loss(
            output.coordinates[rows][supervised],
            output.sigmas[rows][supervised],
            relative[supervised],
        )
        losses = {"loss_keypoint": likelihood_loss / num_keypoints}
        if self.weights["loss_attention"]:
            maps = output.attention[rows][:, self.part_of_keypoint][supervised]
            losses["loss_attention"] = attention_loss(maps, relative[supervised]) / num_keypoints
        return losses


def _matched(values: Tensor, matches: Matches) -> Tensor:
    """Rows of the matched queries in (B, N, ...) values, (M, ...), in the order of the images."""
    return torch.cat([rows[queries] for rows, (queries, _) in zip(values, matches, strict=True)])


def _of_people(values: Sequence[Tensor], matches: Matches) -> Tensor:
    """Rows of the matched people in the images' (M_i, ...) values, as :func:`_matched`'s."""
    return torch.cat([rows[people] for rows, (_, people) in zip(values, matches, strict=True)])


def _matched_rows(decoded: Sequence[Tensor], matches: Matches, num_queries: int) -> Tensor:
    """Positions of the matched queries among the decoded ones, (M,)."""
    matched = flat_rows([queries for queries, _ in matches], num_queries)
    return positions_among(flat_rows(decoded, num_queries), matched)
