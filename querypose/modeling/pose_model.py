"""What every pose meta-architecture is to predictor, trainer, evaluation and benchmark."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog
from detectron2.modeling import Backbone
from detectron2.structures import ImageList, Instances
from torch import Tensor, nn

from querypose.skeleton import Skeleton

Inputs = Sequence[dict[str, Any]]
"""One dictionary per image, in Detectron2's format, see :meth:`PoseModel.forward`."""


class PoseModel(nn.Module, ABC):
    """Base class of the meta-architectures; the rest of the package knows no more of them.

    Args:
        backbone: maps (B, 3, H, W) normalized images to feature maps by name.
        skeleton: the keypoints that the model predicts.
        num_classes: classes of people.
        pixel_mean: per channel, in 0..255.
        pixel_std: per channel.
    """

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
        """Where the model is; images may come from anywhere."""
        return self.pixel_mean.device

    @abstractmethod
    def forward(self, batched_inputs: Inputs) -> dict[str, Tensor] | list[dict[str, Any]]:
        """Computes losses in training, else finds people.

        Args:
            batched_inputs: per image ``image``, (3, H, W), 0..255, in the channel order of
                ``INPUT.FORMAT``; in training ``instances`` with ``gt_boxes``, ``gt_classes`` and
                ``gt_keypoints``. In inference, optionally: ``height`` and ``width``, the size that
                the people are wanted in; ``score_threshold``, below which a person is left out;
                ``return_attention``, whether the people should say where the model looked.

        Returns:
            In training, weighted scalar losses by name. In inference, per image ``instances``:
            ``Instances`` with ``pred_boxes``, ``scores``, ``pred_classes`` and ``pred_keypoints``
            (n, K, 3: x, y, score), best first. Where attention was asked for and the model has
            some, also ``pred_attention`` (n, P, h, w) and ``attention_boxes`` (n, 4), what the maps
            cover, in pixels.
        """

    @abstractmethod
    def parts(self) -> dict[str, list[nn.Module]]:
        """Modules that are called one after the other, by what they are for, in that order.

        They serve to time, compile and count what the model consists of. None is called while
        another one runs.
        """

    @abstractmethod
    def is_skeleton_dependent(self, tensor_name: str) -> bool:
        """Whether a tensor of the state dict starts afresh where the skeleton is another."""

    def is_training_aid(self, tensor_name: str) -> bool:
        """Whether a tensor serves training alone, so that a file may lack it, or have it beside."""
        return False

    def loss_normalizers(self, batched_inputs: Inputs) -> dict[str, Tensor]:
        """What each loss would be divided by if these inputs were one batch of this process.

        With it, accumulated batches train as one large batch. Collective: every rank must call it.

        Args:
            batched_inputs: of training, of any number of images.

        Returns:
            Scalars by the losses' names without the number of a stage. A loss that is not named
            is a mean over images.
        """
        return {}

    @abstractmethod
    def fix_num_people(self, count: int) -> None:
        """Lets a model without training find ``count`` people in every image, for timing.

        In training it matches them as a trained model would. There is no way back.
        """

    def preprocess_images(self, batched_inputs: Inputs) -> ImageList:
        """Normalizes images and pads them, at the right and below, to one size."""
        images = [given["image"].to(self.device) for given in batched_inputs]
        images = [(image - self.pixel_mean) / self.pixel_std for image in images]
        return ImageList.from_tensors(
            images,
            self.backbone.size_divisibility,
            padding_constraints=self.backbone.padding_constraints,
        )


def skeleton_from_config(cfg: CfgNode) -> Skeleton:
    """The skeleton that a config's model predicts.

    It comes from the file ``MODEL.SKELETON``, else from the metadata of the first training dataset,
    else of the first test dataset.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: none of them declares keypoints.
    """
    if cfg.MODEL.SKELETON:
        return Skeleton.from_file(cfg.MODEL.SKELETON)
    datasets = (*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST)
    if not datasets:
        raise ValueError(
            "Name a dataset in DATASETS.TRAIN or a file in MODEL.SKELETON: "
            "the model needs to know its keypoints."
        )
    return Skeleton.from_metadata(MetadataCatalog.get(datasets[0]))


def wanted_size(given: dict[str, Any], image_size: tuple[int, int]) -> tuple[int, int]:
    """The (height, width) that an image's people are wanted in; its own unless it says more."""
    height, width = image_size
    return given.get("height", height), given.get("width", width)


def rescale_instances(instances: Instances, size: tuple[int, int]) -> Instances:
    """Scales people to an image of another size.

    Nobody is clipped or left out, not even beyond the image's edge.

    Args:
        instances: with ``pred_boxes``, ``pred_keypoints`` and perhaps ``attention_boxes``.
        size: the (height, width) that is wanted.

    Returns:
        New ``Instances`` of that size; the fields of the old ones do not change.
    """
    (height, width), (wanted_height, wanted_width) = instances.image_size, size
    scale = instances.scores.new_tensor([wanted_width / width, wanted_height / height])
    fields = dict(instances.get_fields())
    boxes = fields["pred_boxes"].clone()
    boxes.tensor = boxes.tensor * scale.repeat(2)
    keypoints = fields["pred_keypoints"].clone()
    keypoints[..., :2] *= scale
    fields |= {"pred_boxes": boxes, "pred_keypoints": keypoints}
    if "attention_boxes" in fields:
        fields["attention_boxes"] = fields["attention_boxes"] * scale.repeat(2)
    return Instances(size, **fields)
