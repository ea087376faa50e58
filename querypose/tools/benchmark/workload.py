"""A model, its input, and a stopwatch on its parts."""

from __future__ import annotations

import contextlib
import functools
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Any

import torch
from detectron2 import model_zoo
from detectron2.config import CfgNode, get_cfg
from detectron2.data.transforms import ResizeTransform
from detectron2.modeling import build_model
from detectron2.structures import Boxes, Instances, Keypoints
from torch import Tensor, nn

from querypose.checkpoint import QueryPoseCheckpointer
from querypose.config import add_querypose_config, read_config
from querypose.data.picture import read_picture
from querypose.engine.optimizer import build_optimizer
from querypose.modeling import QueryPose
from querypose.modeling.acceleration import (
    PRECISIONS,
    accelerate_inference,
    accelerate_training,
)
from querypose.tools.benchmark.setting import Setting

# Class logits of the queries that count as people, and of all others: untrained weights would
# give every query the same score, and then every query has to be decoded.
_PERSON_LOGIT, _OTHER_LOGIT = 3.0, -6.0


class Workload:
    """Something to run again and again.

    Args:
        setting: what to build. Weights are random unless ``opts`` name some in ``MODEL.WEIGHTS``.
    """

    def __init__(self, setting: Setting) -> None:
        torch.manual_seed(0)
        self.setting = setting
        self.cfg = _config(setting)
        self.model = build_model(self.cfg)
        QueryPoseCheckpointer(self.model).load(self.cfg.MODEL.WEIGHTS)
        self.is_querypose = isinstance(self.model, QueryPose)
        self.inputs = _inputs(setting, self.model)
        self.seconds: dict[str, float] = defaultdict(float)
        if self.is_querypose:
            fix = _fix_matches if setting.train else _fix_people
            fix(self.model, setting)
            self._attach_stopwatch(self.model)

    def run(self) -> dict[str, float]:
        """Runs once; returns seconds by part, ``total`` among them."""
        self.seconds.clear()
        with self._timed("total"):
            self._step()
        return dict(self.seconds)

    @functools.cached_property
    def _step(self) -> Callable[[], object]:
        """What runs, with the switches of the config; before its first run the model is plain."""
        return self._training_step() if self.setting.train else self._inference_step()

    def _inference_step(self) -> Callable[[], object]:
        model = self.model.eval()
        if self.is_querypose:
            model = accelerate_inference(model, self.cfg)

        @torch.inference_mode()
        def step() -> object:
            return model(self.inputs)

        return step

    def _training_step(self) -> Callable[[], object]:
        model = accelerate_training(self.model.train(), self.cfg)
        optimizer = build_optimizer(self.cfg, model)
        amp = self.cfg.SOLVER.AMP
        dtype = PRECISIONS[amp.PRECISION]

        def step() -> None:
            optimizer.zero_grad()
            with torch.autocast(self.setting.device, dtype=dtype, enabled=amp.ENABLED):
                losses = model(self.inputs)
            sum(losses.values()).backward()
            optimizer.step()

        return step

    def _attach_stopwatch(self, model: QueryPose) -> None:
        for owner, method, part in (
            (model, "_features", "backbone"),
            (model.decoder, "forward", "box decoder"),
            (model.decoder, "decode_keypoints", "keypoint decoder"),
        ):
            setattr(owner, method, self._stopwatch(getattr(owner, method), part))

    def _stopwatch(self, function: Callable[..., Any], part: str) -> Callable[..., Any]:
        def timed(*args: Any, **kwargs: Any) -> Any:
            with self._timed(part):
                return function(*args, **kwargs)

        return timed

    @property
    def decoded_queries(self) -> int:
        """How many queries of a picture have their keypoints decoded in inference."""
        if self.is_querypose and self.setting.decode_all:
            return self.model.decoder.num_queries
        return self.setting.people

    @contextlib.contextmanager
    def _timed(self, part: str) -> Iterator[None]:
        self._synchronise()
        start = time.perf_counter()
        yield
        self._synchronise()
        self.seconds[part] += time.perf_counter() - start

    def _synchronise(self) -> None:
        if self.setting.device == "cuda":
            torch.cuda.synchronize()


def _config(setting: Setting) -> CfgNode:
    opts = ["MODEL.DEVICE", setting.device, *setting.opts]
    if setting.config_file.startswith("COCO-"):
        cfg = get_cfg()
        add_querypose_config(cfg)
        cfg.merge_from_file(model_zoo.get_config_file(setting.config_file))
        cfg.MODEL.WEIGHTS = ""
        # An untrained detector scores nobody high; let it return so many people all the same.
        cfg.MODEL.ROI_HEADS.SCORE_THRESH_TEST = 0.0
        cfg.TEST.DETECTIONS_PER_IMAGE = setting.people
        cfg.merge_from_list(opts)
        return cfg
    random = ["MODEL.WEIGHTS", "", "MODEL.TIMM.PRETRAINED", False]
    return read_config(setting.config_file, [*random, *opts])


def _fix_people(model: QueryPose, setting: Setting) -> None:
    """Makes the first queries the people of a picture, whatever the weights say."""
    num_queries = model.decoder.num_queries
    model.max_detections = num_queries if setting.decode_all else setting.people
    chosen = num_queries if setting.decode_all else min(setting.people, num_queries)
    decode_boxes = model.decoder.forward

    def with_fixed_logits(*args: Any) -> Any:
        states = decode_boxes(*args)
        logits = _fixed_logits(states[-1].logits, chosen)
        boxes = _whole_picture(states[-1].boxes, args[1])
        return [*states[:-1], states[-1]._replace(logits=logits, boxes=boxes, keypoint_boxes=boxes)]

    model.decoder.forward = with_fixed_logits


def _fix_matches(model: QueryPose, setting: Setting) -> None:
    """Makes people match the first queries at every stage, as those of a trained model agree."""
    match = model.criterion.match

    def with_fixed_logits(states: Any, targets: Any) -> Any:
        fixed = [
            state._replace(logits=_fixed_logits(state.logits, setting.people)) for state in states
        ]
        return match(fixed, targets)

    model.criterion.match = with_fixed_logits
    if setting.decode_all:
        every = torch.arange(model.decoder.num_queries, device=model.device)
        model._queries_to_train = lambda stages, pictures: [[every] * pictures] * len(stages)


def _fixed_logits(logits: Tensor, num_people: int) -> Tensor:
    fixed = torch.full_like(logits, _OTHER_LOGIT)
    fixed[:, :num_people] = _PERSON_LOGIT
    return fixed


def _whole_picture(boxes: Tensor, image_sizes: list[tuple[int, int]]) -> Tensor:
    """Boxes that are sure to lie inside their picture, so that none is dropped."""
    sizes = boxes.new_tensor([(0, 0, width, height) for height, width in image_sizes])
    return sizes[:, None].expand_as(boxes)


def _inputs(setting: Setting, model: nn.Module) -> list[dict[str, Any]]:
    size = (setting.height, setting.width)
    if setting.image:
        pixels = read_picture(setting.image, "RGB")
        resize = ResizeTransform(*pixels.shape[:2], *size)
        image = torch.from_numpy(resize.apply_image(pixels).transpose(2, 0, 1).copy())
    else:
        image = torch.randint(0, 256, (3, *size), dtype=torch.uint8)
    inputs = []
    for _ in range(setting.batch):
        given: dict[str, Any] = {"image": image}
        if setting.train:
            num_keypoints = model.skeleton.num_keypoints if hasattr(model, "skeleton") else 17
            given["instances"] = _people(setting.people, size, num_keypoints)
        inputs.append(given)
    return inputs


def _people(count: int, size: tuple[int, int], num_keypoints: int) -> Instances:
    height, width = size
    corner = torch.rand(count, 2) * torch.tensor([width / 2, height / 2])
    extent = torch.tensor([width, height]) * (0.1 + 0.4 * torch.rand(count, 2))
    keypoints = corner[:, None] + torch.rand(count, num_keypoints, 2) * extent[:, None]
    visible = torch.full((count, num_keypoints, 1), 2.0)
    return Instances(
        size,
        gt_boxes=Boxes(torch.cat([corner, corner + extent], dim=1)),
        gt_classes=torch.zeros(count, dtype=torch.long),
        gt_keypoints=Keypoints(torch.cat([keypoints, visible], dim=-1)),
    )
