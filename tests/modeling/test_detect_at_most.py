"""`detect_at_most`, for export, finds the people of `forward`."""

from __future__ import annotations

import pytest
import torch
from detectron2.modeling import build_model
from torch import nn

from querypose.config import read_config
from querypose.inference.model_loading import find_config, load_model

_SMALL = (
    *("MODEL.DEVICE", "cpu", "MODEL.BACKBONE.NAME", "build_timm_concat_backbone"),
    *("MODEL.TIMM.NAME", "mobilenetv3_small_050", "MODEL.PINET.MAX_PEAKS", 10),
    *("MODEL.QUALITY_POSE.KEYPOINT_CHANNELS", 4, "MODEL.QUALITY_POSE.INSTANCE_CHANNELS", 8),
    *("MODEL.QUALITY_POSE.MAX_PEAKS", 10),
)


def _model(name):
    if name == "lite0":
        cfg, _ = find_config(None, opts=["MODEL.DEVICE", "cpu"])
        return load_model(cfg)
    if name == "two_classes":
        torch.manual_seed(0)
        opts = ["MODEL.QUERYPOSE.NUM_CLASSES", 2, "MODEL.QUERYPOSE.NMS_OKS_THRESHOLD", 1.0]
        model = build_model(read_config("lite0", ["MODEL.DEVICE", "cpu", *opts])).eval()
        torch.manual_seed(0)
        nn.init.normal_(model.decoder.box_stages[-1].class_logits.weight, std=0.3)
        return model
    torch.manual_seed(0)
    config, _, switch = name.partition(" ")
    changes = {"": (), "by_part": ("MODEL.PINET.SORT_BY", "part_score")}[switch]
    model = build_model(read_config(f"coco/{config}_hrnet_w32", [*_SMALL, *changes])).eval()
    for parameter_name, parameter in model.head.named_parameters():
        if parameter.dim() > 1:
            nn.init.kaiming_normal_(parameter)
        elif parameter_name.startswith(("parts.", "heatmaps.", "score_branch.score.")):
            nn.init.constant_(parameter, 0.2)
    return model


def _image(height, width, seed):
    torch.manual_seed(seed)
    coarse = torch.rand(1, 3, height // 8, width // 8)
    return 255 * nn.functional.interpolate(coarse, size=(height, width), mode="bilinear")[0]


@pytest.mark.parametrize("name", ["lite0", "two_classes", "pinet", "pinet by_part", "quality_pose"])
@pytest.mark.parametrize(("height", "width"), [(120, 200), (256, 96)])
@torch.no_grad()
def test_it_finds_the_people_of_forward(name, height, width):
    model = _model(name)
    images = torch.stack([_image(height, width, seed) for seed in range(2)])
    sizes = torch.tensor([[height, width]] * 2)
    found = model.detect_at_most(model.preprocess_tensor(images), sizes, 100)
    for index, output in enumerate(model([{"image": image} for image in images])):
        people = output["instances"]
        # `forward` of QueryPose gives the best twenty.
        count = len(people)
        assert count > 0 and found.valid[index, :count].all()
        expected = int(found.valid[index].sum())
        assert count == (min(20, expected) if model.num_queries_key else expected)
        for mine, theirs in (
            (found.scores, people.scores),
            (found.boxes, people.pred_boxes.tensor),
            (found.keypoints, people.pred_keypoints),
        ):
            torch.testing.assert_close(mine[index, :count], theirs, atol=2e-3, rtol=1e-4)
        assert torch.equal(found.classes[index, :count], people.pred_classes)
    assert not found.scores[~found.valid].any()
    assert set(found.classes[found.valid].tolist()) == set(range(model.num_classes))


@torch.no_grad()
def test_fewer_people_than_asked_for_are_the_best():
    model = _model("quality_pose")
    images = model.preprocess_tensor(_image(128, 160, 0)[None])
    sizes = torch.tensor([[128, 160]])
    every, best = (model.detect_at_most(images, sizes, count) for count in (100, 3))
    assert best.keypoints.shape[1] == 3 < every.keypoints.shape[1]
    assert torch.equal(best.keypoints, every.keypoints[:, :3])


@torch.no_grad()
def test_several_scales_are_refused():
    model = _model("quality_pose")
    model.test_scales = (0.5, 1.0)
    with pytest.raises(ValueError, match="TEST_SCALES"):
        model.detect_at_most(torch.zeros(1, 3, 64, 64), torch.tensor([[64, 64]]), 5)
