"""coco/querypose_r50_light_3x.yaml as a LazyConfig, for Detectron2's tools/lazyconfig_train_net.py.

For other keypoints, replace ``skeleton`` and the names of the datasets.
"""

import detectron2.data.transforms as T
import torch
from detectron2 import model_zoo
from detectron2.config import LazyCall as L
from detectron2.data import (
    build_detection_test_loader,
    build_detection_train_loader,
    get_detection_dataset_dicts,
)
from detectron2.modeling.backbone import FPN, BasicStem, ResNet
from detectron2.solver import WarmupParamScheduler
from detectron2.solver.build import get_default_optimizer_params
from fvcore.common.param_scheduler import MultiStepParamScheduler
from omegaconf import OmegaConf

from querypose.data import QueryPoseDatasetMapper
from querypose.data.datasets.records import load_training_records
from querypose.engine.optimizer import build_clipping_optimizer
from querypose.evaluation import KeypointEvaluator
from querypose.modeling.meta_arch import QueryPose
from querypose.modeling.sparse.box_stage import BoxDecoderStage
from querypose.modeling.sparse.criterion import QueryPoseCriterion
from querypose.modeling.sparse.decoder import QueryPoseDecoder
from querypose.modeling.sparse.keypoint_stage import KeypointDecoderStage
from querypose.modeling.sparse.matcher import HungarianMatcher
from querypose.modeling.sparse.readout import KeypointReadout
from querypose.modeling.sparse.roi_pooling import build_roi_pooler
from querypose.skeleton import COCO_SKELETON, Skeleton

skeleton = COCO_SKELETON
lazy_skeleton = L(Skeleton.from_yaml)(text=skeleton.to_yaml())

num_stages = 6
box_maps, keypoint_maps = ["p2", "p3", "p4", "p5"], ["p2"]

box_stage = L(BoxDecoderStage)(
    dim=256,
    num_classes=1,
    num_heads=8,
    ffn_dim=2048,
    dynamic_dim=64,
    pooler_resolution=7,
)
keypoint_stage = L(KeypointDecoderStage)(
    dim=256,
    part_dim=128,
    part_indices=skeleton.part_indices,
    num_heads=8,
    ffn_dim=2048,
    num_convs=6,
    pooler_resolution=14,
    dynamic_dim=64,
    # True is the full model.
    feedback=False,
)

model = L(QueryPose)(
    backbone=L(FPN)(
        bottom_up=L(ResNet)(
            stem=L(BasicStem)(in_channels=3, out_channels=64, norm="FrozenBN"),
            stages=L(ResNet.make_default_stages)(depth=50, stride_in_1x1=False, norm="FrozenBN"),
            out_features=["res2", "res3", "res4", "res5"],
            freeze_at=2,
        ),
        in_features=["res2", "res3", "res4", "res5"],
        out_channels=256,
    ),
    decoder=L(QueryPoseDecoder)(
        box_stages=[box_stage for _ in range(num_stages)],
        keypoint_stages=[keypoint_stage for _ in range(num_stages)],
        box_pooler=L(build_roi_pooler)(
            output_size=7,
            scales=[1 / 4, 1 / 8, 1 / 16, 1 / 32],
            sampling_ratio=2,
            pooler_type="ROIAlignV2",
        ),
        keypoint_pooler=L(build_roi_pooler)(
            output_size=14, scales=[1 / 4], sampling_ratio=2, pooler_type="ROIAlignV2"
        ),
        box_in_features=box_maps,
        keypoint_in_features=keypoint_maps,
        num_queries=100,
        dim=256,
        num_parts=len(skeleton.parts),
        part_dim=128,
        feedback=False,
    ),
    criterion=L(QueryPoseCriterion)(
        matcher=L(HungarianMatcher)(class_cost=2.0, l1_cost=5.0, giou_cost=2.0),
        class_weight=2.0,
        l1_weight=5.0,
        giou_weight=2.0,
        keypoint_weight=1.0,
        part_of_keypoint=skeleton.part_of_keypoint,
    ),
    readout=L(KeypointReadout)(oks_sigmas=skeleton.sigmas),
    skeleton=lazy_skeleton,
    num_classes=1,
    pixel_mean=[123.675, 116.280, 103.530],
    pixel_std=[58.395, 57.120, 57.375],
    max_detections=20,
)

dataloader = OmegaConf.create()
dataloader.train = L(build_detection_train_loader)(
    dataset=L(load_training_records)(
        names=["keypoints_coco_2017_train"], filter_empty=True, min_keypoints=1
    ),
    mapper=L(QueryPoseDatasetMapper)(
        is_train=True,
        image_format="RGB",
        augmentations=[
            L(T.ResizeShortestEdge)(
                short_edge_length=[480, 512, 544, 576, 608, 640, 672, 704, 736, 768, 800],
                max_size=1333,
                sample_style="choice",
            ),
            L(T.RandomFlip)(horizontal=True),
        ],
        crop_augmentations=[
            L(T.ResizeShortestEdge)(short_edge_length=[400, 500, 600], sample_style="choice"),
            L(T.RandomCrop)(crop_type="absolute_range", crop_size=[384, 600]),
        ],
        skeleton=lazy_skeleton,
    ),
    total_batch_size=16,
    num_workers=4,
)
dataloader.test = L(build_detection_test_loader)(
    dataset=L(get_detection_dataset_dicts)(names="keypoints_coco_2017_val", filter_empty=False),
    mapper=L(QueryPoseDatasetMapper)(
        is_train=False,
        image_format="RGB",
        augmentations=[
            L(T.ResizeShortestEdge)(
                short_edge_length=[800, 800], max_size=1333, sample_style="choice"
            )
        ],
        crop_augmentations=[],
        skeleton=lazy_skeleton,
    ),
    num_workers=4,
)
dataloader.evaluator = L(KeypointEvaluator)(
    dataset_name="${..test.dataset.names}", tasks=("bbox", "keypoints")
)

# Clipped by the norm of all gradients together.
optimizer = L(build_clipping_optimizer)(
    kind=torch.optim.AdamW,
    max_norm=1.0,
    params=L(get_default_optimizer_params)(
        base_lr="${..lr}",
        weight_decay_norm=0.0001,
        lr_factor_func=lambda name: 10.0 if ".flow." in name else 1.0,
    ),
    lr=0.000025,
    weight_decay=0.0001,
)

train = model_zoo.get_config("common/train.py").train
train.max_iter = 140000
train.init_checkpoint = "detectron2://ImageNetPretrained/torchvision/R-50.pkl"
train.eval_period = 10000
train.output_dir = "output/lazy_querypose_r50_light_3x"
dataloader.evaluator.output_dir = train.output_dir

lr_multiplier = L(WarmupParamScheduler)(
    scheduler=L(MultiStepParamScheduler)(
        values=[1.0, 0.1, 0.01], milestones=[110000, 130000, 140000]
    ),
    warmup_length=1000 / train.max_iter,
    warmup_factor=0.01,
)
