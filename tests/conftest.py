"""Fixtures that every test may ask for."""

from __future__ import annotations

import collections
import importlib.util
import itertools
import json
import logging
import os
import socket
import struct
import subprocess
import sys
import threading
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.modeling import build_model
from detectron2.structures import Boxes, BoxMode, Instances, Keypoints
from PIL import Image, ImageFile
from torch import nn

from querypose.config import default_config, read_config
from querypose.data import register_coco_keypoints
from querypose.engine.seeding import seed_everything
from querypose.inference.acceleration import prepare_for_inference
from querypose.inference.winograd import WinogradConv2d
from querypose.modeling.targets import PersonTargets
from querypose.skeleton import Skeleton

GOLDEN_DIR = Path(__file__).parent / "golden"
REPOSITORY = Path(__file__).parent.parent


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    """Untrained models are the same in every run; some would find nobody."""
    seed_everything(0)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Golden numbers are compared on any device: ``pytest --device cuda tests/test_golden.py``."""
    parser.addoption("--device", default="cpu", help="of the tests on golden numbers (cpu)")


@pytest.fixture
def device(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The device of ``--device``, where convolutions are in full float32, as on a processor."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    return request.config.getoption("--device")


@pytest.fixture(autouse=True)
def _logging_as_before() -> Iterator[None]:
    """Takes back what ``setup_logger`` does: its handlers write to streams that end with a test."""
    loggers = [logging.getLogger(name) for name in ("querypose", "detectron2", "fvcore")]
    before = [(logger, list(logger.handlers), logger.propagate) for logger in loggers]
    yield
    for logger, handlers, propagate in before:
        logger.handlers[:] = handlers
        logger.propagate = propagate


def _load_filler():
    spec = importlib.util.spec_from_file_location("golden_filler", GOLDEN_DIR / "filler.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


filler = _load_filler()


@dataclass(frozen=True)
class Golden:
    """What the method's reference computes for one model."""

    arrays: dict[str, np.ndarray]
    state_dict: dict[str, torch.Tensor]
    images: list[torch.Tensor]


@pytest.fixture
def golden() -> Callable[[str], Golden]:
    """``golden("mini_light")``: reference arrays, released-layout weights and input images.

    A ``prefix`` fills the tensors alone whose names begin so.
    """

    def load(name: str, prefix: str = "") -> Golden:
        shapes = json.loads((GOLDEN_DIR / f"{name}.shapes.json").read_text())
        shapes = {key: shape for key, shape in shapes.items() if key.startswith(prefix)}
        with np.load(GOLDEN_DIR / f"{name}.npz") as arrays:
            outputs = dict(arrays)
        sizes = [(96, 128), (112, 96)] if name.startswith("mini") else [(128, 160)]
        images = [filler.image(*size, seed=seed) for seed, size in enumerate(sizes)]
        return Golden(outputs, filler.state_dict(shapes), images)

    return load


@pytest.fixture(scope="session")
def prepare_with_winograd() -> Callable[..., None]:
    """``prepare_with_winograd(model)``: what inference may do to a model without other answers.

    On a processor, some of its convolutions then run by Winograd's minimal filtering, unless
    ``too_small`` says that it has none that profit.
    """

    def prepare(model: nn.Module, *, too_small: bool = False) -> None:
        cfg = default_config()
        cfg.MODEL.INFERENCE.WINOGRAD_MEMORY = 1.5
        prepare_for_inference(model, cfg)
        if next(model.parameters()).is_cpu and not too_small:
            assert any(isinstance(module, WinogradConv2d) for module in model.modules())

    return prepare


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real images, or a skip where this machine has none."""
    default = REPOSITORY.parent / "shared" / "data"
    folder = Path(os.environ.get("QUERYPOSE_TEST_DATA", default))
    if not folder.is_dir():
        pytest.skip("no real images here (set QUERYPOSE_TEST_DATA to their folder)")
    return folder


@pytest.fixture
def twenty_images(real_data: Path, tmp_path: Path) -> Iterator[str]:
    """The name of a dataset of twenty real images, each with one or two large persons."""
    folder = real_data / "coco_person"
    content = json.loads((folder / "annotations" / "person_keypoints_train.json").read_text())
    persons: dict[int, list[dict]] = {image["id"]: [] for image in content["images"]}
    for person in content["annotations"]:
        persons[person["image_id"]].append(person)
    chosen = [image for image in content["images"] if _is_clear(image, persons[image["id"]])][:20]
    content["images"] = chosen
    content["annotations"] = [person for image in chosen for person in persons[image["id"]]]
    json_file = tmp_path / "twenty.json"
    json_file.write_text(json.dumps(content))
    name = "twenty_images"
    register_coco_keypoints(name, json_file, folder / "train")
    yield name
    DatasetCatalog.remove(name)
    MetadataCatalog.remove(name)


def _is_clear(image: dict, persons: list[dict]) -> bool:
    # So large that a small input shows every person in detail.
    smallest = 0.15 * image["width"] * image["height"]
    return 1 <= len(persons) <= 2 and all(
        not person["iscrowd"]
        and person["num_keypoints"] >= 8
        and person["bbox"][2] * person["bbox"][3] > smallest
        for person in persons
    )


@pytest.fixture(scope="session")
def repository() -> Path:
    """The folder that holds configs/ and train_net.py."""
    return REPOSITORY


_DECODER_ERRORS = (
    *(AssertionError(), AttributeError("'NoneType' object has no attribute 'read'"), EOFError()),
    *(IndexError("index out of range"), KeyError(5), MemoryError(), NotImplementedError()),
    *(OSError(), OverflowError("too large"), RuntimeError("planes failed"), SyntaxError("broken")),
    *(TypeError("an integer is required"), UnicodeDecodeError("utf-8", b"", 0, 1, "no text")),
    *(ValueError("first line\nsecond line."), ZeroDivisionError(), UserWarning("odd metadata")),
    *(struct.error("unpack requires a buffer of 4 bytes"), zlib.error("incorrect data check")),
)


class _FailingImage(ImageFile.ImageFile):
    """A format whose decoder raises the error that the file names by its number."""

    format = "FAILING"

    def _open(self) -> None:
        self._mode, self._size = "RGB", (8, 8)
        self._error = _DECODER_ERRORS[int(self.fp.read()[8:])]

    def load(self) -> None:
        raise self._error


@pytest.fixture
def failing_image() -> Iterator[Callable[[Path, Exception], Path]]:
    """``failing_image(path, error)`` writes an image at which Pillow's decoder raises it."""

    def write(path: Path, error: Exception) -> Path:
        path.write_bytes(b"FAILING %d" % _DECODER_ERRORS.index(error))
        return path

    Image.init()
    Image.register_open("FAILING", _FailingImage, lambda prefix: prefix.startswith(b"FAILING "))
    yield write
    Image.ID.remove("FAILING")
    del Image.OPEN["FAILING"]


@pytest.fixture
def decoder_errors() -> tuple[Exception, ...]:
    """What a decoder may raise, one error of each kind."""
    return _DECODER_ERRORS


@pytest.fixture(params=_DECODER_ERRORS, ids=lambda error: repr(error).partition("(")[0])
def decoder_error(request: pytest.FixtureRequest) -> Exception:
    """Each of the errors that a decoder may raise."""
    return request.param


# The widths of the golden files mini_light and mini_full.
_TINY = {
    "MODEL.DEVICE": "cpu",
    "MODEL.RESNETS.DEPTH": 18,
    "MODEL.RESNETS.RES2_OUT_CHANNELS": 64,
    "MODEL.FPN.OUT_CHANNELS": 64,
    "MODEL.QUERYPOSE.HIDDEN_DIM": 64,
    "MODEL.QUERYPOSE.NUM_ATTENTION_HEADS": 4,
    "MODEL.QUERYPOSE.FFN_DIM": 128,
    "MODEL.QUERYPOSE.DYNAMIC_DIM": 16,
    "MODEL.QUERYPOSE.PART_DIM": 32,
    "MODEL.QUERYPOSE.NUM_KEYPOINT_CONVS": 2,
    "MODEL.QUERYPOSE.NUM_QUERIES": 12,
    "MODEL.QUERYPOSE.NUM_STAGES": 2,
}


@pytest.fixture
def tiny_cfg() -> Callable[..., CfgNode]:
    """``tiny_cfg({"MODEL.QUERYPOSE.KEYPOINT_FEEDBACK": True})``: a config of a very small model."""

    def build(changes: dict[str, object] | None = None) -> CfgNode:
        options = [item for pair in (_TINY | (changes or {})).items() for item in pair]
        return read_config(REPOSITORY / "configs" / "Base-QueryPose.yaml", options)

    return build


@pytest.fixture
def tiny_model(tiny_cfg: Callable[..., CfgNode]) -> Callable[..., nn.Module]:
    """The freshly initialized, seeded model of such a config, in training mode."""

    def build(changes: dict[str, object] | None = None, seed: int = 0) -> nn.Module:
        torch.manual_seed(seed)
        return build_model(tiny_cfg(changes))

    return build


_SMALL = {
    "MODEL.RESNETS.DEPTH": 50,
    "MODEL.RESNETS.STEM_OUT_CHANNELS": 8,
    "MODEL.RESNETS.RES2_OUT_CHANNELS": 8,
    "MODEL.RESNETS.WIDTH_PER_GROUP": 4,
    "MODEL.FPN.OUT_CHANNELS": 16,
    "MODEL.QUERYPOSE.HIDDEN_DIM": 16,
    "MODEL.QUERYPOSE.PART_DIM": 16,
    "MODEL.QUERYPOSE.FFN_DIM": 32,
    "MODEL.QUERYPOSE.DYNAMIC_DIM": 8,
    "MODEL.ROI_KEYPOINT_HEAD.POOLER_RESOLUTION": 6,
}


@pytest.fixture
def small_model(tiny_model: Callable[..., nn.Module]) -> Callable[..., nn.Module]:
    """A tiny model made smaller still, for tests that need no golden weights."""

    def build(changes: dict[str, object] | None = None, seed: int = 0) -> nn.Module:
        return tiny_model(_SMALL | (changes or {}), seed)

    return build


@dataclass
class Server:
    """A web server on this machine.

    Attributes:
        address: "http://127.0.0.1:..." without a slash at the end.
        folder: the files that it sends.
        cache: where Detectron2 keeps what it downloads.
        requests: paths and queries of the GET requests so far.
        answers: what it does instead of sending the file of a path.
        headers: what it sends with every file.
    """

    address: str
    folder: Path
    cache: Path
    requests: list[str] = field(default_factory=list)
    answers: dict[str, Callable[[SimpleHTTPRequestHandler], None]] = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)

    def cached(self) -> list[str]:
        """Names of the downloads that were kept."""
        files = (path for path in self.cache.rglob("*") if path.is_file())
        return sorted(path.name for path in files if path.suffix != ".lock")


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A :class:`Server` with an empty folder, and an empty cache for what comes from it."""

    class Handler(SimpleHTTPRequestHandler):
        def do_GET(self) -> None:
            served.requests.append(self.path)
            served.answers.get(self.path, SimpleHTTPRequestHandler.do_GET)(self)

        def translate_path(self, path: str) -> str:
            return str(served.folder / path.partition("?")[0].lstrip("/"))

        def end_headers(self) -> None:
            for name, value in served.headers.items():
                self.send_header(name, value)
            super().end_headers()

        def log_message(self, *_: object) -> None:
            """Says nothing."""

    folder, cache = tmp_path / "served", tmp_path / "cache"
    folder.mkdir()
    monkeypatch.setenv("FVCORE_CACHE", str(cache))
    monkeypatch.setenv("no_proxy", "*")
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as web:
        served = Server(f"http://127.0.0.1:{web.server_port}", folder, cache)
        thread = threading.Thread(target=web.serve_forever, args=(0.01,))
        thread.start()
        yield served
        web.shutdown()
        thread.join()


@pytest.fixture(scope="session")
def run_in_two_processes() -> Callable[..., None]:
    """``run_in_two_processes(script, *arguments)``, by torchrun."""

    def run(script: Path, *arguments: Path) -> None:
        torchrun = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2")
        done = subprocess.run(
            [sys.executable, *torchrun, *map(str, (script, *arguments))],
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, done.stderr[-3000:] + done.stdout[-3000:]

    return run


@pytest.fixture
def closed_port() -> int:
    """A port of this machine that refuses connections."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


_FIVE_KEYPOINTS = ("nose", "left_hand", "right_hand", "left_foot", "right_foot")


@pytest.fixture
def label_content() -> Callable[..., dict[str, Any]]:
    """``label_content()``: a sound label file, two people in each of two images of 128 x 96.

    ``label_content(names)`` is of other keypoints, at most fourteen.
    """

    def build(names: Sequence[str] = _FIVE_KEYPOINTS) -> dict[str, Any]:
        points = [(2 + 7 * index % 20, 4 + 4 * index) for index in range(len(names))]
        people = [
            {
                "id": number,
                "image_id": image_id,
                "category_id": 1,
                "bbox": [left, 10, 24, 64],
                "area": 800,
                "iscrowd": 0,
                "keypoints": [value for x, y in points for value in (left + x, 10 + y, 2)],
                # CrowdPose leaves out its last two, head and neck.
                "num_keypoints": min(len(names), 12),
            }
            for number, (image_id, left) in enumerate(itertools.product((1, 2), (18, 68)), start=1)
        ]
        size = {"width": 128, "height": 96}
        return {
            "images": [
                {"id": i, "file_name": f"{i}.png", "crowdIndex": 0.1 * i} | size for i in (1, 2)
            ],
            "annotations": people,
            "categories": [
                {"id": 1, "name": "person", "keypoints": list(names), "skeleton": [[1, 2], [1, 3]]}
            ],
        }

    return build


@pytest.fixture
def write_labels(tmp_path: Path) -> Callable[..., Path]:
    """``write_labels(content)``: the label file, in a folder with its images."""
    for i in (1, 2):
        pixels = np.random.default_rng(i).integers(0, 255, (96, 128, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{i}.png")

    def write(content: Any, name: str = "people.json") -> Path:
        path = tmp_path / name
        path.write_text(json.dumps(content))
        return path

    return write


@pytest.fixture
def temporary_datasets() -> Iterator[list[str]]:
    """Names of datasets that are forgotten after the test."""
    names: list[str] = []
    yield names
    for name in names:
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)


@pytest.fixture
def register_labels(
    write_labels: Callable[..., Path], temporary_datasets: list[str], tmp_path: Path
) -> Callable[..., str]:
    """``register_labels(content, skeleton)``: the name of a dataset, for the time of a test."""

    def register(content: Any, *arguments: Any, **options: Any) -> str:
        number = len(temporary_datasets)
        name = f"labels_{tmp_path.name}_{number}"
        json_file = write_labels(content, f"people_{number}.json")
        register_coco_keypoints(name, json_file, tmp_path, *arguments, **options)
        temporary_datasets.append(name)
        return name

    return register


@pytest.fixture
def records_of(tmp_path: Path) -> Callable[[dict[str, Any]], list[dict[str, Any]]]:
    """``records_of(content)``: labels as a function of one's own would return them."""

    def convert(content: dict[str, Any]) -> list[dict[str, Any]]:
        people = collections.defaultdict(list)
        for person in content["annotations"]:
            left, top, width, height = person["bbox"]
            numbers = enumerate(person["keypoints"])
            people[person["image_id"]].append(
                {
                    "bbox": [left, top, left + width, top + height],
                    "bbox_mode": BoxMode.XYXY_ABS,
                    "category_id": 0,
                    "area": person["area"],
                    "keypoints": [v if i % 3 == 2 else v + 0.5 for i, v in numbers],
                }
            )
        return [
            {
                "file_name": str(tmp_path / image["file_name"]),
                "image_id": image["id"],
                "height": image["height"],
                "width": image["width"],
                "annotations": people[image["id"]],
            }
            for image in content["images"]
        ]

    return convert


@pytest.fixture
def register_records(
    write_labels: Callable[..., Path], temporary_datasets: list[str], tmp_path: Path
) -> Callable[..., str]:
    """``register_records(records, skeleton)``: a dataset without a label file; images are there."""

    def register(records: list[dict[str, Any]], skeleton: Skeleton, **metadata: Any) -> str:
        name = f"records_{tmp_path.name}_{len(temporary_datasets)}"
        DatasetCatalog.register(name, lambda: records)
        MetadataCatalog.get(name).set(**skeleton.metadata(), **metadata)
        temporary_datasets.append(name)
        return name

    return register


@pytest.fixture
def fill_batch_norms() -> Callable[[nn.Module], nn.Module]:
    """Gives batch norms numbers that do something, as after training."""

    def fill(model: nn.Module) -> nn.Module:
        torch.manual_seed(0)
        for module in model.modules():
            if hasattr(module, "running_mean"):
                module.running_mean.normal_(0, 0.2)
                module.running_var.uniform_(0.5, 1.5)
                if module.weight is not None:
                    nn.init.uniform_(module.weight, 0.5, 1.5)
        return model

    return fill


@pytest.fixture
def random_people() -> Callable[..., PersonTargets]:
    """``random_people(3, (height, width))``: people inside an image, all keypoints labeled."""

    def draw(
        count: int, image_size: tuple[int, int], num_keypoints: int = 17, seed: int = 0
    ) -> PersonTargets:
        generator = torch.Generator().manual_seed(seed)
        height, width = image_size
        size = torch.tensor([width, height, width, height], dtype=torch.float32)
        top_left = torch.rand(count, 2, generator=generator) * 0.5
        sides = 0.2 + torch.rand(count, 2, generator=generator) * 0.3
        boxes = torch.cat([top_left, top_left + sides], dim=1) * size
        inside = torch.rand(count, num_keypoints, 2, generator=generator)
        points = boxes[:, None, :2] + inside * (boxes[:, None, 2:] - boxes[:, None, :2])
        keypoints = torch.cat([points, torch.full((count, num_keypoints, 1), 2.0)], dim=-1)
        return PersonTargets(boxes, torch.zeros(count, dtype=torch.int64), keypoints, size)

    return draw


@pytest.fixture
def training_input(
    random_people: Callable[..., PersonTargets],
) -> Callable[..., dict[str, object]]:
    """``training_input(3, (height, width))``: one image with so many people, for a model."""

    def draw(
        count: int, image_size: tuple[int, int], num_keypoints: int = 17, seed: int = 0
    ) -> dict[str, object]:
        people = random_people(count, image_size, num_keypoints, seed)
        instances = Instances(image_size, gt_boxes=Boxes(people.boxes), gt_classes=people.classes)
        # Detectron2 sets no keypoints where nobody is in the image.
        if count:
            instances.gt_keypoints = Keypoints(people.keypoints)
        generator = torch.Generator().manual_seed(seed)
        image = 255 * torch.rand(3, *image_size, generator=generator)
        return {"image": image, "instances": instances}

    return draw
