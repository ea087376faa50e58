from __future__ import annotations

from functools import partial

import pytest
import torch
from detectron2.modeling import build_model

from querypose.config import read_config

# What a released checkpoint has beyond its model's own parameters, in millions.
_GATES = 6 * (128 * 128 + 2 * 128) / 1e6
_HRFPN = (9 * 256 * 256 + 256) / 1e6
_LATERAL_HRFPN = (9 * 256 * 256 + 48 * 256) / 1e6


@pytest.mark.parametrize(
    ("name", "published", "unused"),
    [
        ("r50", 322.6, _GATES),
        ("r50_light", 188.7, _GATES),
        ("hrnet_w32_light", 194.3, _GATES + _HRFPN),
        ("hrnet_w48", 364.5, _GATES + _LATERAL_HRFPN),
        ("swin_l", 493.9, _GATES),
    ],
)
def test_a_published_model_has_its_parameters(name, published, unused, repository, monkeypatch):
    # Swin reads the numbers of a linspace, and a tensor on the meta device has none.
    monkeypatch.setattr(torch, "linspace", partial(torch.linspace, device="cpu"))
    (config,) = (repository / "configs" / "coco").glob(f"querypose_{name}_[36]x.yaml")
    with torch.device("meta"):
        model = build_model(read_config(config, ["MODEL.DEVICE", "meta"]))
    flow = sum(p.numel() for p in model.criterion.parameters())
    count = sum(p.numel() for p in model.parameters()) / 1e6
    assert flow == 53_784
    assert count + unused == pytest.approx(published, abs=0.051)
