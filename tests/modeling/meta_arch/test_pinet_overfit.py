"""PINet learns twenty real images by heart."""

from __future__ import annotations

import pytest

from querypose.config import read_config
from querypose.engine import QueryPoseTrainer

_OPTIONS = (
    *("MODEL.TIMM.FREEZE_BN", True, "SOLVER.IMS_PER_BATCH", 5, "SOLVER.MAX_ITER", 1000),
    *("SOLVER.LR_SCHEDULER_NAME", "WarmupCosineLR", "SOLVER.WARMUP_ITERS", 50),
    *("SOLVER.BASE_LR", 0.002, "SOLVER.STEPS", "()", "TEST.EVAL_PERIOD", 1000),
    *("MODEL.PINET.OFFSET_WEIGHT", 0.3, "MODEL.PINET.REFINEMENT_WEIGHT", 0.3),
    # Crops show nearly whole images, as large as they are in the test.
    *("INPUT.AFFINE.SIZE", 224, "INPUT.AFFINE.ZOOM", "[1.25, 1.5]", "INPUT.MIN_SIZE_TEST", 160),
    *("INPUT.AFFINE.DEGREES", 0.0, "INPUT.AFFINE.SHIFT", 0.03, "INPUT.COLOR_JITTER", 0.0),
    *("SOLVER.BACKBONE_MULTIPLIER", 1.0, "SOLVER.CLIP_GRADIENTS.ENABLED", False),
    *("SOLVER.EMA.ENABLED", False, "MODEL.PINET.FLIP_TEST", True),
)


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_twenty_images_are_learned_by_heart(
    twenty_images, take_packaged_backbone, repository, tmp_path
):
    cfg = read_config(repository / "configs/quick/pinet_lite0.yaml", _OPTIONS)
    cfg.DATASETS.TRAIN = cfg.DATASETS.TEST = (twenty_images,)
    cfg.OUTPUT_DIR = str(tmp_path / "output")
    trainer = QueryPoseTrainer(cfg)
    trainer.resume_or_load(resume=False)
    take_packaged_backbone(trainer.model)
    trainer.train()
    assert trainer._last_eval_results["keypoints"]["AP"] > 90
