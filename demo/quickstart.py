"""Draws poses, and trains and evaluates a tiny model, without a download or a GPU.

The packaged model predicts on a photo and on the inputs of the command line. Then a tiny model is
trained briefly on eight generated images, which shows that training and evaluation work, not how
accurate the method is. At last the packaged model predicts on generated images and a clip that it
was not trained on.
"""

from __future__ import annotations

import sys
from pathlib import Path

from detectron2.config import CfgNode
from detectron2.engine import default_setup
from generated import write_clip, write_images
from photo import write_photo

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
    """Runs the quickstart; returns the exit status of the first drawing."""
    cfg = read_config(_CONFIG)
    output = Path(cfg.OUTPUT_DIR).resolve()
    photo = write_photo(output / "photo")
    status = draw([photo, *inputs, "--output", str(output / "poses")])

    default_setup(cfg, None)
    trainer = QueryPoseTrainer(cfg)
    trainer.resume_or_load(resume=False)
    trainer.train()

    learned = write_images(cfg.DATASETS.TEST[0], range(_NUM_IMAGES), output / "learned")
    draw([*learned, "--output", str(output / "poses_of_tiny_model"), *_tiny_model_options(cfg)])
    unseen = write_images("synthetic_people_val", range(_NUM_IMAGES), output / "unseen")
    unseen.append(write_clip(output / "unseen" / "walking.mp4", _NUM_FRAMES))
    draw([*unseen, "--output", str(output / "poses_of_generated_people")])
    print(f"\n{output} has the log and the weights of the tiny model, and these folders:")
    print("poses: poses by the packaged model on a photo and on your own images, if any;")
    print("poses_of_tiny_model: poses by the tiny model on the images of its training;")
    print("poses_of_generated_people: poses by the packaged model on images and a clip that it")
    print("was not trained on.")
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
