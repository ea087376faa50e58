"""Prediction of people in images with one call."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from os import PathLike
from typing import Any, NamedTuple

import detectron2.data.transforms as T
import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.data.catalog import Metadata
from detectron2.modeling import DatasetMapperTTA
from PIL import Image
from torch import Tensor, nn

from querypose.config import default_config
from querypose.data.image import CHANNEL_ORDERS, ImageLike, image_to_array
from querypose.inference.model_loading import find_config, find_device, load_model
from querypose.inference.prediction import PartAttention, PosePrediction
from querypose.inference.score_scale import ScoreScale
from querypose.inference.settings import check_arguments, check_sizes
from querypose.inference.tta import PoseModelWithTTA, build_tta_mapper
from querypose.modeling.pose_model import PoseModel
from querypose.precision import AutocastModel, check_precision
from querypose.skeleton import Skeleton

# Iterable, but one image or an invalid one.
_NOT_LISTS = (np.ndarray, Image.Image, Tensor, str, bytes, PathLike, Mapping)


class _Extras(NamedTuple):
    """What a prediction has beside the people."""

    attention_stage: int | None
    maps: bool


class PosePredictor:
    """Finds people and their keypoints in images.

    ``PosePredictor()`` uses the small model that comes with the package, and
    ``PosePredictor("model_final.pth")`` that of a checkpoint of this package, which says what model
    it is of. Several threads may share a predictor. Where an argument names a config key in
    brackets, None takes the value of that key: in the config of the packaged model or of the
    checkpoint if such a model is used, else the default of the key.

    Args:
        model: path or URL of a checkpoint; or a model with its weights, on its device, which is
            switched to evaluation mode. None takes the packaged model.
        min_size: shortest edge of resized images, in pixels (``INPUT.MIN_SIZE_TEST``); 0 keeps the
            size of images.
        max_size: upper limit of the longest edge of resized images, in pixels
            (``INPUT.MAX_SIZE_TEST``).
        image_format: the channel order that the model expects, "RGB" or "BGR"; None takes "RGB" if
            a model is passed, else ``INPUT.FORMAT``.
        confidence_threshold: people with a lower final score are left out early, which saves time
            (``DEMO.CONFIDENCE_THRESHOLD``). It may be changed later.
        keypoint_threshold: for drawings, which should leave out keypoints that do not score higher
            (``DEMO.KEYPOINT_THRESHOLD``); predictions do not depend on it.
        precision: "fp32", or "bf16" or "fp16" for automatic mixed precision.
        batch_size: maximum number of images per batch; only images of the same resized size share
            a batch, so that none is padded.
        device: such as "cpu" or "cuda:1"; None takes a GPU if there is one. It must be None if a
            model is passed.
        tta_mapper: creates the views of test-time augmentation, see
            :class:`~querypose.inference.tta.PoseModelWithTTA`; None turns it off.
        category_ids: of the classes of the model, for results in COCO's format; see
            :class:`~querypose.inference.prediction.PosePrediction`. Empty takes those of the
            checkpoint.
        score_scale: for drawings, which write scores as people read them
            (``DEMO.SCORE_PRECISION``); with a ``tta_mapper`` None is a scale that nobody measured.

    Raises:
        FileNotFoundError: the checkpoint does not exist.
        OSError: the checkpoint cannot be downloaded.
        ValueError: an argument is out of range, the device does not exist or lacks the precision,
            or the checkpoint does not say what model it is of.
    """

    def __init__(
        self,
        model: PoseModel | str | PathLike[str] | None = None,
        *,
        min_size: int | None = None,
        max_size: int | None = None,
        image_format: str | None = None,
        confidence_threshold: float | None = None,
        keypoint_threshold: float | None = None,
        precision: str = "fp32",
        batch_size: int = 8,
        device: str | torch.device | None = None,
        tta_mapper: DatasetMapperTTA | None = None,
        category_ids: Sequence[int | str] = (),
        score_scale: ScoreScale | None = None,
    ) -> None:
        is_built = isinstance(model, nn.Module)
        if is_built and device is not None:
            raise ValueError("A given model keeps its device: move it with model.to(device).")
        if is_built:
            cfg, image_format = default_config(), image_format or "RGB"
        else:
            cfg, trained_ids = find_config(None, model)
            category_ids = category_ids or trained_ids
        image_format = image_format or cfg.INPUT.FORMAT
        if confidence_threshold is None:
            confidence_threshold = cfg.DEMO.CONFIDENCE_THRESHOLD
        if keypoint_threshold is None:
            keypoint_threshold = cfg.DEMO.KEYPOINT_THRESHOLD
        if score_scale is None:
            # It was measured without test-time augmentation, which changes scores.
            score_scale = ScoreScale(() if tta_mapper else cfg.DEMO.SCORE_PRECISION)
        self.min_size = cfg.INPUT.MIN_SIZE_TEST if min_size is None else min_size
        self.max_size = cfg.INPUT.MAX_SIZE_TEST if max_size is None else max_size
        check_arguments(image_format, confidence_threshold, batch_size)
        check_sizes(self.min_size, self.max_size)
        if not is_built:
            cfg.MODEL.DEVICE = str(find_device(device, cfg.MODEL.DEVICE))
            cfg.MODEL.INFERENCE.PRECISION = precision
            model = load_model(cfg)
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
        self.category_ids = tuple(category_ids)
        self.score_scale = score_scale

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
    ) -> PosePredictor:
        """Builds the model of a config and loads its weights.

        ``TEST.AUG.ENABLED`` turns test-time augmentation on, with the views of ``TEST.AUG``.

        Args:
            config: a config, its file or the name of one that comes with the package; None takes
                what the weights say of their model or, without weights, the packaged model.
            weights: path or URL of a checkpoint; None takes ``MODEL.WEIGHTS``.
            opts: alternating config keys and values.
            device: None takes ``MODEL.DEVICE``, or the CPU if there is no GPU.
            confidence_threshold: see the class; None takes ``DEMO.CONFIDENCE_THRESHOLD``.
            precision: see the class; None takes ``MODEL.INFERENCE.PRECISION``.
            batch_size: see the class.

        Raises:
            FileNotFoundError: the config or the weights do not exist.
            OSError: the weights cannot be downloaded.
            ValueError: the weights are missing, do not fit or are those of a backbone only, or an
                argument is out of range.
        """
        cfg, category_ids = find_config(config, weights, opts)
        if confidence_threshold is None:
            confidence_threshold = cfg.DEMO.CONFIDENCE_THRESHOLD
        check_arguments(cfg.INPUT.FORMAT, confidence_threshold, batch_size)
        check_sizes(cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MAX_SIZE_TEST)
        cfg.MODEL.DEVICE = str(find_device(device, cfg.MODEL.DEVICE))
        precision = precision or cfg.MODEL.INFERENCE.PRECISION
        check_precision(precision, torch.device(cfg.MODEL.DEVICE))
        cfg.MODEL.INFERENCE.PRECISION = precision
        return cls(
            load_model(cfg),
            min_size=cfg.INPUT.MIN_SIZE_TEST,
            max_size=cfg.INPUT.MAX_SIZE_TEST,
            image_format=cfg.INPUT.FORMAT,
            confidence_threshold=confidence_threshold,
            keypoint_threshold=cfg.DEMO.KEYPOINT_THRESHOLD,
            precision=precision,
            batch_size=batch_size,
            tta_mapper=build_tta_mapper(cfg) if cfg.TEST.AUG.ENABLED else None,
            category_ids=category_ids,
            score_scale=ScoreScale(() if cfg.TEST.AUG.ENABLED else cfg.DEMO.SCORE_PRECISION),
        )

    @property
    def skeleton(self) -> Skeleton:
        """The keypoints that the model predicts."""
        return self.model.skeleton

    @property
    def metadata(self) -> Metadata:
        """Metadata for the drawing functions of Detectron2."""
        return Metadata(thing_classes=["person"], **self.skeleton.metadata())

    def __call__(
        self,
        images: ImageLike | Iterable[ImageLike],
        *,
        channel_order: str = "RGB",
        return_attention: bool = False,
        attention_stage: int = -1,
        return_maps: bool = False,
    ) -> PosePrediction | list[PosePrediction]:
        """Predicts the people of one image or of several.

        Args:
            images: one image or an iterable of them. An image is a path (rotated by its EXIF
                orientation), a Pillow image (not rotated) or a uint8 array: (H, W) or (H, W, 1)
                gray, (H, W, 3), or (H, W, 4) with alpha, which is ignored.
            channel_order: of arrays, "RGB" or "BGR" (OpenCV's), alpha last.
            return_attention: also return part attention maps.
            attention_stage: decoder stage of the maps; negative counts from the last.
            return_maps: also return what a dense model (PINet, CIR-QEM) sees.

        Returns:
            One prediction for one image; a list in the same order for an iterable.

        Raises:
            FileNotFoundError: an image does not exist.
            ValueError: an image cannot be read, or an argument is out of range.
        """
        if channel_order not in CHANNEL_ORDERS:
            raise ValueError(f"channel_order is one of {CHANNEL_ORDERS}, got {channel_order!r}.")
        extras = _Extras(attention_stage if return_attention else None, return_maps)
        single = isinstance(images, _NOT_LISTS) or not isinstance(images, Iterable)
        predictions = self._predict([images] if single else images, channel_order, extras)
        return predictions[0] if single else predictions

    def _predict(
        self, images: Iterable[ImageLike], channel_order: str, extras: _Extras
    ) -> list[PosePrediction]:
        """Predicts in batches of images of one size, each as soon as it is full."""
        predictions: dict[int, PosePrediction] = {}
        batches: dict[torch.Size, dict[int, dict[str, Any]]] = defaultdict(dict)
        for index, image in enumerate(images):
            prepared = self.prepare(image, channel_order)
            batch = batches[prepared["image"].shape]
            batch[index] = prepared
            if len(batch) >= self.batch_size:
                predictions |= self._predict_batch(batch, extras)
                batch.clear()
        for batch in batches.values():
            if batch:
                predictions |= self._predict_batch(batch, extras)
        return [predictions[index] for index in range(len(predictions))]

    def prepare(self, image: ImageLike, channel_order: str) -> dict[str, Any]:
        """Converts an image to an input of the model, resized as by Detectron2 in testing.

        Args:
            image: see :meth:`__call__`.
            channel_order: see :meth:`__call__`.

        Raises:
            FileNotFoundError: the image does not exist.
            ValueError: it cannot be read.
        """
        pixels = image_to_array(image, channel_order, self.image_format)
        height, width = pixels.shape[:2]
        if self.min_size:
            size = T.ResizeShortestEdge.get_output_shape(
                height, width, self.min_size, self.max_size
            )
            # The short edge of a very long image would become 0.
            size = [max(1, length) for length in size]
            pixels = T.ResizeTransform(height, width, *size).apply_image(pixels)
        tensor = torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))
        return {"image": tensor, "height": height, "width": width}

    def _predict_batch(
        self, batch: dict[int, dict[str, Any]], extras: _Extras
    ) -> dict[int, PosePrediction]:
        stage = extras.attention_stage
        requests = {
            "score_threshold": self.confidence_threshold,
            "return_attention": stage is not None,
            "return_maps": extras.maps,
        }
        with torch.no_grad():
            outputs = self._detect([image_input | requests for image_input in batch.values()])
        predictions = {}
        for index, output in zip(batch, outputs, strict=True):
            people = output["instances"].to("cpu")
            # Boxes of dense models enclose keypoints, which may be beyond the image.
            people.pred_boxes.clip(people.image_size)
            attention = None if stage is None else PartAttention.pop(people, stage)
            maps = _maps_of(output) if extras.maps else None
            predictions[index] = PosePrediction(
                people, self.skeleton, attention, self.category_ids, maps
            )
        return predictions


def _maps_of(output: dict[str, Any]) -> dict[str, Any]:
    if "maps" not in output:
        raise ValueError(
            "This model has no maps: leave return_maps (--draw maps) off, or try attention."
        )
    return {name: value for name, value in output.items() if name != "instances"}
