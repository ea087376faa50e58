"""The smallest pose model: one person per image, each keypoint where a map looks on average.

As a script it trains two iterations of two accumulated batches: ``one_person.py FOLDER``.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch
from detectron2.modeling import META_ARCH_REGISTRY, build_backbone
from detectron2.structures import Boxes, Instances
from torch import nn

from querypose.config import read_config
from querypose.engine import QueryPoseTrainer, launch
from querypose.modeling.loss_normalizer import mean_over_processes
from querypose.modeling.pose_model import (
    PoseModel,
    rescale_instances,
    skeleton_from_config,
    wanted_size,
)

STRIDE = 4


@META_ARCH_REGISTRY.register()
class OnePerson(PoseModel):
    def __init__(self, cfg):
        super().__init__(
            backbone=build_backbone(cfg),
            skeleton=skeleton_from_config(cfg),
            num_classes=1,
            pixel_mean=cfg.MODEL.PIXEL_MEAN,
            pixel_std=cfg.MODEL.PIXEL_STD,
        )
        channels = self.backbone.output_shape()["concat"].channels
        self.maps = nn.Conv2d(channels, self.skeleton.num_keypoints, 1)

    def forward(self, batched_inputs):
        images = self.preprocess_images(batched_inputs)
        maps = self.maps(self.backbone(images.tensor)["concat"])
        weights = maps.flatten(2).softmax(dim=-1)
        y, x = torch.meshgrid(*map(torch.arange, maps.shape[2:]), indexing="ij")
        grid = STRIDE * (torch.stack([x, y], dim=-1).flatten(0, 1).to(maps) + 0.5)
        places = weights @ grid
        if self.training:
            targets = [given["instances"].gt_keypoints.tensor for given in batched_inputs]
            errors = [
                place[None] - target[..., :2] for place, target in zip(places, targets, strict=True)
            ]
            total = torch.cat(errors).abs().mean(dim=(1, 2)).sum()
            return {"loss_place": total / self.loss_normalizers(batched_inputs)["loss_place"]}
        scores = weights.amax(dim=-1).mean(dim=-1, keepdim=True)
        people = map(self._person, places, scores, images.image_sizes, batched_inputs)
        return [
            {"instances": rescale_instances(person, wanted_size(given, person.image_size))}
            for person, given in zip(people, batched_inputs, strict=True)
        ]

    def _person(self, places, score, image_size, given):
        keypoints = torch.cat([places, score.expand(len(places), 1)], dim=-1)
        person = Instances(
            image_size,
            pred_boxes=Boxes(torch.cat([places.amin(dim=0), places.amax(dim=0)])[None]),
            scores=score,
            pred_classes=torch.zeros(1, dtype=torch.int64),
            pred_keypoints=keypoints[None],
        )
        return person[person.scores >= given.get("score_threshold", 0.0)]

    def parts(self):
        return {"backbone": [self.backbone], "maps": [self.maps]}

    def is_skeleton_dependent(self, tensor_name):
        return tensor_name.startswith("maps.")

    def loss_normalizers(self, batched_inputs):
        count = torch.tensor(sum(len(given["instances"]) for given in batched_inputs))
        return {"loss_place": mean_over_processes(count)}

    def fix_num_people(self, count):
        """There is always one."""


def config(folder, *opts):
    tiny = Path(__file__).parents[1] / "engine" / "tiny.yaml"
    return read_config(
        tiny,
        [
            *("MODEL.META_ARCHITECTURE", "OnePerson", "OUTPUT_DIR", str(folder)),
            *("MODEL.BACKBONE.NAME", "build_timm_concat_backbone"),
            *("INPUT.CROP.ENABLED", False, "SOLVER.OPTIMIZER", "SGD", "SOLVER.BASE_LR", 0.0001),
            *("SOLVER.MAX_ITER", 2, "SOLVER.IMS_PER_BATCH", 4, "SOLVER.CHECKPOINT_PERIOD", 2),
            *("SOLVER.WARMUP_ITERS", 0, "SOLVER.CLIP_GRADIENTS.ENABLED", False),
            *opts,
        ],
    )


def train(folder, *opts):
    """Trains with batch norms at rest: they see what is in a process's batch alone."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    trainer = QueryPoseTrainer(config(folder, "DATASETS.TEST", "()", *opts))
    for module in trainer.model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    trainer.resume_or_load(resume=False)
    trainer.train()
    return trainer


def _train_accumulated(args):
    train(args.folder, "SOLVER.ACCUMULATE_STEPS", 2, "SOLVER.IMS_PER_BATCH", 2)


if __name__ == "__main__":
    launch(_train_accumulated, argparse.Namespace(folder=sys.argv[1]), device="cpu")
