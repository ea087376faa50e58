from __future__ import annotations

import json

import pytest
import torch

from querypose.checkpoint import QueryPoseCheckpointer
from querypose.checkpoint.pinet_released import convert_pinet_state_dict
from querypose.config import read_config
from querypose.modeling.meta_arch.pinet import PINet

SHAPES = {"coco": ("pinet_coco", 2), "crowdpose": ("pinet_crowdpose", 3)}


@pytest.fixture
def published(repository):
    """Random tensors of the names and shapes of a published file, without the backbone."""

    def make(dataset: str) -> dict[str, torch.Tensor]:
        path = repository / "tests" / "golden" / "dense" / f"{SHAPES[dataset][0]}.shapes.json"
        shapes = json.loads(path.read_text())
        torch.manual_seed(0)
        return {
            name: torch.tensor(5) if name.endswith("num_batches_tracked") else torch.randn(shape)
            for name, shape in shapes.items()
            if not name.startswith("backbone.")
        }

    return make


def test_offsets_and_corrections_change_their_sign(published):
    weights = published("coco")
    converted = convert_pinet_state_dict(weights)
    for kind in ("weight", "bias"):
        assert torch.equal(converted[f"head.offsets.{kind}"], -weights[f"ppg.offset_head.{kind}"])
        correction = -weights[f"pr.gconv_pred.3.{kind}"]
        assert torch.equal(
            converted[f"refinement.correction.{kind}"],
            correction.flatten(1) if kind == "weight" else correction,
        )
        assert torch.equal(converted[f"head.parts.{kind}"], weights[f"ppg.detkptmap_head.{kind}"])
    assert torch.equal(converted["refinement.adjacency"], weights["pr.adj"])
    block = "pr.gconv_layers.1.gconv2."
    assert torch.equal(converted["refinement.layers.1.1.weight"], weights[f"{block}conv.weight"])
    norm = converted["refinement.layers.1.1.norm.running_var"]
    assert torch.equal(norm, weights[f"{block}bn.running_var"])


def test_an_unknown_name_is_refused(published):
    with pytest.raises(ValueError, match=r"'pr.extra.weight', which no released PINet has"):
        convert_pinet_state_dict(published("coco") | {"pr.extra.weight": torch.zeros(1)})


@pytest.fixture
def build(repository):
    def make(dataset: str) -> PINet:
        cfg = read_config(repository / "configs" / dataset / "pinet_hrnet_w32_released.yaml")
        cfg.MODEL.DEVICE = "cpu"
        return PINet(cfg)

    return make


CONTAINERS = {
    "bare": lambda weights: weights,
    "training": lambda weights: {
        "epoch": 3,
        "state_dict": {
            f"module.{name}": torch.zeros_like(value) for name, value in weights.items()
        },
        "best_state_dict": weights,
        "perf": 0.6,
    },
    "without_best": lambda weights: {
        "state_dict": {f"module.{name}": value for name, value in weights.items()}
    },
}


@pytest.mark.parametrize(
    ("dataset", "container"),
    [("coco", "bare"), ("crowdpose", "training"), ("coco", "without_best")],
)
def test_published_files_load(dataset, container, published, build, tmp_path):
    model = build(dataset)
    assert model.refinement.sampler == "released"
    assert len(model.refinement.layers) == SHAPES[dataset][1]
    weights = published(dataset) | {
        name.replace("backbone.bottom_up.", "backbone."): value
        for name, value in model.state_dict().items()
        if name.startswith("backbone.")
    }
    path = tmp_path / "model_best.pth"
    torch.save(CONTAINERS[container](weights), path)
    QueryPoseCheckpointer(model).load(str(path))
    expected = convert_pinet_state_dict(weights)
    state = model.state_dict()
    assert state.keys() == expected.keys()
    assert all(torch.equal(state[name], value) for name, value in expected.items())


def test_a_published_file_of_another_skeleton_is_refused(published, build, tmp_path):
    path = tmp_path / "model_best.pth"
    torch.save(published("crowdpose"), path)
    with pytest.raises(ValueError, match="does not fit the configured model"):
        QueryPoseCheckpointer(build("coco")).load(str(path))


def test_plain_load_state_dict_reads_published_names(published, build):
    model, weights = build("coco"), published("coco")
    missing = model.load_state_dict(dict(weights), strict=False).missing_keys
    assert all(name.startswith("backbone.") for name in missing)
    assert torch.equal(model.head.offsets.weight, -weights["ppg.offset_head.weight"])


def test_an_imagenet_hrnet_becomes_the_backbone(repository, tmp_path):
    cfg = read_config(repository / "configs" / "coco" / "pinet_hrnet_w32.yaml")
    cfg.MODEL.HRNET.NAME, cfg.MODEL.DEVICE = "hrnet_w18_small", "cpu"
    model = PINet(cfg)
    head = {name: value.clone() for name, value in model.head.state_dict().items()}
    torch.manual_seed(1)
    published = {
        name: torch.randn(value.shape).to(value.dtype)
        for name, value in model.backbone.bottom_up.state_dict().items()
    }
    path = tmp_path / "hrnet.pth"
    torch.save(published | {"classifier.weight": torch.zeros(1000, 2048)}, path)
    QueryPoseCheckpointer(model).load(str(path))
    state = model.backbone.bottom_up.state_dict()
    assert all(torch.equal(state[name], value) for name, value in published.items())
    assert all(torch.equal(value, head[name]) for name, value in model.head.state_dict().items())
