from __future__ import annotations

import torch

from querypose.modeling.sparse.dynamic_conv import DynamicConv

DIM, DYNAMIC_DIM, HEIGHT, WIDTH = 6, 4, 2, 3


def _by_loops(layer, query, roi):
    """One query: explicit filters, applied position by position."""
    numbers = layer.dynamic_layer.weight @ query + layer.dynamic_layer.bias
    squeeze = torch.empty(DIM, DYNAMIC_DIM)
    expand = torch.empty(DYNAMIC_DIM, DIM)
    for channel in range(DIM):
        for inner in range(DYNAMIC_DIM):
            squeeze[channel, inner] = numbers[channel * DYNAMIC_DIM + inner]
            expand[inner, channel] = numbers[DIM * DYNAMIC_DIM + inner * DIM + channel]
    outputs = []
    for row in range(HEIGHT):
        for column in range(WIDTH):
            hidden = layer.norm1(roi[:, row, column] @ squeeze).relu()
            outputs.append(layer.norm2(hidden @ expand).relu())
    return layer.norm3(layer.out_layer(torch.cat(outputs))).relu()


def test_equals_a_loop_over_queries_and_positions(randomize):
    layer = randomize(DynamicConv(dim=DIM, dynamic_dim=DYNAMIC_DIM, num_positions=HEIGHT * WIDTH))
    queries, rois = torch.randn(5, DIM), torch.randn(5, DIM, HEIGHT, WIDTH)
    with torch.no_grad():
        expected = torch.stack(
            [_by_loops(layer, *pair) for pair in zip(queries, rois, strict=True)]
        )
        actual = layer(queries, rois)
    assert (actual > 0).any()
    torch.testing.assert_close(actual, expected)


def test_no_query_gives_no_row(randomize):
    layer = randomize(DynamicConv(dim=DIM, dynamic_dim=DYNAMIC_DIM, num_positions=HEIGHT * WIDTH))
    output = layer(torch.zeros(0, DIM), torch.zeros(0, DIM, HEIGHT, WIDTH))
    assert output.shape == (0, DIM)
    output.sum().backward()
    assert all(parameter.grad is not None for parameter in layer.parameters())
