"""Trains a tiny model on generated people, evaluates it and draws what it sees.

It needs no download and no GPU, and shows that everything works, not how well the method does: the
model sees eight pictures for a moment. Pictures named on the command line are drawn too.
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
# The model is young: its scores are low.
_CONFIDENCE, _KEYPOINT_CONFIDENCE = "0.2", "0.1"


def main(pictures: list[str]) -> int:
    """Runs the whole tour; returns the exit code of the drawing."""
    cfg = read_config(_CONFIG)
    default_setup(cfg, None)
    trainer = QueryPoseTrainer(cfg)
    trainer.resume_or_load(resume=False)
    trainer.train()

    output = Path(cfg.OUTPUT_DIR)
    generated = _write_generated(cfg, output / "pictures")
    poses = output / "poses"
    code = draw(
        [
            *(str(path) for path in (generated, *pictures)),
            *("--config-file", str(_CONFIG)),
            *("--weights", str(output / "model_final.pth")),
            *("--output", str(poses)),
            *("--confidence-threshold", _CONFIDENCE),
            *("--keypoint-threshold", _KEYPOINT_CONFIDENCE),
        ]
    )
    print(f"\nThe drawn poses are in {poses.resolve()}, the log and the weights beside them.")
    return code


def _write_generated(cfg: CfgNode, folder: Path) -> Path:
    """Writes some pictures of the dataset as files, as a user's own would be."""
    folder.mkdir(parents=True, exist_ok=True)
    for record in DatasetCatalog.get(cfg.DATASETS.TEST[0])[:_NUM_GENERATED]:
        path = folder / f"generated_{record['image_id']}.png"
        Image.fromarray(read_picture(record["file_name"], "RGB")).save(path)
    return folder


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
