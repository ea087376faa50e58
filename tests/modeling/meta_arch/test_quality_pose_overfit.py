"""CIR-QEM learns twenty real images by heart, and its scores tell the quality of its poses."""

from __future__ import annotations

from pathlib import Path

import pytest

from querypose.config import read_config
from querypose.engine import QueryPoseTrainer
from querypose.tools.judged_results import read_dataset_results
from querypose.tools.score_quality import rate_persons

_OPTIONS = (
    *("SOLVER.IMS_PER_BATCH", 5, "SOLVER.LR_SCHEDULER_NAME", "WarmupCosineLR"),
    *("SOLVER.WARMUP_ITERS", 50, "SOLVER.BASE_LR", 0.002, "SOLVER.STEPS", "()"),
    *("SOLVER.MAX_ITER", 1400, "TEST.EVAL_PERIOD", 1400, "INPUT.MIN_SIZE_TEST", 160),
    *("INPUT.AFFINE.SIZE", 192, "INPUT.AFFINE.ZOOM", "[1.0, 1.35]"),
    *("INPUT.AFFINE.DEGREES", 0.0, "INPUT.AFFINE.SHIFT", 0.0),
    *("INPUT.COLOR_JITTER", 0.0, "INPUT.LIGHTING", 0.0),
)


@pytest.fixture
def learn(twenty_images, repository, tmp_path):
    """Trains with a label of the score map; returns AP and the rank correlation with the OKS."""

    def train(label: str) -> tuple[float, float]:
        cfg = read_config(
            repository / "configs/quick/quality_pose_lite0.yaml",
            [*_OPTIONS, "MODEL.QUALITY_POSE.INSTANCE_LABEL", label],
        )
        cfg.DATASETS.TRAIN = cfg.DATASETS.TEST = (twenty_images,)
        cfg.OUTPUT_DIR = str(tmp_path / label)
        trainer = QueryPoseTrainer(cfg)
        trainer.resume_or_load(resume=False)
        trainer.train()
        results = Path(cfg.OUTPUT_DIR, "inference", twenty_images, "coco_instances_results.json")
        persons = rate_persons(*read_dataset_results(twenty_images, results))
        return trainer._last_eval_results["keypoints"]["AP"], persons.rank_correlation

    return train


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_twenty_images_are_learned_with_scores_that_tell_the_quality(learn):
    ap, correlation = learn("cir")
    assert ap > 90
    assert correlation > 0.8
    _, of_gaussian = learn("gaussian")
    assert correlation > of_gaussian
