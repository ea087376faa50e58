"""Trains a tiny model on generated people, evaluates it, and draws poses.

It needs no download and no GPU. The tiny model is trained briefly on eight images, which shows that
training and evaluation work, not how accurate the method is. Then the packaged model predicts on
generated images and a clip that it was not trained on, and on the inputs of the command line.
"""

from __future__ import annotations

import sys
from pathlib import Path

from detectron2.config import CfgNode
from detectron2.engine import default_setup
from generated import write_clip, write_images

from querypose.cli.demo import main as draw
from querypose.config import read_config
from querypose.engine import QueryPoseTrainer

_REPOSITORY = Path(__file__).resolve().parent.parent
_CONFIG = _REPOSITORY / "configs" / "quick" / "tiny.yaml"
_NUM_IMAGES = 8
_NUM_FRAMES = 40
# The scores of the tiny model are low after its short training.
_CONFIDENCE_THRESHOLD, _KEYPOINT_THRESHOLD = "0.2", "0.1"


def main(inputs: list[str]) -> int:
    """Runs the quickstart; returns the exit status of the last drawing."""
    cfg = read_config(_CONFIG)
    default_setup(cfg, None)
    trainer = QueryPoseTrainer(cfg)
    trainer.resume_or_load(resume=False)
    trainer.train()

    output = Path(cfg.OUTPUT_DIR).resolve()
    learned = write_images(cfg.DATASETS.TEST[0], range(_NUM_IMAGES), output / "learned")
    draw([*learned, "--output", str(output / "poses_of_tiny_model"), *_tiny_model_options(cfg)])
    unseen = write_images("synthetic_people_val", range(_NUM_IMAGES), output / "unseen")
    unseen.append(write_clip(output / "unseen" / "walking.mp4", _NUM_FRAMES))
    status = draw([*unseen, *inputs, "--output", str(output / "poses")])
    print(f"\n{output} has the log and the weights of the tiny model, and these folders:")
    print("poses_of_tiny_model: poses by the tiny model on the images of its training;")
    print("poses: poses by the packaged model on images and a clip that it was not trained on.")
    return status


def _tiny_model_options(cfg: CfgNode) -> list[str]:
    return [
        *("--config-file", str(_CONFIG)),
        *("--weights", str(Path(cfg.OUTPUT_DIR) / "model_final.pth")),
        *("--confidence-threshold", _CONFIDENCE_THRESHOLD),
        *("--keypoint-threshold", _KEYPOINT_THRESHOLD),
    ]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
