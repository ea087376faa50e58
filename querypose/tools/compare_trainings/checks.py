"""Mistakes that would show after hours, found before the first training."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog
from detectron2.utils.file_io import PathManager

from querypose.checkpoint.download import fetch, read_at
from querypose.data.datasets.coco import check_configured_datasets, register_configured_datasets
from querypose.data.datasets.records import load_records
from querypose.engine.dataset_agreement import check_datasets
from querypose.engine.kept_settings import begin_or_continue, digest_of
from querypose.engine.resumed_settings import Settings, settings_by_key, training_settings
from querypose.skeleton import Skeleton
from querypose.tools.compare_trainings.training import Training, images_per_iteration

# What the command decides, by the argument that does.
_DECIDED = {
    "OUTPUT_DIR": "the output folder",
    "SEED": "--seeds",
    "SOLVER.MAX_ITER": "--images",
}
# More images continue a training; what computes changes nothing but rounding; and of files the
# content counts.
_NUM_COMPARED = 20
"""Images of a dataset that stand for all."""
_FREE = (
    *("SOLVER.MAX_ITER", "MODEL.DEVICE", "DATALOADER.NUM_WORKERS"),
    *("MODEL.WEIGHTS", "MODEL.WEIGHTS_ONLY", "DATASETS.REGISTER"),
)


def check_trainings(trainings: Sequence[Training]) -> None:
    """Checks trainings, registers their datasets, and notes the settings in their folders.

    Raises:
        OSError: a file does not exist, or cannot be read.
        ValueError: an option or a dataset is invalid, or a folder is of another training.
    """
    by_folder: dict[Path, Training] = {}
    for training in trainings:
        other = by_folder.setdefault(training.folder, training)
        if other is not training:
            raise ValueError(
                f"{other.config_file} and {training.config_file} of seed {training.seed} would "
                f"train in the same folder, {training.folder}: give one another name."
            )
        _check(training)
    for training in trainings:
        _begin_or_continue(training)


def _check(training: Training) -> None:
    for key in training.opts[::2]:
        if key in _DECIDED:
            raise ValueError(f"{key} follows from {_DECIDED[key]}: leave it out of --opts.")
    cfg = training.read_config()
    _check_weights(cfg, training.name)
    register_configured_datasets(cfg)
    check_configured_datasets(cfg)
    if not cfg.DATASETS.TEST:
        raise ValueError("DATASETS.TEST names no dataset to compare the trainings on.")
    check_datasets(cfg)
    fetch(cfg.MODEL.WEIGHTS)


def _check_weights(cfg: CfgNode, name: str) -> None:
    timm = cfg.MODEL.TIMM
    is_timm = cfg.MODEL.BACKBONE.NAME.startswith("build_timm_")
    if is_timm and timm.FREEZE_BN and not (cfg.MODEL.WEIGHTS or timm.PRETRAINED):
        raise ValueError(
            f"{name} freezes the batch norms of a backbone of random weights, which learns little: "
            "set MODEL.WEIGHTS to the file of a trained backbone, or MODEL.TIMM.PRETRAINED True to "
            f"download timm's ImageNet weights of {timm.NAME}."
        )


def _begin_or_continue(training: Training) -> None:
    cfg = training.read_config()
    settings = training_settings(cfg) | settings_by_key(cfg, ["TEST"])
    settings = {key: value for key, value in settings.items() if key not in _FREE}
    settings |= _contents(cfg)
    training.folder.mkdir(parents=True, exist_ok=True)
    begin_or_continue(training.folder / "settings.json", settings)
    curve = training.curve()
    if curve and curve[-1].num_images > cfg.SOLVER.MAX_ITER * images_per_iteration(cfg):
        raise ValueError(
            f"{training.folder} has seen {curve[-1].num_images:,} images: name as many by "
            "--images, or another output folder."
        )


def _contents(cfg: CfgNode) -> Settings:
    """Stands for the content of the files that a training reads, wherever they are."""
    weights = cfg.MODEL.WEIGHTS
    contents = {"content of the weights": read_at(weights, digest_of) if weights else ""}
    for name in (*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST):
        metadata = MetadataCatalog.get(name)
        contents[f"skeleton of {name}"] = Skeleton.from_metadata(metadata).to_dict()
        if metadata.get("json_file"):
            path = PathManager.get_local_path(str(metadata.json_file))
            contents[f"content of the labels of {name}"] = digest_of(path)
            contents[f"images of {name}"] = _digest_of_images(name)
    return contents


def _digest_of_images(name: str) -> str:
    records = load_records(name)
    paths = [record["file_name"] for record in records[:: -(-len(records) // _NUM_COMPARED)]]
    content = "".join(digest_of(PathManager.get_local_path(path)) for path in paths)
    return hashlib.sha256(content.encode()).hexdigest()
