"""CIR-QEM's losses: scores that equal the OKS of their poses, and the poses themselves."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from querypose.modeling.dense.cells import map_size
from querypose.modeling.dense.losses import smooth_l1_sum, squared_error_sum
from querypose.modeling.dense.quality_head import QualityMaps
from querypose.modeling.dense.quality_targets import QualityTargets, cells_per_person
from querypose.modeling.loss_normalizer import mean_over_processes
from querypose.oks import paired_oks

INSTANCE_LABELS = ("cir", "gaussian", "discrete")
CIR_REDUCTIONS = ("omega", "pixel")
# Of cells that nobody owns, in the loss of the score map.
_BACKGROUND_WEIGHT = 0.1


class QualityCriterion(nn.Module):
    """Losses of score and keypoints; of the quality branch, too, where there is one.

    The consistent instance representation (CIR): at the cells that a person owns, the score map's
    target is the OKS of the pose that is predicted there; elsewhere it is 0.

    Args:
        sigmas: OKS standard deviations of the K keypoints.
        instance_label: the target at owned cells: "cir", "gaussian" (a bump around the person's
            center) or "discrete" (1).
        quality_branch: whether a second map learns the OKS.
        cir_reduction: whether ``loss_cir`` is divided by the owned cells, "omega", or by all
            cells, "pixel".
        scale_norm: whether keypoint errors are relative to the person's size.

    Raises:
        ValueError: there is no such label or reduction, or two maps would learn the OKS.
    """

    def __init__(
        self,
        *,
        sigmas: Sequence[float],
        instance_label: str = "cir",
        quality_branch: bool = False,
        cir_reduction: str = "omega",
        scale_norm: bool = True,
    ) -> None:
        super().__init__()
        node = "MODEL.QUALITY_POSE"
        if instance_label not in INSTANCE_LABELS:
            raise ValueError(
                f"{node}.INSTANCE_LABEL is one of {INSTANCE_LABELS}, not {instance_label!r}."
            )
        if cir_reduction not in CIR_REDUCTIONS:
            raise ValueError(
                f"{node}.LOSS.CIR_REDUCTION is one of {CIR_REDUCTIONS}, not {cir_reduction!r}."
            )
        if quality_branch and instance_label == "cir":
            raise ValueError(
                f"{node}.QUALITY_BRANCH would predict what the score map predicts with "
                "INSTANCE_LABEL 'cir': choose 'gaussian' or 'discrete', or no branch."
            )
        self.instance_label = instance_label
        self.cir_reduction = cir_reduction
        self.scale_norm = scale_norm
        self.register_buffer("sigmas", torch.tensor(sigmas), persistent=False)

    def forward(
        self,
        maps: QualityMaps,
        poses: Tensor,
        targets: QualityTargets,
        masks: Tensor,
        normalizers: dict[str, Tensor],
    ) -> dict[str, Tensor]:
        """Computes the losses.

        Args:
            maps: of the head.
            poses: predicted at the owned cells, (M, K, 2) in cells.
            targets: of the batch.
            masks: (B, H, W), 1 where the score map counts and 0 where it does not.
            normalizers: see :meth:`normalizers`.

        Returns:
            ``loss_cir``, ``loss_displacement`` and, with a quality branch, ``loss_quality``.
        """
        oks = self.oks(poses, targets)
        owned = (targets.owners >= 0).to(masks)
        weights = masks * torch.where(owned > 0, 1.0, _BACKGROUND_WEIGHT)
        labels = self.labels(oks, targets)
        sums = {
            "loss_cir": squared_error_sum(maps.scores[:, 0], labels, weights),
            "loss_displacement": self._displacement_sum(poses, targets),
        }
        if maps.qualities is not None:
            qualities = targets.cells.read(maps.qualities)[:, 0]
            known = targets.cells.read(masks[:, None])[:, 0]
            sums["loss_quality"] = squared_error_sum(qualities, oks, known)
        return {name: value / normalizers[name] for name, value in sums.items()}

    def normalizers(
        self, targets: QualityTargets, image_sizes: Sequence[tuple[int, int]]
    ) -> dict[str, Tensor]:
        """The divisors of the losses' sums. Collective: every rank must call it.

        Owned cells for scores, though at least those of one person per image: otherwise a batch
        with few persons would learn little but background. Coordinates for keypoints.

        Args:
            targets: of a batch.
            image_sizes: heights and widths of its images, in pixels of the network's input.
        """
        map_sizes = [map_size(size) for size in image_sizes]
        counts = (
            len(image_sizes) * cells_per_person(),
            sum(height * width for height, width in map_sizes),
            len(targets.cells.images),
            2 * int(targets.in_map.sum()),
        )
        counts = torch.tensor(counts, device=targets.owners.device)
        floor, cells, owned, coordinates = mean_over_processes(counts)
        owned = owned.maximum(floor)
        return {
            "loss_cir": cells if self.cir_reduction == "pixel" else owned,
            "loss_displacement": coordinates,
            "loss_quality": owned,
        }

    def oks(self, poses: Tensor, targets: QualityTargets) -> Tensor:
        """OKS of the poses at the owned cells with their owners, (M,), without gradient."""
        return paired_oks(
            poses.detach(),
            targets.keypoints,
            targets.areas,
            self.sigmas,
            targets.in_map.to(poses),
        )

    def labels(self, oks: Tensor, targets: QualityTargets) -> Tensor:
        """The score map's target, (B, H, W), given the (M,) OKS at the owned cells."""
        if self.instance_label == "gaussian":
            return targets.gaussians
        if self.instance_label == "discrete":
            return (targets.owners >= 0).to(oks)
        labels = torch.zeros(targets.owners.shape, dtype=oks.dtype, device=oks.device)
        labels[targets.cells] = oks
        return labels

    def _displacement_sum(self, poses: Tensor, targets: QualityTargets) -> Tensor:
        weights = targets.in_map.to(poses)
        if self.scale_norm:
            weights = weights / targets.extents.sqrt()[:, None]
        return smooth_l1_sum(poses, targets.keypoints, weights[..., None])
