"""Trained models as ONNX files."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import NamedTuple

import onnx
import torch
from detectron2.config import CfgNode

from querypose.atomic_files import atomic_file
from querypose.export.description import describe
from querypose.export.graph import INPUT_TYPES, build_graph
from querypose.export.precision import PRECISIONS, halve_weights, quantize
from querypose.export.verification import Difference, check_file, compare_with_model
from querypose.inference.model_loading import find_config, load_model
from querypose.modeling.pose_model import PoseModel
from querypose.synthetic import SyntheticPeople, render

# Of float32 files; the other precisions are for users to judge.
_MAX_PIXELS, _MAX_SCORES = 0.1, 1e-3
# The image that a file is compared with its model on, unless it takes one size only.
_WIDTH, _HEIGHT = 300, 220


class ExportSettings(NamedTuple):
    """The arguments of :func:`export_onnx` with these names."""

    max_people: int = 20
    precision: str = "fp32"
    size: tuple[int, int] | None = None
    input_type: str = "uint8"

    def check(self) -> None:
        """Raises ValueError if one of them is out of range."""
        if self.max_people < 1:
            raise ValueError(f"max_people is at least 1, not {self.max_people}.")
        if self.precision not in PRECISIONS:
            raise ValueError(f"The precision is one of {PRECISIONS}, not {self.precision!r}.")
        if self.input_type not in INPUT_TYPES:
            raise ValueError(
                f"The input type is one of {tuple(INPUT_TYPES)}, not {self.input_type!r}."
            )
        if self.size is not None and min(self.size) < 1:
            raise ValueError(f"Height and width are at least 1 pixel, not {self.size}.")


class ExportReport(NamedTuple):
    """What :func:`export_onnx` wrote.

    Attributes:
        path: of the file.
        num_bytes: its size.
        difference: from PyTorch, on a generated image.
    """

    path: Path
    num_bytes: int
    difference: Difference


def export_onnx(
    output: str | PathLike[str],
    *,
    config: CfgNode | str | PathLike[str] | None = None,
    weights: str | PathLike[str] | None = None,
    opts: Sequence[str] = (),
    max_people: int = 20,
    precision: str = "fp32",
    size: tuple[int, int] | None = None,
    input_type: str = "uint8",
) -> ExportReport:
    """Writes a trained model as an ONNX file, and compares the file with the model.

    Args:
        output: the file.
        config: see :meth:`querypose.PosePredictor.from_config`; also the next two.
        weights: path or URL of a checkpoint.
        opts: alternating config keys and values.
        max_people: that the file finds in an image at most. QueryPose decodes as many queries,
            those of the highest class scores, so a person whose class score is lower is missed.
        precision: "fp32"; "fp16", which stores weights in half precision; or "int8", which stores
            those of matrix products as integers.
        size: height and width of all images; None leaves them open.
        input_type: of the images, "uint8" or "float32", in both cases 0..255.

    Raises:
        FileNotFoundError: the config or the weights do not exist.
        OSError: the weights cannot be downloaded, or the file cannot be written.
        ValueError: an argument is out of range, the model cannot be exported, or the file and the
            model disagree.
    """
    settings = ExportSettings(max_people, precision, size, input_type)
    settings.check()
    cfg, category_ids = find_config(config, weights, opts)
    cfg.MODEL.DEVICE = "cpu"
    # A runtime convolves by its own means.
    cfg.MODEL.INFERENCE.WINOGRAD_MEMORY = 0.0
    return write_onnx(
        load_model(cfg),
        cfg,
        Path(output),
        settings,
        category_ids=category_ids,
        is_packaged=config is None and weights is None,
    )


def write_onnx(
    model: PoseModel,
    cfg: CfgNode,
    output: Path,
    settings: ExportSettings,
    *,
    category_ids: Sequence[int | str] = (),
    is_packaged: bool = False,
) -> ExportReport:
    """Exports a model that is loaded already; see :func:`export_onnx`.

    Args:
        model: in evaluation mode, on the CPU, without Winograd's convolutions.
        cfg: of the model.
        output: the file.
        settings: checked ones.
        category_ids: of the classes.
        is_packaged: whether the weights are those that come with the package.
    """
    max_people, precision, size, input_type = settings
    proto = build_graph(model, max_people=max_people, size=size, input_type=input_type)
    describe(
        proto,
        cfg,
        model,
        category_ids=category_ids,
        is_packaged=is_packaged,
        **settings._asdict(),
    )
    if precision == "fp16":
        halve_weights(proto)
    with atomic_file(output) as path:
        onnx.save(proto, path)
        if precision == "int8":
            quantize(path)
        check_file(path)
        difference = _compare(path, model, max_people, size, input_type)
        if precision == "fp32":
            _refuse_large(difference)
        num_bytes = path.stat().st_size
    return ExportReport(output, num_bytes, difference)


def _compare(
    path: Path, model: PoseModel, max_people: int, size: tuple[int, int] | None, input_type: str
) -> Difference:
    height, width = size or (_HEIGHT, _WIDTH)
    scene = SyntheticPeople(1, seed=0, image_size=(max(width, 64), max(height, 64))).scene(0)
    pixels = torch.from_numpy(render(scene)[:height, :width].copy())
    images = pixels.permute(2, 0, 1)[None].to(INPUT_TYPES[input_type])
    return compare_with_model(path, model, max_people, images)


def _refuse_large(difference: Difference) -> None:
    if difference.pixels > _MAX_PIXELS or difference.scores > _MAX_SCORES:
        raise ValueError(
            f"The ONNX graph and PyTorch disagree by {difference.pixels:.3g} pixels and "
            f"{difference.scores:.3g} of a score, so no file is written; please report it with the "
            "versions of torch, onnxscript and onnxruntime."
        )
