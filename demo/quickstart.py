"""Trains a tiny model on generated people, evaluates it, and draws poses.

It needs no download and no GPU. The tiny model sees eight pictures for a moment, which shows that
training and evaluation work, not how well the method does. The model that comes with the package
then looks at generated pictures that it has not seen, and at those named on the command line.
"""

from __future__ import annotations

import sys
from pathlib import Path

from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog
from detectron2.engine import default_setup
from PIL import Image

from querypose.config import read_config
from querypose.data.picture import read_picture
from querypose.demo.main import main as draw
from querypose.engine import QueryPoseTrainer

_REPOSITORY = Path(__file__).resolve().parent.parent
_CONFIG = _REPOSITORY / "configs" / "quick" / "tiny.yaml"
_NUM_GENERATED = 8
# The tiny model is young: its scores are low.
_CONFIDENCE, _KEYPOINT_CONFIDENCE = "0.2", "0.1"


def main(pictures: list[str]) -> int:
    """Runs the whole tour; returns the exit code of the last drawing."""
    cfg = read_config(_CONFIG)
    default_setup(cfg, None)
    trainer = QueryPoseTrainer(cfg)
    trainer.resume_or_load(resume=False)
    trainer.train()

    output = Path(cfg.OUTPUT_DIR).resolve()
    learned = _write_generated(cfg.DATASETS.TEST[0], output / "learned")
    draw([str(learned), "--output", str(output / "poses_of_tiny_model"), *_tiny_model(cfg)])
    unseen = _write_generated("synthetic_people_val", output / "unseen")
    code = draw([str(unseen), *pictures, "--output", str(output / "poses")])
    print(f"\nIn {output}: the log and the weights of the tiny model, and the drawn poses,")
    print("poses_of_tiny_model: the tiny model's, on the pictures that it learned;")
    print("poses: the packaged model's, on pictures that it has not seen.")
    return code


def _tiny_model(cfg: CfgNode) -> list[str]:
    return [
        *("--config-file", str(_CONFIG)),
        *("--weights", str(Path(cfg.OUTPUT_DIR) / "model_final.pth")),
        *("--confidence-threshold", _CONFIDENCE),
        *("--keypoint-threshold", _KEYPOINT_CONFIDENCE),
    ]


def _write_generated(dataset: str, folder: Path) -> Path:
    """Writes some pictures of a dataset as files, as a user's own would be."""
    folder.mkdir(parents=True, exist_ok=True)
    for record in DatasetCatalog.get(dataset)[:_NUM_GENERATED]:
        path = folder / f"generated_{record['image_id']}.png"
        Image.fromarray(read_picture(record["file_name"], "RGB")).save(path)
    return folder


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
