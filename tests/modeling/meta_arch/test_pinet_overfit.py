"""PINet learns twenty real images by heart."""

from __future__ import annotations

import pytest

from querypose.config import read_config
from querypose.engine import QueryPoseTrainer

_OPTIONS = (
    *("SOLVER.IMS_PER_BATCH", 5, "SOLVER.LR_SCHEDULER_NAME", "WarmupCosineLR"),
    *("SOLVER.WARMUP_ITERS", 50, "SOLVER.BASE_LR", 0.002, "SOLVER.STEPS", "()"),
    *("SOLVER.MAX_ITER", 1400, "TEST.EVAL_PERIOD", 1400, "INPUT.MIN_SIZE_TEST", 160),
    *("INPUT.AFFINE.SIZE", 192, "INPUT.AFFINE.ZOOM", "[1.0, 1.35]"),
    *("INPUT.AFFINE.DEGREES", 0.0, "INPUT.AFFINE.SHIFT", 0.0, "INPUT.COLOR_JITTER", 0.0),
)


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_twenty_images_are_learned_by_heart(twenty_images, repository, tmp_path):
    cfg = read_config(repository / "configs/quick/pinet_lite0.yaml", _OPTIONS)
    cfg.DATASETS.TRAIN = cfg.DATASETS.TEST = (twenty_images,)
    cfg.OUTPUT_DIR = str(tmp_path / "output")
    trainer = QueryPoseTrainer(cfg)
    trainer.resume_or_load(resume=False)
    trainer.train()
    assert trainer._last_eval_results["keypoints"]["AP"] > 90
