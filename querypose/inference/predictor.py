"""From images to people in one call."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from os import PathLike
from typing import Any

import detectron2.data.transforms as T
import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.data.catalog import Metadata
from detectron2.modeling import META_ARCH_REGISTRY, DatasetMapperTTA, build_model
from detectron2.structures import Instances
from PIL import Image
from torch import Tensor, nn

from querypose import model_zoo
from querypose.checkpoint import QueryPoseCheckpointer
from querypose.config import default_config, merge_options, read_config
from querypose.data.datasets.coco import register_configured_datasets, trained_category_ids
from querypose.data.image import CHANNEL_ORDERS, ImageLike, image_to_array
from querypose.inference.acceleration import prepare_for_inference
from querypose.inference.prediction import PartAttention, PosePrediction
from querypose.inference.tta import PoseModelWithTTA, build_tta_mapper
from querypose.modeling.pose_model import PoseModel
from querypose.precision import AutocastModel, check_precision
from querypose.skeleton import Skeleton

# What can be iterated, and still is one image or none.
_NO_LISTS = (np.ndarray, Image.Image, Tensor, str, bytes, PathLike, Mapping)


class PosePredictor:
    """Finds people and their keypoints in images.

    ``PosePredictor()`` takes the small model that comes with the package. A predictor may be called
    from several threads. Of the other arguments, None takes the configuration key in brackets: from
    the packaged model's config with that model, else the key's default.

    Args:
        model: with its weights, on its device; it is switched to inference. None takes the one that
            comes with the package.
        min_size: images are resized to this shortest edge, in pixels (``INPUT.MIN_SIZE_TEST``);
            at 0 they keep their size,
        max_size: unless their longest edge would exceed this (``INPUT.MAX_SIZE_TEST``).
        image_format: the channel order that the model reads, "RGB" or "BGR".
        confidence_threshold: people with a lower final score are left out, and cost no time
            (``DEMO.CONFIDENCE_THRESHOLD``). It may be changed later.
        keypoint_threshold: does not change the predictions; drawings of them should leave out
            keypoints that do not score higher (``DEMO.KEYPOINT_THRESHOLD``).
        precision: "fp32", or "bf16" or "fp16" for automatic mixed precision.
        batch_size: at most so many images go through the model at once; only images of the
            same resized size share a batch, so that none is padded.
        device: of the packaged model, as "cpu" or "cuda:1"; None takes a GPU where there is one. A
            model that is given stays where it is.
        return_attention: default for calls that do not pass it.
        tta_mapper: looks at every image in these ways and averages, see
            :class:`~querypose.inference.tta.PoseModelWithTTA`; None looks once.
        category_ids: of the model's classes, for results in COCO's format; see
            :class:`~querypose.inference.prediction.PosePrediction`.

    Raises:
        ValueError: an argument is out of range, or there is no such device, or it lacks the
            precision.
    """

    def __init__(
        self,
        model: PoseModel | None = None,
        *,
        min_size: int | None = None,
        max_size: int | None = None,
        image_format: str = "RGB",
        confidence_threshold: float | None = None,
        keypoint_threshold: float | None = None,
        precision: str = "fp32",
        batch_size: int = 8,
        device: str | torch.device | None = None,
        return_attention: bool = False,
        tta_mapper: DatasetMapperTTA | None = None,
        category_ids: Sequence[int | str] = (),
    ) -> None:
        if model is not None and device is not None:
            raise ValueError("A model that is given has its device: move it with model.to(device).")
        cfg = model_zoo.get_config() if model is None else default_config()
        if confidence_threshold is None:
            confidence_threshold = cfg.DEMO.CONFIDENCE_THRESHOLD
        if keypoint_threshold is None:
            keypoint_threshold = cfg.DEMO.KEYPOINT_THRESHOLD
        self.min_size = cfg.INPUT.MIN_SIZE_TEST if min_size is None else min_size
        self.max_size = cfg.INPUT.MAX_SIZE_TEST if max_size is None else max_size
        _check_arguments(image_format, confidence_threshold, batch_size)
        _check_sizes(self.min_size, self.max_size)
        if model is None:
            cfg.MODEL.DEVICE = str(_find_device(device, cfg.MODEL.DEVICE))
            model = _load_model(cfg)
        check_precision(precision, model.device)
        self.model = model.eval()
        detect: nn.Module = AutocastModel(self.model, precision)
        if tta_mapper is not None:
            detect = PoseModelWithTTA(
                model=detect, tta_mapper=tta_mapper, skeleton=self.model.skeleton
            )
        self._detect = detect
        self.image_format = image_format
        self.confidence_threshold = confidence_threshold
        self.keypoint_threshold = keypoint_threshold
        self.precision = precision
        self.batch_size = batch_size
        self.return_attention = return_attention
        self.category_ids = tuple(category_ids)

    @classmethod
    def from_config(
        cls,
        config: CfgNode | str | PathLike[str] | None = None,
        *,
        weights: str | PathLike[str] | None = None,
        opts: Sequence[str] = (),
        device: str | torch.device | None = None,
        confidence_threshold: float | None = None,
        precision: str | None = None,
        batch_size: int = 8,
        return_attention: bool = False,
    ) -> PosePredictor:
        """Builds the model that a config describes and loads its weights.

        With ``TEST.AUG.ENABLED`` it averages over the views that ``TEST.AUG`` describes.

        Args:
            config: a config, or the file of one; None takes that of the model that comes with the
                package.
            weights: a checkpoint's path or address, such as ``https://...``; None takes
                ``MODEL.WEIGHTS``.
            opts: config keys and values in turn.
            device: None takes ``MODEL.DEVICE``, or the CPU where there is no such device.
            confidence_threshold: see the class; None takes ``DEMO.CONFIDENCE_THRESHOLD``.
            precision: see the class; None takes ``MODEL.INFERENCE.PRECISION``.
            batch_size: see the class.
            return_attention: see the class.

        Raises:
            FileNotFoundError: the config or the weights are not there.
            OSError: the weights cannot be downloaded.
            ValueError: they do not fit, there are no weights, the weights are of a backbone alone,
                or an argument is out of range.
        """
        cfg = _editable_config(config, opts)
        if weights is not None:
            cfg.MODEL.WEIGHTS = str(weights)
        if confidence_threshold is None:
            confidence_threshold = cfg.DEMO.CONFIDENCE_THRESHOLD
        _check_arguments(cfg.INPUT.FORMAT, confidence_threshold, batch_size)
        _check_sizes(cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MAX_SIZE_TEST)
        cfg.MODEL.DEVICE = str(_find_device(device, cfg.MODEL.DEVICE))
        precision = precision or cfg.MODEL.INFERENCE.PRECISION
        check_precision(precision, torch.device(cfg.MODEL.DEVICE))
        return cls(
            _load_model(cfg),
            min_size=cfg.INPUT.MIN_SIZE_TEST,
            max_size=cfg.INPUT.MAX_SIZE_TEST,
            image_format=cfg.INPUT.FORMAT,
            confidence_threshold=confidence_threshold,
            keypoint_threshold=cfg.DEMO.KEYPOINT_THRESHOLD,
            precision=precision,
            batch_size=batch_size,
            return_attention=return_attention,
            tta_mapper=build_tta_mapper(cfg) if cfg.TEST.AUG.ENABLED else None,
            category_ids=trained_category_ids(cfg),
        )

    @property
    def skeleton(self) -> Skeleton:
        """The keypoints that the model predicts."""
        return self.model.skeleton

    @property
    def metadata(self) -> Metadata:
        """What Detectron2's drawing functions want to know of the keypoints."""
        return Metadata(thing_classes=["person"], **self.skeleton.metadata())

    def __call__(
        self,
        images: ImageLike | Iterable[ImageLike],
        *,
        channel_order: str = "RGB",
        return_attention: bool | None = None,
        attention_stage: int = -1,
    ) -> PosePrediction | list[PosePrediction]:
        """Predicts the people of one image or of a list of them.

        Args:
            images: each a path (turned upright by its EXIF orientation), a Pillow image (taken
                as its pixels stand), or a uint8 array: (H, W) or (H, W, 1) gray, (H, W, 3) or
                (H, W, 4) with alpha, which is ignored.
            channel_order: of arrays, "RGB" or "BGR" (OpenCV's), alpha last.
            return_attention: also return the part attention maps; None takes the predictor's.
            attention_stage: which decoder stage's; negative counts from the last.

        Returns:
            A prediction, or a list of them in the order of the list that was given.

        Raises:
            FileNotFoundError: an image is not there.
            ValueError: an image cannot be read, or an argument is out of range.
        """
        if channel_order not in CHANNEL_ORDERS:
            raise ValueError(f"channel_order is one of {CHANNEL_ORDERS}, got {channel_order!r}.")
        if return_attention is None:
            return_attention = self.return_attention
        stage = attention_stage if return_attention else None
        single = isinstance(images, _NO_LISTS) or not isinstance(images, Iterable)
        found = self._predict([images] if single else images, channel_order, stage)
        return found[0] if single else found

    def _predict(
        self, images: Iterable[ImageLike], channel_order: str, stage: int | None
    ) -> list[PosePrediction]:
        """Predicts in batches of one size, each as soon as it is full."""
        found: dict[int, PosePrediction] = {}
        waiting: dict[torch.Size, dict[int, dict[str, Any]]] = defaultdict(dict)
        for index, image in enumerate(images):
            prepared = self._prepare(image, channel_order)
            batch = waiting[prepared["image"].shape]
            batch[index] = prepared
            if len(batch) >= self.batch_size:
                found |= self._predict_batch(batch, stage)
                batch.clear()
        for batch in waiting.values():
            if batch:
                found |= self._predict_batch(batch, stage)
        return [found[index] for index in range(len(found))]

    def _prepare(self, image: ImageLike, channel_order: str) -> dict[str, Any]:
        """The model's input, resized as Detectron2 resizes in testing."""
        pixels = image_to_array(image, channel_order, self.image_format)
        height, width = pixels.shape[:2]
        if self.min_size:
            wanted = self.min_size, self.max_size
            size = T.ResizeShortestEdge.get_output_shape(height, width, *wanted)
            # A strip of an image would shrink to no pixels at all.
            size = [max(1, length) for length in size]
            pixels = T.ResizeTransform(height, width, *size).apply_image(pixels)
        tensor = torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))
        return {"image": tensor, "height": height, "width": width}

    def _predict_batch(
        self, batch: dict[int, dict[str, Any]], stage: int | None
    ) -> dict[int, PosePrediction]:
        requests = {
            "score_threshold": self.confidence_threshold,
            "return_attention": stage is not None,
        }
        with torch.no_grad():
            outputs = self._detect([given | requests for given in batch.values()])
        found = [output["instances"].to("cpu") for output in outputs]
        attention = [None if stage is None else _take_attention(people, stage) for people in found]
        return {
            index: PosePrediction(people, self.skeleton, maps, self.category_ids)
            for index, people, maps in zip(batch, found, attention, strict=True)
        }


def _take_attention(people: Instances, stage: int) -> PartAttention:
    """Takes one stage's attention out of the people's fields."""
    if not people.has("pred_attention"):
        raise ValueError("This model has no part attention: leave return_attention off.")
    maps, boxes = people.pred_attention, people.attention_boxes
    num_stages = maps.shape[1]
    if not -num_stages <= stage < num_stages:
        raise ValueError(f"The model has {num_stages} stages, so no attention_stage {stage}.")
    people.remove("pred_attention")
    people.remove("attention_boxes")
    return PartAttention(maps[:, stage], boxes[:, stage], stage % num_stages)


def _check_arguments(image_format: str, confidence_threshold: float, batch_size: int) -> None:
    if image_format not in CHANNEL_ORDERS:
        raise ValueError(f"INPUT.FORMAT is one of {CHANNEL_ORDERS}, got {image_format!r}.")
    if not 0 <= confidence_threshold <= 1:
        raise ValueError(f"The confidence threshold is within 0..1, got {confidence_threshold}.")
    if batch_size < 1:
        raise ValueError(f"The batch size is at least 1, got {batch_size}.")


def _check_sizes(min_size: int, max_size: int) -> None:
    if min_size < 0 or max_size < 1:
        raise ValueError(
            "The shortest edge of a resized image is at least 0 (INPUT.MIN_SIZE_TEST), the "
            f"longest at least 1 (INPUT.MAX_SIZE_TEST), got {min_size} and {max_size}."
        )


def _find_device(wanted: str | torch.device | None, configured: str) -> torch.device:
    name = configured if wanted is None else wanted
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ValueError(f"{name!r} is no device; use 'cpu', 'cuda' or 'cuda:1'.") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        if wanted is not None:
            raise ValueError(f"PyTorch finds no CUDA device here, so no {device}; use 'cpu'.")
        logging.getLogger(__name__).info("PyTorch finds no CUDA device; predicting on the CPU.")
        return torch.device("cpu")
    try:
        torch.zeros(1, device=device).item()
    except RuntimeError as error:
        raise ValueError(f"PyTorch cannot compute on {str(device)!r} here.") from error
    return device


def _editable_config(config: CfgNode | str | PathLike[str] | None, opts: Sequence[str]) -> CfgNode:
    if isinstance(config, str | PathLike):
        return read_config(config, opts)
    cfg = model_zoo.get_config() if config is None else config.clone()
    cfg.defrost()
    merge_options(cfg, opts)
    return cfg


def _build_model(cfg: CfgNode) -> PoseModel:
    try:
        architecture = META_ARCH_REGISTRY.get(cfg.MODEL.META_ARCHITECTURE)
        if not issubclass(architecture, PoseModel):
            raise ValueError(
                f"A {cfg.MODEL.META_ARCHITECTURE} gives no poses that a PosePredictor knows: name "
                "a pose model of this package, such as QueryPose, in MODEL.META_ARCHITECTURE."
            )
        return build_model(cfg)
    except (KeyError, AssertionError) as error:
        reason = error.args[0] if error.args else repr(error)
        raise ValueError(f"The config's model cannot be built: {reason}") from error


def _load_model(cfg: CfgNode) -> PoseModel:
    weights = cfg.MODEL.WEIGHTS
    if not weights:
        raise ValueError("There are no weights to predict with: pass `weights` or MODEL.WEIGHTS.")
    if not cfg.MODEL.SKELETON:
        register_configured_datasets(cfg)
    # The checkpoint holds the backbone, too; nothing else should be downloaded.
    cfg.MODEL.TIMM.PRETRAINED = False
    model = _build_model(cfg)
    checkpointer = QueryPoseCheckpointer(model, weights_only=cfg.MODEL.WEIGHTS_ONLY)
    checkpointer.load(weights)
    if checkpointer.loaded_backbone_only:
        raise ValueError(
            f"{weights} holds a backbone alone, to start a training from; "
            "pass the weights of a trained model."
        )
    prepare_for_inference(model, cfg)
    return model
