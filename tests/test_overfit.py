"""A small model learns twenty real images by heart.

This is the proof that loss, mapper, flip map, coordinates and evaluator agree: an error of a pixel,
a swapped side or a wrong scale anywhere would keep AP low.
"""

from __future__ import annotations

import pytest

from querypose.config import read_config
from querypose.engine import QueryPoseTrainer


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_twenty_images_are_learned_by_heart(twenty_images, repository, tmp_path):
    cfg = read_config(
        repository / "configs" / "quick" / "overfit.yaml",
        ["DATASETS.TRAIN", f"('{twenty_images}',)", "DATASETS.TEST", f"('{twenty_images}',)"],
    )
    cfg.OUTPUT_DIR = str(tmp_path / "output")
    trainer = QueryPoseTrainer(cfg)
    trainer.resume_or_load(resume=False)
    trainer.train()
    assert trainer._last_eval_results["keypoints"]["AP"] > 90
