"""A model with its input, ready to be measured."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from typing import Any

import torch
from detectron2 import model_zoo
from detectron2.config import CfgNode, get_cfg
from detectron2.data.transforms import ResizeTransform
from detectron2.modeling import build_model
from detectron2.structures import Boxes, Instances, Keypoints
from detectron2.utils.events import EventStorage
from torch import nn

from querypose.checkpoint import QueryPoseCheckpointer
from querypose.config import add_querypose_config, read_config
from querypose.data.datasets.coco import register_configured_datasets
from querypose.data.image import read_image
from querypose.engine.memory_layout import use_fast_layout
from querypose.engine.optimizer import build_optimizer
from querypose.inference.acceleration import accelerate_inference
from querypose.modeling.pose_model import PoseModel
from querypose.precision import AutocastModel, autocast
from querypose.tools.benchmark.cost import Cost, count_cost
from querypose.tools.benchmark.setting import Setting
from querypose.tools.benchmark.stopwatch import Stopwatch


class Workload:
    """A model with its input, for repeated runs.

    Args:
        setting: what to build. Weights are random unless ``opts`` set ``MODEL.WEIGHTS``.

    Attributes:
        device: of the model.
    """

    def __init__(self, setting: Setting) -> None:
        torch.manual_seed(0)
        self.setting = setting
        self.cfg = read_setting_config(setting)
        # They declare the model's keypoints.
        register_configured_datasets(self.cfg)
        self.model = build_model(self.cfg)
        QueryPoseCheckpointer(self.model).load(self.cfg.MODEL.WEIGHTS)
        self.inputs = _inputs(setting, self.model)
        clock = time.process_time if setting.processor_time else time.perf_counter
        self.device = torch.device(self.cfg.MODEL.DEVICE)
        self._stopwatch = Stopwatch(self.device, clock)
        if isinstance(self.model, PoseModel):
            self.model.fix_num_people(setting.people)
            self._stopwatch.watch(self.model.parts())

    def run(self) -> dict[str, float]:
        """Runs once; returns seconds by part, ``total`` among them."""
        self._stopwatch.seconds.clear()
        start = self._stopwatch.now()
        self._step()
        return {**self._stopwatch.seconds, "total": self._stopwatch.now() - start}

    def cost(self) -> Cost:
        """Parameters, and multiply-adds of a forward pass, of the model before acceleration."""
        # Other random weights might give infinite maps, which Detectron2's models refuse.
        torch.manual_seed(0)
        model = build_model(self.cfg)
        if isinstance(model, PoseModel):
            model.fix_num_people(self.setting.people)
        with EventStorage():
            return count_cost(model.train(self.setting.train), self.inputs)

    @functools.cached_property
    def _step(self) -> Callable[[], object]:
        # Built at the first run: until then the model is not accelerated.
        return self._training_step() if self.setting.train else self._inference_step()

    def _inference_step(self) -> Callable[[], object]:
        model = self.model.eval()
        if isinstance(model, PoseModel):
            model = accelerate_inference(model, self.cfg)
        else:
            model = AutocastModel(model, self.cfg.MODEL.INFERENCE.PRECISION)
        if self.setting.compiled:
            # The rest of a model depends on its input too much to be compiled. Hooks stay outside.
            backbone = self.model.backbone
            backbone.forward = torch.compile(backbone.forward)

        @torch.no_grad()
        def step() -> object:
            return model(self.inputs)

        return step

    def _training_step(self) -> Callable[[], object]:
        model = self.model.train()
        use_fast_layout(model)
        optimizer = build_optimizer(self.cfg, model)
        amp = self.cfg.SOLVER.AMP
        precision = amp.PRECISION if amp.ENABLED else "fp32"

        def step() -> None:
            optimizer.zero_grad()
            # Detectron2's models write metrics in training.
            with EventStorage(), autocast(self.device, precision):
                losses = model(self.inputs)
            with self._stopwatch.measure("backward"):
                sum(losses.values()).backward()
            with self._stopwatch.measure("optimizer"):
                optimizer.step()

        return step


def read_setting_config(setting: Setting) -> CfgNode:
    """The config of a setting, for weights that are not trained."""
    opts = ["MODEL.DEVICE", setting.device, *setting.opts]
    if setting.config_file.startswith("COCO-"):
        cfg = get_cfg()
        add_querypose_config(cfg)
        cfg.merge_from_file(model_zoo.get_config_file(setting.config_file))
        cfg.MODEL.WEIGHTS = ""
        # The scores of an untrained detector are low.
        cfg.MODEL.ROI_HEADS.SCORE_THRESH_TEST = 0.0
        cfg.TEST.DETECTIONS_PER_IMAGE = setting.people
        cfg.merge_from_list(opts)
        return cfg
    untrained: list[object] = ["MODEL.WEIGHTS", "", "MODEL.TIMM.PRETRAINED", False]
    if setting.compiled:
        # A compiler sees plain convolutions.
        untrained += ["MODEL.INFERENCE.WINOGRAD_MEMORY", 0.0]
    return read_config(setting.config_file, [*untrained, *opts])


def _inputs(setting: Setting, model: nn.Module) -> list[dict[str, Any]]:
    size = (setting.height, setting.width)
    if setting.image:
        pixels = read_image(setting.image, "RGB")
        resize = ResizeTransform(*pixels.shape[:2], *size)
        image = torch.from_numpy(resize.apply_image(pixels).transpose(2, 0, 1).copy())
    else:
        image = torch.randint(0, 256, (3, *size), dtype=torch.uint8)
    inputs = []
    for _ in range(setting.batch):
        image_input: dict[str, Any] = {"image": image}
        if setting.train:
            num_keypoints = model.skeleton.num_keypoints if hasattr(model, "skeleton") else 17
            image_input["instances"] = _random_people(setting.people, size, num_keypoints)
        inputs.append(image_input)
    return inputs


def _random_people(count: int, size: tuple[int, int], num_keypoints: int) -> Instances:
    height, width = size
    corner = torch.rand(count, 2) * torch.tensor([width / 2, height / 2])
    extent = torch.tensor([width, height]) * (0.1 + 0.4 * torch.rand(count, 2))
    keypoints = corner[:, None] + torch.rand(count, num_keypoints, 2) * extent[:, None]
    visible = torch.full((count, num_keypoints, 1), 2.0)
    areas = extent.prod(dim=1)
    return Instances(
        size,
        gt_boxes=Boxes(torch.cat([corner, corner + extent], dim=1)),
        gt_classes=torch.zeros(count, dtype=torch.long),
        gt_keypoints=Keypoints(torch.cat([keypoints, visible], dim=-1)),
        # The dense methods' mapper adds them.
        gt_areas=areas,
        gt_box_areas=areas,
    )
