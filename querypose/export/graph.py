"""From a model to an ONNX graph."""

from __future__ import annotations

import copy
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import onnx
import timm
import torch
from detectron2.modeling.backbone.swin import SwinTransformer
from onnx import ModelProto, compose
from torch import Tensor, nn
from torch.export import Dim
from torch.onnx import OnnxExporterError

from querypose.export.same_padding import fix_same_padding
from querypose.export.swin_windows import open_swin_batch
from querypose.export.translations import TRANSLATIONS
from querypose.modeling.pose_model import PeopleBatch, PoseModel

OPSET = 18
"""RoIAlign with half-pixel coordinates came with 16; this is what PyTorch's exporter writes."""

INPUT_NAME = "image"
OUTPUT_NAMES = PeopleBatch._fields
INPUT_TYPES = {"uint8": torch.uint8, "float32": torch.float32}

_OF_ONE_SIZE = (SwinTransformer, timm.models.swin_transformer.SwinTransformer)
_AXES = ("batch", "", "height", "width")
_BETWEEN = ("padded_images", "image_sizes")
# Of the images that the graph is traced with; no special numbers, and not square.
_TRACED_BATCH, _TRACED_SIZE = 2, (192, 256)


# Below, `tensor.shape[0]` may be a symbol, whereas `len(tensor)` makes it a number.


class _Preparation(nn.Module):
    """Normalizes and pads images, and returns their sizes, too."""

    def __init__(self, model: PoseModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        ones = torch.ones(images.shape[0], 1)
        sizes = torch.cat([ones * images.shape[2], ones * images.shape[3]], dim=1)
        return self.model.preprocess_tensor(images), sizes


class _Detection(nn.Module):
    """Detects people in padded images."""

    def __init__(self, model: PoseModel, max_people: int) -> None:
        super().__init__()
        self.model = model
        self.max_people = max_people

    def forward(self, images: Tensor, image_sizes: Tensor) -> tuple[Tensor, ...]:
        return tuple(self.model.detect_at_most(images, image_sizes, self.max_people))


def build_graph(
    model: PoseModel,
    *,
    max_people: int,
    size: tuple[int, int] | None = None,
    input_type: str = "uint8",
) -> ModelProto:
    """Exports a model: images in, people out.

    The padding to a multiple of the backbone's stride is a graph of its own, put before the rest:
    the exporter then knows that the maps of all strides have whole sizes, and need not prove it
    anew at every layer.

    Args:
        model: in evaluation mode, on the CPU.
        max_people: n, see :meth:`PoseModel.detect_at_most`.
        size: height and width of all images; None leaves them open.
        input_type: one of :data:`INPUT_TYPES`.

    Raises:
        ValueError: the model cannot be exported, or not for images of any size.
    """
    if size is None and any(isinstance(module, _OF_ONE_SIZE) for module in model.modules()):
        raise ValueError(
            "A Swin backbone lays its attention windows out for one size of images, which its "
            "graph is then limited to: pass --size HEIGHT WIDTH (`size` in Python)."
        )
    # Channels-last weights would become transpositions in the graph.
    model = copy.deepcopy(model).to(memory_format=torch.contiguous_format)
    fix_same_padding(model)
    images = torch.zeros(_TRACED_BATCH, 3, *(size or _TRACED_SIZE), dtype=INPUT_TYPES[input_type])
    preparation, detection = _Preparation(model), _Detection(model, max_people)
    between = _between(preparation, detection, images)
    batch = Dim("batch", min=1)
    divisor = model.backbone.size_divisibility or 1
    sides = {2: Dim("height", min=1), 3: Dim("width", min=1)} if size is None else {}
    padded_sides = {axis: divisor * side for axis, side in sides.items()}
    first = _export(preparation, (images,), ({0: batch, **sides},), [INPUT_NAME], _BETWEEN)
    dynamic_shapes = ({0: batch, **padded_sides}, {0: batch})
    second = _export(detection, between, dynamic_shapes, _BETWEEN, OUTPUT_NAMES)
    if size is None:
        _refuse_fixed_axes(second)
    first = compose.add_prefix(first, "prepare/", rename_inputs=False, rename_outputs=False)
    merged = compose.merge_models(first, second, io_map=[(name, name) for name in _BETWEEN])
    # Both graphs' declarations of one set of operators; onnxruntime's quantization takes one alone.
    del merged.opset_import[:]
    merged.opset_import.add(domain="", version=OPSET)
    return merged


@torch.no_grad()
def _between(
    preparation: _Preparation, detection: _Detection, images: Tensor
) -> tuple[Tensor, Tensor]:
    """What goes from one graph to the other; the exporter would hide the reason of an error."""
    between = preparation(images)
    try:
        detection(*between)
    except NotImplementedError as error:
        raise ValueError(f"This model cannot be exported: {error}") from error
    return between


def _refuse_fixed_axes(proto: ModelProto) -> None:
    """Raises ValueError if tracing has fixed an axis that was to be open."""
    (images, _) = proto.graph.input
    fixed = [
        name
        for name, axis in zip(_AXES, images.type.tensor_type.shape.dim, strict=True)
        if name and not axis.dim_param
    ]
    if fixed:
        raise ValueError(
            f"In the graph of this model {' and '.join(fixed)} cannot be left open: pass --size."
        )


def _export(
    module: nn.Module,
    inputs: tuple[Tensor, ...],
    dynamic_shapes: tuple[dict[int, Dim], ...],
    input_names: tuple[str, ...] | list[str],
    output_names: tuple[str, ...],
) -> ModelProto:
    try:
        with torch.no_grad(), open_swin_batch(), _silence():
            program = torch.onnx.export(
                module.eval(),
                inputs,
                dynamo=True,
                dynamic_shapes=dynamic_shapes,
                input_names=list(input_names),
                output_names=list(output_names),
                opset_version=OPSET,
                custom_translation_table=TRANSLATIONS,
                verbose=False,
            )
    except OnnxExporterError as error:
        reason = str(error.__cause__ or error).strip().partition("\n")[0]
        raise ValueError(f"PyTorch's exporter fails with this model: {reason}") from error
    proto = program.model_proto
    # The exporter writes whole stack traces for every node.
    for node in proto.graph.node:
        del node.metadata_props[:]
    onnx.checker.check_model(proto)
    return proto


@contextmanager
def _silence() -> Iterator[None]:
    """Without the exporter's remarks on its own progress."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
