"""An ONNX file in place of a model: what evaluates models also evaluates it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from os import PathLike, fspath
from typing import Any

import numpy as np
import onnxruntime
import torch
from detectron2.config import CfgNode
from detectron2.structures import Boxes, Instances

from querypose.config import config_from_json, default_config, merge_options
from querypose.modeling.pose_model import Inputs, PeopleBatch, rescale_instances, wanted_size
from querypose.skeleton import Skeleton


class OnnxDetector:
    """Runs a file of :func:`querypose.export.export_onnx` on CPUs, as ``PoseModel.forward`` does.

    Args:
        path: of the file.

    Attributes:
        description: what the file says of itself, see docs/export.md.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is not ONNX, or not of this package.
    """

    def __init__(self, path: str | PathLike[str]) -> None:
        self._session = open_session(path)
        self.description = read_metadata(self._session, path)
        self._dtype = np.dtype(self.description["input_type"])

    def __call__(self, batched_inputs: Inputs) -> list[dict[str, Any]]:
        """Detects people, an image after the other; see ``PoseModel.forward``.

        Raises:
            ValueError: the file is for images of another size.
        """
        return [{"instances": self._detect(given)} for given in batched_inputs]

    def people(self, images: np.ndarray) -> PeopleBatch:
        """The file's own answer for (B, 3, H, W) images.

        Raises:
            ValueError: the file is for images of another size.
        """
        size = self.description["size"]
        if size is not None and list(images.shape[2:]) != size:
            raise ValueError(
                f"This ONNX file takes images of {size[0]} x {size[1]} pixels (height x width), "
                f"not of {images.shape[2]} x {images.shape[3]}."
            )
        outputs = self._session.run(None, {"image": images.astype(self._dtype)})
        names = (output.name for output in self._session.get_outputs())
        people = dict(zip(names, map(torch.from_numpy, outputs), strict=True))
        # The first files of this package did not tell of classes.
        people.setdefault("classes", torch.zeros_like(people["valid"], dtype=torch.int64))
        return PeopleBatch(**people)

    def _detect(self, given: dict[str, Any]) -> Instances:
        image = given["image"]
        found = PeopleBatch(*(output[0] for output in self.people(image[None].cpu().numpy())))
        kept = found.valid & (found.scores >= given.get("score_threshold", 0.0))
        image_size = tuple(image.shape[-2:])
        people = Instances(
            image_size,
            pred_boxes=Boxes(found.boxes[kept]),
            scores=found.scores[kept],
            pred_classes=found.classes[kept],
            pred_keypoints=found.keypoints[kept],
        )
        return rescale_instances(people, wanted_size(given, image_size))


def open_session(path: str | PathLike[str]) -> onnxruntime.InferenceSession:
    """Loads an ONNX file for CPUs, with as many threads as PyTorch has.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: onnxruntime cannot load it.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    # Its warnings are of the exporter's making, and of no use to anybody.
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(fspath(path), options, ["CPUExecutionProvider"])
    except onnxruntime.capi.onnxruntime_pybind11_state.NoSuchFile as error:
        raise FileNotFoundError(f"There is no ONNX file {path}.") from error
    except Exception as error:  # onnxruntime has a type for each of its states.
        raise ValueError(f"onnxruntime cannot load {path}: {error}") from error


def read_metadata(
    session: onnxruntime.InferenceSession, path: str | PathLike[str]
) -> dict[str, Any]:
    """What a file says of itself.

    Raises:
        ValueError: it is not of this package.
    """
    props = session.get_modelmeta().custom_metadata_map
    if "format" not in props:
        raise ValueError(f"{path} is not a file of querypose-export: it says nothing of its model.")
    return {name: json.loads(value) for name, value in props.items()}


def config_of_onnx(path: str | PathLike[str], opts: Sequence[str] = ()) -> CfgNode:
    """The config of the model in a file; ``MODEL.WEIGHTS`` is the file.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is not of this package, or an option is wrong.
    """
    description = read_metadata(open_session(path), path)
    cfg = config_from_json(json.dumps(description["config"]), fspath(path))
    cfg.MODEL.SKELETON = Skeleton.from_dict(description["skeleton"]).to_yaml()
    cfg.OUTPUT_DIR = default_config().OUTPUT_DIR
    merge_options(cfg, opts)
    cfg.MODEL.WEIGHTS = fspath(path)
    cfg.MODEL.DEVICE = "cpu"
    return cfg
