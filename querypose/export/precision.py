"""Smaller files: weights in half precision or as 8-bit integers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import ModelProto, TensorProto, numpy_helper
from onnxruntime.quantization import QuantType, quantize_dynamic

PRECISIONS = ("fp32", "fp16", "int8")

# Smaller tensors are biases, norms and constants, of which half precision saves nothing.
_MIN_NUMBERS = 1024
# What onnxruntime computes with integers faster than with floats; of convolutions it does not.
_QUANTIZED = ("MatMul", "Gemm")


def halve_weights(proto: ModelProto) -> None:
    """Stores large weights in half precision, in place; the graph still computes in float32.

    A runtime widens them once, when it loads the file.
    """
    graph = proto.graph
    casts = []
    for tensor in graph.initializer:
        if tensor.data_type != TensorProto.FLOAT or np.prod(tensor.dims) < _MIN_NUMBERS:
            continue
        with np.errstate(over="ignore"):
            halved = numpy_helper.to_array(tensor).astype(np.float16)
        if not np.isfinite(halved).all():
            continue
        name = tensor.name
        tensor.CopyFrom(numpy_helper.from_array(halved, f"{name}/half"))
        casts.append(onnx.helper.make_node("Cast", [tensor.name], [name], to=TensorProto.FLOAT))
    nodes = [*casts, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)


def quantize(path: Path) -> None:
    """Turns the weights of matrix products into 8-bit integers, in place.

    onnxruntime rounds the other factors of these products when it runs the file ("dynamic").
    """
    quantize_dynamic(path, path, op_types_to_quantize=_QUANTIZED, weight_type=QuantType.QInt8)
    proto = onnx.load(path)
    # onnxruntime's own mark, which is no JSON.
    kept = [prop for prop in proto.metadata_props if prop.key != "onnx.infer"]
    del proto.metadata_props[:]
    proto.metadata_props.extend(kept)
    onnx.save(proto, path)
