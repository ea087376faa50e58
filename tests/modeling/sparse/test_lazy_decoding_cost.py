"""Decoding by falling class score costs no more than decoding every query at once."""

import time
from statistics import median

import pytest
import torch
from detectron2.modeling import build_model
from tabulate import tabulate

from querypose.config import read_config
from querypose.inference.acceleration import accelerate_inference

_NUM_QUERIES = 40
_RUNS = 3


@pytest.fixture
def flat_model():
    """ResNet-50 light, whose queries all have the same class score and boxes of their own."""
    options = {"MODEL.WEIGHTS": "", "MODEL.DEVICE": "cpu", "TEST.DETECTIONS_PER_IMAGE": 100}
    options["MODEL.QUERYPOSE.NUM_QUERIES"] = _NUM_QUERIES
    torch.manual_seed(0)
    cfg = read_config(
        "coco/querypose_r50_light_3x", [item for pair in options.items() for item in pair]
    )
    model = build_model(cfg).eval()
    model.fix_num_people(_NUM_QUERIES)
    return model, accelerate_inference(model, cfg)


def _seconds(detect, image):
    start = time.perf_counter()
    with torch.no_grad():
        detect([{"image": image, "score_threshold": 0.0}])
    return time.perf_counter() - start


@pytest.mark.slow
def test_flat_scores_are_the_worst_case(flat_model):
    model, detect = flat_model
    image = torch.randint(0, 256, (3, 256, 320), dtype=torch.uint8)
    limits = (_NUM_QUERIES, 20, 5, 1)
    seconds = {limit: [] for limit in limits}
    for _ in range(_RUNS + 1):
        for limit in limits:
            model.max_detections = limit
            seconds[limit].append(_seconds(detect, image))
    medians = {limit: median(runs[1:]) for limit, runs in seconds.items()}
    everyone = medians[_NUM_QUERIES]
    rows = [(limit, 1000 * value, value / everyone) for limit, value in medians.items()]
    headers = ("DETECTIONS_PER_IMAGE", "ms", "relative to decoding all at once")
    print(tabulate(rows, headers=headers, tablefmt="github", floatfmt=("", ".0f", ".2f")))
    assert max(medians.values()) <= 1.15 * everyone
