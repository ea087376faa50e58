from __future__ import annotations

import torch

from querypose.modeling.sparse.feed_forward import FeedForward


def test_equals_the_formula(randomize):
    block = randomize(FeedForward(dim=6, hidden_dim=10))
    tokens = torch.randn(2, 3, 6)
    before = tokens.clone()
    hidden = (tokens @ block.linear1.weight.T + block.linear1.bias).clamp(min=0)
    added = tokens + hidden @ block.linear2.weight.T + block.linear2.bias
    centered = added - added.mean(dim=-1, keepdim=True)
    scaled = centered / (centered.square().mean(dim=-1, keepdim=True) + block.norm.eps).sqrt()
    torch.testing.assert_close(block(tokens), scaled * block.norm.weight + block.norm.bias)
    assert torch.equal(tokens, before)
