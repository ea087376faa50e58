"""What the bundle does on the other machine, step by step."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

Command = tuple[str, ...]

_MODELS = {
    "R50 light": "coco/querypose_r50_light_3x",
    "HRNet-W32 light": "coco/querypose_hrnet_w32_light_6x",
    "PINet": "coco/pinet_hrnet_w32",
    "QualityPose": "coco/quality_pose_hrnet_w32",
    "Keypoint R-CNN": "COCO-Keypoints/keypoint_rcnn_R_50_FPN_3x.yaml",
}
_SMALL_MODELS = {
    "QueryPose lite0": "quick/lite0",
    "PINet lite0": "quick/pinet_lite0",
    "QualityPose lite0": "quick/quality_pose_lite0",
    "Keypoint R-CNN lite0": "quick/keypoint_rcnn_lite0",
}
_GOLDENS = (
    "tests/test_golden.py",
    "tests/modeling/dense/test_pinet_golden.py",
    "tests/modeling/dense/test_quality_pose_golden.py",
)
_PYTEST = ("-m", "pytest", "-q", "-p", "no:cacheprovider")
_BENCHMARK = ("-m", "querypose.tools.benchmark")
_MACHINE = """
import json, os, platform, torch
on_gpu = torch.cuda.is_available()
properties = torch.cuda.get_device_properties(0) if on_gpu else None
print(json.dumps({
    "card": properties.name if on_gpu else None,
    "memory GiB": round(properties.total_memory / 2**30, 1) if on_gpu else None,
    "CUDA": torch.version.cuda, "PyTorch": torch.__version__,
    "Python": platform.python_version(), "cores": len(os.sched_getaffinity(0)),
}))
"""


class Plan(NamedTuple):
    """What to measure.

    Attributes:
        device: "cuda" or "cpu".
        small: small models and images and few repeats, to try the bundle itself.
        folder: of the bundle.
        output: of the results.
    """

    device: str
    small: bool
    folder: Path
    output: Path


class Alternatives(NamedTuple):
    """Commands of which the first that succeeds counts.

    Attributes:
        label: of its rows in the table.
        commands: arguments of Python, each run in ``processes`` processes at once.
        processes: whose images a second are added up.
    """

    label: str
    commands: Sequence[Command]
    processes: int = 1


class Step(NamedTuple):
    """A part of the run with a time limit of its own.

    Attributes:
        name: in the results.
        seconds: the limit.
        work: in order; when time is up, the rest is left out.
    """

    name: str
    seconds: float
    work: Sequence[Alternatives]


def steps(plan: Plan) -> list[Step]:
    """All steps after the installation, the most telling first."""
    return [
        Step("machine", 60, [_one("machine", ("-c", _MACHINE))]),
        Step("goldens", 180, [_one("goldens", (*_PYTEST, *_tests(plan)))]),
        Step("gpu_tests", 90, [_one("GPU", _gpu_tests(plan))]),
        Step("inference", 240, _inference(plan)),
        Step("training", 180, _training(plan)),
        Step("shared_card", 90, _shared_card(plan)),
        Step("short_training", 120, [_one("training", _short_training(plan))]),
        Step("compiled", 240, _compiled(plan)),
    ]


def _models(plan: Plan) -> dict[str, str]:
    return _SMALL_MODELS if plan.small else _MODELS


def _one(label: str, command: Command) -> Alternatives:
    return Alternatives(label, [command])


def _tests(plan: Plan) -> Command:
    chosen = ("-k", "mini_light") if plan.small else ()
    return (*_GOLDENS, "--device", plan.device, *chosen)


def _gpu_tests(plan: Plan) -> Command:
    return (*_PYTEST, "-rs", "tests/test_gpu.py", "--device", plan.device)


def _benchmark(plan: Plan, *arguments: str) -> Command:
    repeats = ("--repeats", "1") if plan.small else ("--repeats", "10", "--warm-up", "3")
    return (*_BENCHMARK, "--device", plan.device, *repeats, *arguments)


def _size(plan: Plan) -> str:
    return "size=64x96" if plan.small else "size=800x1333"


def _inference(plan: Plan) -> list[Alternatives]:
    # Half precision on processors is another question.
    precisions = ("fp32",) if plan.device == "cpu" else ("fp32", "bf16", "fp16")
    return [
        _one(
            model,
            _benchmark(
                plan,
                *("--config-file", config, "--compare"),
                *(
                    f"batch={batch} {_size(plan)} MODEL.INFERENCE.PRECISION {precision}"
                    for precision in precisions
                ),
            ),
        )
        for batch in ((1,) if plan.small else (1, 8))
        for model, config in _models(plan).items()
    ]


def _compiled(plan: Plan) -> list[Alternatives]:
    if plan.small:
        return []
    return [
        _one(
            model,
            _benchmark(
                plan,
                *("--config-file", config, "--compare"),
                *(f"batch={batch} {_size(plan)} compiled=1" for batch in (1, 8)),
            ),
        )
        for model, config in _models(plan).items()
    ]


def _training(plan: Plan) -> list[Alternatives]:
    batches = (2,) if plan.small else (16, 8, 4, 2)
    precisions = ("False",) if plan.device == "cpu" else ("False", "True")
    return [
        Alternatives(
            model,
            [
                _benchmark(
                    plan,
                    *("--config-file", config, "--compare"),
                    f"train=1 batch={batch} {_size(plan)} SOLVER.AMP.ENABLED {amp}",
                )
                for batch in batches
            ],
        )
        for model, config in _models(plan).items()
        for amp in precisions
    ]


def _shared_card(plan: Plan) -> list[Alternatives]:
    model, config = next(iter(_models(plan).items()))
    setting = f"train=1 batch={2 if plan.small else 4} {_size(plan)}"
    command = _benchmark(plan, "--config-file", config, "--compare", setting)
    return [
        Alternatives(f"{count} x {model}", [command], processes=count)
        for count in ((1, 2) if plan.small else (1, 2, 4))
    ]


def _short_training(plan: Plan) -> Command:
    data = plan.folder / "data"
    register = f"[['bundle', '{data / 'labels.json'}', '{data / 'images'}']]"
    iterations = "2" if plan.small else "200"
    size = ("INPUT.SCALE_JITTER.SIZE", "[96, 96]") if plan.small else ()
    return (
        *("train_net.py", "--config-file", "configs/quick/lite0.yaml"),
        *("MODEL.WEIGHTS", "querypose://lite0.pth", "MODEL.DEVICE", plan.device),
        *("DATASETS.REGISTER", register, "DATASETS.TRAIN", "('bundle',)"),
        *("DATASETS.TEST", "('bundle',)", "SOLVER.MAX_ITER", iterations),
        *("SOLVER.WARMUP_ITERS", "1", "TEST.EVAL_PERIOD", iterations, *size),
        *("OUTPUT_DIR", str(plan.output / "short_training")),
    )
