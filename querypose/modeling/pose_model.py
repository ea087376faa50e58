"""The interface between the meta-architectures and the rest of the package."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog
from detectron2.modeling import Backbone
from detectron2.structures import ImageList, Instances
from torch import Tensor, nn

from querypose.skeleton import Skeleton

Inputs = Sequence[dict[str, Any]]
"""One dictionary per image in Detectron2's format, see :meth:`PoseModel.forward`."""


class PeopleBatch(NamedTuple):
    """The n best people of each of B images, in pixels of the network's input.

    Attributes:
        boxes: (B, n, 4) xyxy.
        scores: (B, n), falling; 0 for nobody.
        keypoints: (B, n, K, 3): x, y, score.
        valid: (B, n) bool, False where there are fewer people; the others come first.
        classes: (B, n) int64.
    """

    boxes: Tensor
    scores: Tensor
    keypoints: Tensor
    valid: Tensor
    classes: Tensor


class PoseModel(nn.Module, ABC):
    """Base class of the meta-architectures: all that the rest of the package uses of them.

    Args:
        backbone: maps (B, 3, H, W) normalized images to feature maps by name.
        skeleton: the keypoints that the model predicts.
        num_classes: number of person classes.
        pixel_mean: per channel, in 0..255.
        pixel_std: per channel.
    """

    num_classes_key: ClassVar[str | None] = None
    """Config key of the number of person classes; None where there is one class alone."""

    num_queries_key: ClassVar[str | None] = None
    """Config key of the number of queries; None where persons come from places in the image."""

    def __init__(
        self,
        *,
        backbone: Backbone,
        skeleton: Skeleton,
        num_classes: int,
        pixel_mean: Sequence[float],
        pixel_std: Sequence[float],
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.skeleton = skeleton
        self.num_classes = num_classes
        self.register_buffer("pixel_mean", torch.tensor(pixel_mean).view(-1, 1, 1), False)
        self.register_buffer("pixel_std", torch.tensor(pixel_std).view(-1, 1, 1), False)

    @property
    def device(self) -> torch.device:
        """The device of the model; images may be on another one."""
        return self.pixel_mean.device

    @abstractmethod
    def forward(self, batched_inputs: Inputs) -> dict[str, Tensor] | list[dict[str, Any]]:
        """Computes losses in training, otherwise detects people.

        Args:
            batched_inputs: per image ``image``, (3, H, W), 0..255, in the channel order of
                ``INPUT.FORMAT``; in training ``instances`` with ``gt_boxes``, ``gt_classes`` and
                ``gt_keypoints``. Optional in inference: ``height`` and ``width``, the size of the
                image that the output refers to; ``score_threshold``, the lowest score of a person;
                ``return_attention``, whether the output includes attention maps;
                ``return_maps``, whether it includes what a dense model sees.

        Returns:
            In training, weighted scalar losses by name. In inference, per image ``instances``:
            ``Instances`` with ``pred_boxes``, ``scores``, ``pred_classes`` and ``pred_keypoints``
            (n, K, 3: x, y, score), best first. If attention was requested and the model has
            attention, also ``pred_attention`` (n, S, P, h, w) of S stages and P parts, and
            ``attention_boxes`` (n, S, 4), the boxes that the maps cover, in pixels. If maps were
            requested and the model has some, beside the ``instances`` also ``maps``: (h, w) by
            name.
        """

    def detect_at_most(self, images: Tensor, image_sizes: Tensor, max_people: int) -> PeopleBatch:
        """Detects people by tensor operations alone, for export.

        Which operations run does not depend on the values or the sizes of tensors.

        Args:
            images: (B, 3, H, W), from :meth:`preprocess_tensor`.
            image_sizes: (B, 2), height and width before the padding.
            max_people: n; a model that cannot find so many finds fewer.

        Raises:
            NotImplementedError: the model lacks it.
            ValueError: the model cannot do so with its settings.
        """
        raise NotImplementedError(f"{type(self).__name__} has no detect_at_most.")

    @abstractmethod
    def parts(self) -> dict[str, list[nn.Module]]:
        """Modules by their role, in the order in which the model calls them.

        They are timed and counted one by one, so none may run inside another one. ``matching`` is
        what decides in training which prediction learns which person.
        """

    @abstractmethod
    def is_skeleton_dependent(self, tensor_name: str) -> bool:
        """Whether a tensor of the state dict cannot be taken from a model of another skeleton."""

    def is_training_aid(self, tensor_name: str) -> bool:
        """Whether a tensor serves training alone, so that a checkpoint may lack or exceed it."""
        return False

    def loss_normalizers(self, batched_inputs: Inputs) -> dict[str, Tensor]:
        """The divisor of each loss if these inputs were one batch of this process.

        It lets accumulated batches train as one large batch. Collective: every rank must call it.

        Args:
            batched_inputs: training inputs of any number of images.

        Returns:
            Scalars by the name of the loss, without the number of a stage. A loss that is not named
            is a mean over images.
        """
        return {}

    @abstractmethod
    def fix_num_people(self, count: int) -> None:
        """Makes an untrained model detect ``count`` people in every image, for timing.

        In training it matches them as a trained model would. This cannot be undone.
        """

    def preprocess_images(self, batched_inputs: Inputs) -> ImageList:
        """Normalizes images and pads them to one size at the right and the bottom."""
        images = [self._normalize(each["image"].to(self.device)) for each in batched_inputs]
        return ImageList.from_tensors(
            images,
            self.backbone.size_divisibility,
            padding_constraints=self.backbone.padding_constraints,
        )

    def preprocess_tensor(self, images: Tensor) -> Tensor:
        """Does what :meth:`preprocess_images` does, with (B, 3, H, W) images of one size."""
        divisor = self.backbone.padding_constraints.get(
            "size_divisibility", self.backbone.size_divisibility
        )
        height, width = images.shape[-2:]
        padding = (0, -width % divisor, 0, -height % divisor) if divisor > 1 else (0, 0, 0, 0)
        return F.pad(self._normalize(images), padding)

    def _normalize(self, image: Tensor) -> Tensor:
        return (image - self.pixel_mean) / self.pixel_std


def skeleton_from_config(cfg: CfgNode) -> Skeleton:
    """The skeleton of a config: that of ``MODEL.SKELETON``, a file or the text of one.

    Without it, it is that of the first training dataset, or without one of the first test dataset.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: there is no dataset, or it declares no keypoints.
    """
    declared = cfg.MODEL.SKELETON
    if declared:
        if "\n" in declared:
            return Skeleton.from_yaml(declared, "MODEL.SKELETON")
        return Skeleton.from_file(declared)
    datasets = (*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST)
    if not datasets:
        raise ValueError(
            "The config names no keypoints: set DATASETS.TRAIN to a dataset, or MODEL.SKELETON to "
            "a file."
        )
    return Skeleton.from_metadata(MetadataCatalog.get(datasets[0]))


def wanted_size(image_input: dict[str, Any], image_size: tuple[int, int]) -> tuple[int, int]:
    """The (height, width) that the output refers to; by default the size of the image."""
    height, width = image_size
    return image_input.get("height", height), image_input.get("width", width)


def rescale_instances(instances: Instances, size: tuple[int, int]) -> Instances:
    """Scales people to another size of their image, without clipping or dropping anybody.

    Args:
        instances: with ``pred_boxes``, ``pred_keypoints`` and optionally ``attention_boxes``.
        size: the new (height, width).

    Returns:
        New ``Instances`` of that size; the given ones do not change.
    """
    (height, width), (new_height, new_width) = instances.image_size, size
    scale = instances.scores.new_tensor([new_width / width, new_height / height])
    fields = dict(instances.get_fields())
    boxes = fields["pred_boxes"].clone()
    boxes.tensor = boxes.tensor * scale.repeat(2)
    keypoints = fields["pred_keypoints"].clone()
    keypoints[..., :2] *= scale
    fields |= {"pred_boxes": boxes, "pred_keypoints": keypoints}
    if "attention_boxes" in fields:
        fields["attention_boxes"] = fields["attention_boxes"] * scale.repeat(2)
    return Instances(size, **fields)
