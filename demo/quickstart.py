"""Trains a tiny model on generated people, evaluates it, and draws poses.

It needs no download and no GPU. The tiny model sees eight images for a moment, which shows that
training and evaluation work, not how well the method does. The model that comes with the package
then looks at generated images and a clip that it has not seen, and at whatever the command line
names.
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
# The tiny model is young: its scores are low.
_CONFIDENCE, _KEYPOINT_CONFIDENCE = "0.2", "0.1"


def main(named: list[str]) -> int:
    """Runs the whole tour; returns the exit code of the last drawing."""
    cfg = read_config(_CONFIG)
    default_setup(cfg, None)
    trainer = QueryPoseTrainer(cfg)
    trainer.resume_or_load(resume=False)
    trainer.train()

    output = Path(cfg.OUTPUT_DIR).resolve()
    learned = write_images(cfg.DATASETS.TEST[0], range(_NUM_IMAGES), output / "learned")
    draw([*learned, "--output", str(output / "poses_of_tiny_model"), *_tiny_model(cfg)])
    unseen = write_images("synthetic_people_val", range(_NUM_IMAGES), output / "unseen")
    unseen.append(write_clip(output / "unseen" / "walking.mp4", _NUM_FRAMES))
    code = draw([*unseen, *named, "--output", str(output / "poses")])
    print(f"\nIn {output}: the log and the weights of the tiny model, and the drawn poses,")
    print("poses_of_tiny_model: the tiny model's, on the images that it learned;")
    print("poses: the packaged model's, on images and a clip that it has not seen.")
    return code


def _tiny_model(cfg: CfgNode) -> list[str]:
    return [
        *("--config-file", str(_CONFIG)),
        *("--weights", str(Path(cfg.OUTPUT_DIR) / "model_final.pth")),
        *("--confidence-threshold", _CONFIDENCE),
        *("--keypoint-threshold", _KEYPOINT_CONFIDENCE),
    ]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
