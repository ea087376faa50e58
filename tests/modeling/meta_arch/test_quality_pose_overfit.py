"""CIR-QEM learns twenty real images by heart, and its scores tell the quality of its poses."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from querypose.config import read_config
from querypose.engine import QueryPoseTrainer
from querypose.tools.judged_results import read_dataset_results
from querypose.tools.score_quality import RatedPersons, rate_persons

_OPTIONS = (
    *("MODEL.TIMM.FREEZE_BN", True, "SOLVER.IMS_PER_BATCH", 5, "TEST.EVAL_PERIOD", 0),
    *("SOLVER.LR_SCHEDULER_NAME", "WarmupCosineLR", "SOLVER.WARMUP_ITERS", 50),
    *("SOLVER.BASE_LR", 0.002, "SOLVER.STEPS", "()", "SOLVER.MAX_ITER", 1200),
    *("INPUT.AFFINE.SIZE", 192, "INPUT.AFFINE.ZOOM", "[1.2, 1.6]"),
    *("INPUT.AFFINE.DEGREES", 5.0, "INPUT.AFFINE.SHIFT", 0.1),
    *("INPUT.COLOR_JITTER", 0.0, "INPUT.LIGHTING", 0.0),
    *("SOLVER.BACKBONE_MULTIPLIER", 1.0, "SOLVER.CLIP_GRADIENTS.ENABLED", False),
    *("SOLVER.EMA.ENABLED", False, "MODEL.QUALITY_POSE.FLIP_TEST", True),
)
_SIZE = 144
# At sizes that it has not learned, the model's poses are of any quality.
_SIZES = (72, 84, 96, 108, 120, 132, _SIZE, 156, 168, 192, 216, 240)


@pytest.fixture
def learn(twenty_images, take_packaged_backbone, repository, tmp_path):
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
        take_packaged_backbone(trainer.model)
        trainer.train()
        aps, persons = {}, []
        for size in _SIZES:
            cfg.INPUT.MIN_SIZE_TEST = size
            aps[size] = trainer.test(cfg, trainer.model)["keypoints"]["AP"]
            folder = Path(cfg.OUTPUT_DIR, "inference", twenty_images)
            results = folder / "coco_instances_results.json"
            persons.append(rate_persons(*read_dataset_results(twenty_images, results)))
        rated = RatedPersons(*map(np.concatenate, zip(*persons, strict=True)))
        return aps[_SIZE], rated.where(rated.nearest).rank_correlation

    return train


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_twenty_images_are_learned_with_scores_that_tell_the_quality(learn):
    ap, correlation = learn("cir")
    print(f"Label cir: AP {ap:.1f}, rank correlation {correlation:.3f}")
    assert ap > 90
    assert correlation > 0.8
    _, of_gaussian = learn("gaussian")
    print(f"Rank correlation: label cir {correlation:.3f}, label gaussian {of_gaussian:.3f}")
    assert correlation > of_gaussian
