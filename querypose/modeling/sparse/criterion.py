"""The losses of QueryPose."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import generalized_box_iou_loss, sigmoid_focal_loss

from querypose.modeling.loss_normalizer import mean_over_processes
from querypose.modeling.sparse.box_coordinates import keypoints_to_box
from querypose.modeling.sparse.decoder import StageState
from querypose.modeling.sparse.keypoint_stage import KeypointStageOutput
from querypose.modeling.sparse.matcher import HungarianMatcher
from querypose.modeling.sparse.query_rows import flat_rows, positions_among
from querypose.modeling.sparse.rle import ResidualLogLikelihoodLoss
from querypose.modeling.targets import PersonTargets

Matches = Sequence[tuple[Tensor, Tensor]]

# Its logarithm stays finite.
_SMALLEST_ATTENTION = 1e-12


class QueryPoseCriterion(nn.Module):
    """Classification, box and keypoint losses of every stage (paper section 3.5).

    Args:
        matcher: assigns queries to people.
        class_weight: weight of the sigmoid focal loss.
        l1_weight: weight of the L1 loss of boxes divided by the image's size.
        giou_weight: weight of the generalized IoU loss.
        keypoint_weight: weight of the residual log-likelihood loss.
        attention_weight: weight of the part attention's cross entropy; with 0 there is none, as in
            the paper.
        part_of_keypoint: whose attention looks for each keypoint, K numbers.
        focal_alpha: focal loss's balance of positives.
        focal_gamma: focal loss's exponent.
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
        """Assigns every stage's queries to people; see :class:`HungarianMatcher`."""
        logits, boxes = [state.logits for state in states], [state.boxes for state in states]
        try:
            return self.matcher(logits, boxes, targets)
        except FloatingPointError:
            # The other processes will count people together, and would wait for this one.
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
            states: per stage, the box decoder's.
            keypoints: per stage, the keypoint decoder's, of the queries in ``query_indices``.
            query_indices: per stage and image, the decoded queries; every matched one of the
                stage among them.
            matches: per stage and image, from :meth:`match`.
            targets: per image.

        Returns:
            Scalars ``loss_ce``, ``loss_bbox``, ``loss_giou``, ``loss_keypoint`` and, with an
            ``attention_weight``, ``loss_attention`` of the last stage, and the same with ``_0``,
            ``_1``, ... of the stages before it.
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
        """Computes the box and keypoint losses of noised people, a mean over their queries.

        Which of several queries is the person is for the matched ones to learn: there is no class
        loss.

        Args:
            states: as in :meth:`forward`, of the additional queries alone.
            keypoints: theirs.
            query_indices: theirs, counted from 0.
            matches: whose noised box each of them is.
            targets: per image.

        Returns:
            As :meth:`forward` does, with ``_denoising`` in the names.
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
        """Mean number of people per process, at least one; collective."""
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
        expected = torch.cat(
            [target.boxes[people] for (_, people), target in zip(matches, targets, strict=True)]
        )
        sizes = torch.cat(
            [
                target.size_xyxy.expand(len(people), 4)
                for (_, people), target in zip(matches, targets, strict=True)
            ]
        )
        return {
            "loss_bbox": ((predicted - expected).abs() / sizes).sum(),
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
        """Losses of supervised keypoints, per keypoint of a person."""
        people = torch.cat(
            [target.keypoints[people] for (_, people), target in zip(matches, targets, strict=True)]
        )
        relative = keypoints_to_box(people[..., :2], boxes)
        # A keypoint outside the box is out of the head's reach.
        supervised = (people[..., 2] > 0) & (relative.abs() <= 0.5).all(dim=-1)
        likelihood_loss = self.keypoint_loss(
            output.coordinates[rows][supervised],
            output.sigmas[rows][supervised],
            relative[supervised],
        )
        losses = {"loss_keypoint": likelihood_loss / people.shape[1]}
        if self.weights["loss_attention"]:
            maps = output.attention[rows][:, self.part_of_keypoint][supervised]
            losses["loss_attention"] = attention_loss(maps, relative[supervised]) / people.shape[1]
        return losses


def attention_loss(attention: Tensor, places: Tensor) -> Tensor:
    """Cross entropy between attention maps and where they should look (Mask R-CNN, section 5).

    A place between cells is shared out among its four neighbors, bilinearly, so that the center of
    the best map is the place itself.

    Args:
        attention: (M, H, W), each map summing to 1.
        places: (M, 2) x and y, box-relative: 0 the box's center, +-0.5 its edges.

    Returns:
        The sum over the maps.
    """
    log_attention = attention.float().clamp(min=_SMALLEST_ATTENTION).log()
    # The sampler's coordinates end at +-1.
    sampled = F.grid_sample(
        log_attention[:, None],
        2 * places[:, None, None],
        padding_mode="border",
        align_corners=False,
    )
    return -sampled.sum()


def _matched(values: Tensor, matches: Matches) -> Tensor:
    """(B, N, ...) -> the matched queries' values, (M, ...), image by image."""
    return torch.cat([rows[queries] for rows, (queries, _) in zip(values, matches, strict=True)])


def _matched_rows(decoded: Sequence[Tensor], matches: Matches, num_queries: int) -> Tensor:
    """Where the matched queries stand among the decoded ones, (M,)."""
    matched = flat_rows([queries for queries, _ in matches], num_queries)
    return positions_among(flat_rows(decoded, num_queries), matched)
