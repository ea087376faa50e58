"""From pictures to people in one call."""

from __future__ import annotations

import logging
import threading
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from os import PathLike
from typing import Any, NamedTuple

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
from querypose.data.picture import CHANNEL_ORDERS, Picture, picture_to_array
from querypose.modeling.acceleration import PRECISIONS, check_precision, prepare_for_inference
from querypose.modeling.decoder import StageState
from querypose.modeling.querypose import QueryPose
from querypose.modeling.test_time_augmentation import QueryPoseWithTTA, build_tta_mapper
from querypose.prediction import PartAttention, PosePrediction
from querypose.skeleton import Skeleton

# What can be iterated, and still is one picture or none.
_NO_LISTS = (np.ndarray, Image.Image, Tensor, str, bytes, PathLike, Mapping)


class PosePredictor:
    """Finds people and their keypoints in pictures.

    ``PosePredictor()`` takes the small model that comes with the package. A predictor may be called
    from several threads. Of the other arguments, None takes the configuration key in brackets: from
    the packaged model's config with that model, else the key's default.

    Args:
        model: with its weights, on its device; it is switched to inference. None takes the one that
            comes with the package.
        min_size: pictures are resized to this shortest edge, in pixels (``INPUT.MIN_SIZE_TEST``);
            at 0 they keep their size,
        max_size: unless their longest edge would exceed this (``INPUT.MAX_SIZE_TEST``).
        image_format: the channel order that the model reads, "RGB" or "BGR".
        confidence_threshold: people with a lower final score are left out
            (``DEMO.CONFIDENCE_THRESHOLD``).
        keypoint_threshold: does not change the predictions; drawings of them should leave out
            keypoints that do not score higher (``DEMO.KEYPOINT_THRESHOLD``).
        precision: "fp32", or "bf16" or "fp16" for automatic mixed precision.
        batch_size: at most so many pictures go through the model at once; only pictures of the
            same resized size share a batch, so that none is padded.
        device: of the packaged model, as "cpu" or "cuda:1"; None takes a GPU where there is one. A
            model that is given stays where it is.
        return_attention: what calls do that do not say.
        tta_mapper: looks at every picture in these ways and averages, see
            :class:`~querypose.modeling.test_time_augmentation.QueryPoseWithTTA`; None looks once.
        category_ids: of the model's classes, for results in COCO's format; see
            :class:`~querypose.prediction.PosePrediction`.

    Raises:
        ValueError: an argument is out of range, or there is no such device, or it lacks the
            precision.
    """

    def __init__(
        self,
        model: QueryPose | None = None,
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
            model = _load_model(cfg, confidence_threshold=confidence_threshold)
        check_precision(precision, model.device)
        self.model = model.eval()
        self._detect: nn.Module = self.model
        if tta_mapper is not None:
            self._detect = QueryPoseWithTTA(
                model=self.model, tta_mapper=tta_mapper, skeleton=model.skeleton
            )
        self.image_format = image_format
        self.confidence_threshold = confidence_threshold
        self.keypoint_threshold = keypoint_threshold
        self.precision = precision
        self.batch_size = batch_size
        self.return_attention = return_attention
        self.category_ids = tuple(category_ids)
        self._tap = _DecoderTap(model.decoder)

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
            weights: a checkpoint; None takes ``MODEL.WEIGHTS``.
            opts: config keys and values in turn.
            device: None takes ``MODEL.DEVICE``, or the CPU where there is no such device.
            confidence_threshold: see the class; also spares the model the people below it. None
                takes ``DEMO.CONFIDENCE_THRESHOLD``.
            precision: see the class; None takes ``MODEL.INFERENCE.PRECISION``.
            batch_size: see the class.
            return_attention: see the class.

        Raises:
            FileNotFoundError: the config or the weights are not there.
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
            _load_model(cfg, confidence_threshold=confidence_threshold),
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
        pictures: Picture | Iterable[Picture],
        *,
        channel_order: str = "RGB",
        return_attention: bool | None = None,
        attention_stage: int = -1,
    ) -> PosePrediction | list[PosePrediction]:
        """Predicts the people of one picture or of a list of them.

        Args:
            pictures: each a path (turned upright by its EXIF orientation), a Pillow image (taken
                as its pixels stand), or a uint8 array: (H, W) or (H, W, 1) grey, (H, W, 3) or
                (H, W, 4) with alpha, which is ignored.
            channel_order: of arrays, "RGB" or "BGR" (OpenCV's), alpha last.
            return_attention: also return the part attention maps; None takes the predictor's.
            attention_stage: which decoder stage's; negative counts from the last.

        Returns:
            A prediction, or a list of them in the order of the list that was given.

        Raises:
            FileNotFoundError: a picture is not there.
            ValueError: a picture cannot be read, or an argument is out of range.
        """
        if channel_order not in CHANNEL_ORDERS:
            raise ValueError(f"channel_order is one of {CHANNEL_ORDERS}, got {channel_order!r}.")
        if return_attention is None:
            return_attention = self.return_attention
        stage = self._stage(attention_stage) if return_attention else None
        single = isinstance(pictures, _NO_LISTS) or not isinstance(pictures, Iterable)
        found = self._predict([pictures] if single else pictures, channel_order, stage)
        return found[0] if single else found

    def _stage(self, stage: int) -> int:
        num_stages = len(self.model.decoder.keypoint_stages)
        if not -num_stages <= stage < num_stages:
            raise ValueError(f"The model has {num_stages} stages, so no attention_stage {stage}.")
        return stage % num_stages

    def _predict(
        self, pictures: Iterable[Picture], channel_order: str, stage: int | None
    ) -> list[PosePrediction]:
        """Predicts in batches of one size, each as soon as it is full."""
        found: dict[int, PosePrediction] = {}
        waiting: dict[torch.Size, dict[int, dict[str, Any]]] = defaultdict(dict)
        for index, picture in enumerate(pictures):
            prepared = self._prepare(picture, channel_order)
            batch = waiting[prepared["image"].shape]
            batch[index] = prepared
            if len(batch) >= self.batch_size:
                found |= self._predict_batch(batch, stage)
                batch.clear()
        for batch in waiting.values():
            if batch:
                found |= self._predict_batch(batch, stage)
        return [found[index] for index in range(len(found))]

    def _prepare(self, picture: Picture, channel_order: str) -> dict[str, Any]:
        """The model's input, resized as Detectron2 resizes in testing."""
        image = picture_to_array(picture, channel_order, self.image_format)
        height, width = image.shape[:2]
        if self.min_size:
            wanted = self.min_size, self.max_size
            size = T.ResizeShortestEdge.get_output_shape(height, width, *wanted)
            # A strip of a picture would shrink to no pixels at all.
            size = [max(1, length) for length in size]
            image = T.ResizeTransform(height, width, *size).apply_image(image)
        tensor = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))
        return {"image": tensor, "height": height, "width": width}

    def _predict_batch(
        self, batch: dict[int, dict[str, Any]], stage: int | None
    ) -> dict[int, PosePrediction]:
        inputs = list(batch.values())
        device, dtype = self.model.device.type, PRECISIONS[self.precision]
        attention: list[PartAttention | None] = [None] * len(inputs)
        with (
            torch.no_grad(),
            torch.autocast(device, dtype=dtype, enabled=dtype is not torch.float32),
            self._tap.recording(stage is not None) as records,
        ):
            people = [
                _confident(output["instances"], self.confidence_threshold)
                for output in self._detect(inputs)
            ]
            if stage is not None:
                attention = self._attention(records[0], people, stage)
        return {
            index: PosePrediction(found.to("cpu"), self.skeleton, maps, self.category_ids)
            for index, found, maps in zip(batch, people, attention, strict=True)
        }

    def _attention(
        self, record: _DecoderRecord, people: Sequence[Instances], stage: int
    ) -> list[PartAttention]:
        """Decodes the returned people once more, for the maps of one stage."""
        queries = [found.query_indices for found in people]
        every_stage = [queries] * len(record.states)
        outputs = self.model.decoder.decode_keypoints(record.features, record.states, every_stage)
        maps = outputs[stage].attention.float().cpu().split([len(index) for index in queries])
        boxes = []
        for picture, found in enumerate(people):
            network_height, network_width = record.image_sizes[picture]
            height, width = found.image_size
            scale = (width / network_width, height / network_height) * 2
            stage_boxes = record.states[stage].keypoint_boxes[picture, found.query_indices]
            boxes.append((stage_boxes * stage_boxes.new_tensor(scale)).cpu())
        return [PartAttention(*pair, stage) for pair in zip(maps, boxes, strict=True)]


class _DecoderRecord(NamedTuple):
    """What the decoder was given and what it returned."""

    features: dict[str, Tensor]
    image_sizes: Sequence[tuple[int, int]]
    states: Sequence[StageState]


class _DecoderTap:
    """Keeps what the decoder sees, only for the calls and in the threads that ask for it."""

    def __init__(self, decoder: nn.Module) -> None:
        self._asked = threading.local()
        decoder.register_forward_hook(self._keep)

    @contextmanager
    def recording(self, enabled: bool) -> Iterator[list[_DecoderRecord]]:
        """Yields a list that fills with the decoder's calls if ``enabled``."""
        records: list[_DecoderRecord] = []
        self._asked.records = records if enabled else None
        try:
            yield records
        finally:
            self._asked.records = None

    def _keep(
        self, decoder: nn.Module, arguments: tuple[Any, ...], states: Sequence[StageState]
    ) -> None:
        records = getattr(self._asked, "records", None)
        if records is not None:
            records.append(_DecoderRecord(*arguments, states))


def _confident(people: Instances, threshold: float) -> Instances:
    return people[people.scores >= threshold]


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
            "The shortest edge of a resized picture is at least 0 (INPUT.MIN_SIZE_TEST), the "
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


def _build_model(cfg: CfgNode) -> QueryPose:
    try:
        architecture = META_ARCH_REGISTRY.get(cfg.MODEL.META_ARCHITECTURE)
        if not issubclass(architecture, QueryPose):
            raise ValueError(f"A {cfg.MODEL.META_ARCHITECTURE} gives no poses: use QueryPose.")
        return build_model(cfg)
    except (KeyError, AssertionError) as error:
        reason = error.args[0] if error.args else repr(error)
        raise ValueError(f"The config's model cannot be built: {reason}") from error


def _load_model(cfg: CfgNode, *, confidence_threshold: float) -> QueryPose:
    weights = cfg.MODEL.WEIGHTS
    if not weights:
        raise ValueError("There are no weights to predict with: pass `weights` or MODEL.WEIGHTS.")
    # A final score never exceeds the class score.
    cfg.MODEL.QUERYPOSE.CLASS_SCORE_THRESH = confidence_threshold
    if not cfg.MODEL.QUERYPOSE.SKELETON:
        register_configured_datasets(cfg)
    # The checkpoint holds the backbone, too; nothing else should be downloaded or read.
    cfg.MODEL.TIMM.PRETRAINED = False
    cfg.MODEL.TIMM.WEIGHTS = ""
    model = _build_model(cfg)
    fresh = model.decoder.queries.weight.detach().clone()
    QueryPoseCheckpointer(model, weights_only=cfg.MODEL.WEIGHTS_ONLY).load(weights)
    if torch.equal(fresh, model.decoder.queries.weight):
        raise ValueError(
            f"{weights} holds a backbone alone, to start a training from; "
            "pass the weights of a trained QueryPose model."
        )
    prepare_for_inference(model, cfg)
    return model
