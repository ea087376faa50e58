"""Predicts a collection in any number of processes, on any number of machines."""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import torch
from detectron2.data.samplers import InferenceSampler
from detectron2.utils import comm
from tqdm import tqdm

from querypose.cli.collection import COMMAND, CollectedImage, Collection, find_collection
from querypose.cli.formats import Kind
from querypose.cli.frames import (
    BATCHES_PER_CHUNK,
    Frame,
    predict_frames,
    read_ahead,
    read_images,
)
from querypose.cli.inputs import Input
from querypose.cli.outputs import check_targets, collection_files
from querypose.cli.progress import report
from querypose.cli.run_settings import run_settings
from querypose.cli.shards import ShardFolder
from querypose.cli.work import build_predictor
from querypose.data.datasets.coco import register_configured_datasets
from querypose.engine.consensus import from_main_process, wait_for_all
from querypose.engine.kept_settings import begin_or_continue
from querypose.inference.model_loading import find_config
from querypose.inference.prediction import PosePrediction
from querypose.inference.predictor import PosePredictor
from querypose.printing import print_text


class _Plan(NamedTuple):
    """What is to be done.

    Attributes:
        collection: all images.
        missing: indices of the shards that are not there.
    """

    collection: Collection
    missing: list[int]


def predict_collection(args: argparse.Namespace) -> None:
    """Predicts the shards that are not there and merges all. Collective: every rank must call it.

    Shards are shared among the processes as Detectron2's ``InferenceSampler`` shares images.

    Args:
        args: of the command.

    Raises:
        OSError: a file cannot be read or written.
        ValueError: the collection or the model is not there, the settings are not those that the
            output was begun with, or shards are missing in the end.
    """
    collection, missing = from_main_process(lambda: _plan(args))
    folder = _shard_folder(args, collection)
    own = [missing[place] for place in InferenceSampler(len(missing))] if missing else []
    seconds = _predict_shards(own, folder, collection.images, args) if own else 0.0
    wait_for_all()
    slowest = max(comm.gather(seconds), default=0.0)
    if comm.is_main_process() and not folder.is_merged:
        if missing:
            _report_rate(folder, missing, slowest)
        _merge(folder, collection)


def _plan(args: argparse.Namespace) -> _Plan:
    cfg, _ = find_config(args.config_file, args.weights, args.opts)
    # The datasets of the training need not be here.
    cfg.DATASETS.REGISTER = [
        entry for entry in cfg.DATASETS.REGISTER if entry[0] == args.collection
    ]
    register_configured_datasets(cfg)
    collection = find_collection(args.collection, args.image_root)
    if collection.label_file:
        label_file = Input(Kind.IMAGE, collection.label_file)
        check_targets(collection_files(Path(args.output)), [label_file])
    folder = _shard_folder(args, collection)
    if folder.is_begun and not folder.settings_file.is_file():
        raise ValueError(f"{args.output} holds results of something else: name another --output.")
    begin_or_continue(folder.settings_file, run_settings(cfg, args, collection))
    if folder.is_merged:
        print_text(f"{folder.results_file} is complete already.")
        return _Plan(collection, [])
    return _Plan(collection, folder.missing())


def _report_rate(folder: ShardFolder, indices: Sequence[int], seconds: float) -> None:
    slices = map(folder.slice_of, indices)
    count = sum(part.stop - part.start for part in slices)
    report(
        f"Images: {count} in {seconds:.1f} s, {count / seconds:.2f} a second; "
        f"processes: {comm.get_world_size()}.",
        COMMAND,
    )


def _merge(folder: ShardFolder, collection: Collection) -> None:
    merged = folder.merge(collection.images)
    if merged.num_skipped:
        report(f"Skipped images: {merged.num_skipped}, see {folder.skipped_file}.", COMMAND)
    print_text(
        f"Written: {folder.results_file}, {merged.num_people} people in "
        f"{len(collection.images)} images"
    )
    if collection.label_file:
        files = f"{collection.label_file} {folder.results_file}"
        print_text(f"Evaluate: python -m querypose.evaluation {files}")


def _shard_folder(args: argparse.Namespace, collection: Collection) -> ShardFolder:
    return ShardFolder(Path(args.output), len(collection.images), args.shard_size)


def _predict_shards(
    indices: Sequence[int],
    folder: ShardFolder,
    images: Sequence[CollectedImage],
    args: argparse.Namespace,
) -> float:
    """Predicts and writes shards; returns the seconds that it took without loading the model."""
    predictor = build_predictor(args)
    shards = [images[folder.slice_of(index)] for index in indices]
    inputs = [Input(Kind.IMAGE, image.path) for shard in shards for image in shard]
    ahead = read_ahead(read_images(inputs), BATCHES_PER_CHUNK * predictor.batch_size)
    start = time.perf_counter()
    quiet = not comm.is_main_process()
    with tqdm(total=len(inputs), unit="image", disable=quiet) as bar:
        for index, shard in zip(indices, shards, strict=True):
            results: list[dict[str, Any]] = []
            skipped: list[dict[str, Any]] = []
            pairs = _predict(islice(ahead, len(shard)), predictor)
            for image, (frame, prediction) in zip(shard, pairs, strict=True):
                if prediction is None:
                    report(f"Skipped: {frame.error}", COMMAND)
                    row = {"image_id": image.image_id, "file_name": image.file_name}
                    skipped.append(row | {"error": frame.error})
                else:
                    results += prediction.to_coco(image.image_id)
                bar.update()
            folder.write(index, results, skipped)
    return time.perf_counter() - start


def _predict(
    frames: Iterator[Frame], predictor: PosePredictor
) -> Iterator[tuple[Frame, PosePrediction | None]]:
    try:
        yield from predict_frames(frames, predictor, BATCHES_PER_CHUNK * predictor.batch_size)
    except torch.cuda.OutOfMemoryError as error:
        raise ValueError(
            "The memory of the GPU is too small: lower --batch-size, and the run continues."
        ) from error
