"""Draws poses, and trains and evaluates a model, without a download or a GPU, within a minute.

The packaged model predicts on a photo and on the inputs of the command line. Then it learns eight
generated images by heart, which shows that training and evaluation work, not how accurate a method
is. At last the packaged model predicts on a clip that it was not trained on.
"""

from __future__ import annotations

import logging
import sys
from pathlib import Path

from detectron2.config import CfgNode
from detectron2.utils.env import seed_all_rng
from detectron2.utils.logger import setup_logger
from generated import write_clip, write_images
from photo import write_photo

from querypose.cli.demo import main as draw
from querypose.config import read_config
from querypose.engine import QueryPoseTrainer

_REPOSITORY = Path(__file__).resolve().parent.parent
_CONFIG = _REPOSITORY / "configs" / "quick" / "finetune.yaml"
_NUM_IMAGES = 8
_NUM_FRAMES = 20


def main(inputs: list[str]) -> int:
    """Runs the quickstart; returns the exit status of the first drawing."""
    cfg = read_config(_CONFIG)
    output = Path(cfg.OUTPUT_DIR).resolve()
    photo = write_photo(output / "photo")
    status = draw([photo, *inputs, "--output", str(output / "poses")])

    before, after = _train(cfg)
    weights = str(output / "model_final.pth")
    learned = write_images(cfg.DATASETS.TEST[0], range(_NUM_IMAGES), output / "learned")
    draw([*learned, "--output", str(output / "poses_learned"), "--weights", weights])
    clip = write_clip(output / "clip" / "walking.mp4", _NUM_FRAMES)
    draw([clip, "--output", str(output / "poses_of_clip")])

    print(f"\nKeypoint AP on the {_NUM_IMAGES} images: {before:.1f} before the training, ", end="")
    print(f"{after:.1f} after it.\n{output} has the log and the weights, and these folders:")
    print("poses: poses by the packaged model on a photo and on your own images, if any;")
    print("poses_learned: poses by the trained model on the images of its training;")
    print("poses_of_clip: poses by the packaged model on a clip that it was not trained on.")
    return status


def _train(cfg: CfgNode) -> tuple[float, float]:
    """Trains; returns the keypoint AP before and after."""
    setup_logger(cfg.OUTPUT_DIR)
    # It would print every layer of the model.
    logging.getLogger("detectron2.engine.defaults").setLevel(logging.WARNING)
    seed_all_rng(cfg.SEED)
    trainer = QueryPoseTrainer(cfg)
    trainer.resume_or_load(resume=False)
    before = trainer.test(cfg, trainer.model)["keypoints"]["AP"]
    trainer.train()
    after, _ = trainer.storage.latest()["keypoints/AP"]
    return before, after


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
