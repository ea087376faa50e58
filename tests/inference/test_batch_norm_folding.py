"""Batch norms are folded wherever possible, without a change of the features."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import timm
import torch
from detectron2.layers import FrozenBatchNorm2d
from timm.layers import freeze_batch_norm_2d
from torch import Tensor, nn

from querypose.inference.batch_norm_folding import fold_batch_norms


class Backbone(nn.Module):
    """A network with one feature map."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        return {"res5": self.network(images)}


class Model(nn.Module):
    """The attributes of a meta-architecture that folding needs."""

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone
        self.register_buffer("pixel_mean", torch.zeros(3, 1, 1))


def count_norms(model: nn.Module) -> int:
    return sum(hasattr(module, "running_mean") for module in model.modules())


@pytest.fixture
def fold_and_compare(fill_batch_norms) -> Callable[[nn.Module], int]:
    """Folds a trained network, checks that its features stay the same, and counts folded norms."""

    @torch.no_grad()
    def fold(network: nn.Module) -> int:
        plain = Model(Backbone(fill_batch_norms(network))).eval()
        image = torch.randn(1, 3, 96, 64)
        folded = copy.deepcopy(plain)
        count = fold_batch_norms(folded)
        expected, actual = plain.backbone(image)["res5"], folded.backbone(image)["res5"]
        tolerance = 1e-5 * float(expected.abs().max())
        torch.testing.assert_close(actual, expected, rtol=1e-4, atol=tolerance)
        assert count_norms(folded) == count_norms(plain) - count
        return count

    return fold


@pytest.mark.parametrize("frozen", [False, True], ids=["trained", "frozen"])
@pytest.mark.parametrize(
    "name", ["resnet18", "tf_efficientnet_lite0", "mobilenetv3_small_100", "regnetx_002"]
)
def test_all_norms_of_common_networks(fold_and_compare, name, frozen):
    network = timm.create_model(name, num_classes=0)
    if frozen:
        network = freeze_batch_norm_2d(network)
    assert fold_and_compare(network) == count_norms(network) > 0


def test_network_with_norms_before_convolutions(fold_and_compare):
    """Each block begins with a norm of concatenated maps, which no convolution can absorb."""
    network = timm.create_model("densenet121", num_classes=0)
    assert 0 < fold_and_compare(network) < count_norms(network)


def test_inference_mode_leaves_the_network_as_it_is(fold_and_compare):
    network = timm.create_model("tf_efficientnet_lite0", num_classes=0)
    with torch.inference_mode():
        assert fold_and_compare(network) == 0


def test_the_whole_model(tiny_model, fill_batch_norms):
    model = fill_batch_norms(tiny_model().eval())
    norms = count_norms(model)
    assert any(isinstance(module, FrozenBatchNorm2d) for module in model.modules())
    assert fold_batch_norms(model) == norms > 0
    assert count_norms(model) == 0


class Branching(nn.Module):
    """A convolution and a norm; subclasses connect them."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)
        self.norm = nn.BatchNorm2d(3)


class Plain(Branching):
    def forward(self, image: Tensor) -> Tensor:
        return self.norm(self.conv(image))


class ActivatedBetween(Branching):
    def forward(self, image: Tensor) -> Tensor:
        return self.norm(self.conv(image).relu_())


class ConvolvedTwice(Branching):
    def forward(self, image: Tensor) -> Tensor:
        return self.norm(self.conv(self.conv(image)))


class NormedTwice(Branching):
    def forward(self, image: Tensor) -> Tensor:
        return self.norm(self.norm(self.conv(image)))


class UsedTwice(Branching):
    def forward(self, image: Tensor) -> Tensor:
        convolved = self.conv(image)
        return self.norm(convolved) + convolved


class AlsoAnOutput(Branching):
    """The result of the convolution is also an output."""

    def forward(self, image: Tensor) -> Tensor:
        convolved = self.conv(image)
        return torch.cat([convolved, self.norm(convolved)])


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (Plain, 1),
        (ActivatedBetween, 0),
        (ConvolvedTwice, 0),
        (NormedTwice, 0),
        (UsedTwice, 0),
        (AlsoAnOutput, 0),
    ],
)
def test_only_norms_directly_after_one_convolution(fold_and_compare, kind, expected):
    assert fold_and_compare(kind()) == expected
