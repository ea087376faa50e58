import itertools
import multiprocessing
import os
import signal
import time

import numpy as np
import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets import register_coco_instances
from detectron2.data.samplers import TrainingSampler

from querypose.data import build_train_mapper
from querypose.engine.train_loader import ResumableTrainLoader
from querypose.skeleton import COCO_SKELETON

SIZES = [(4, 3), (3, 4), (5, 5), (8, 3), (2, 9)]


def augment(record):
    return record | {"random": np.random.rand(), "process": os.getpid()}


def make_loader(*, num_workers=0, wide=None, seed=3, mapper=augment):
    records = [{"id": i, "width": w, "height": h} for i, (w, h) in enumerate(SIZES)]
    return ResumableTrainLoader(
        records=records,
        mapper=mapper,
        build_sampler=lambda seed: TrainingSampler(len(records), seed=seed),
        batch_size=2,
        num_workers=num_workers,
        seed=seed,
        wide=wide,
    )


def take(loader, count):
    batches = itertools.islice(loader, count)
    return [[(sample["id"], sample["random"]) for sample in batch] for batch in batches]


WIDE = [width > height for width, height in SIZES]


@pytest.mark.parametrize("wide", [None, WIDE])
def test_continued_stream_equals_the_uninterrupted_one(wide):
    whole = take(make_loader(wide=wide), 12)
    first = make_loader(wide=wide)
    assert take(first, 5) == whole[:5]

    second = make_loader(wide=wide, seed=99)
    second.load_state_dict(first.state_dict())
    assert take(second, 7) == whole[5:]


def test_workers_change_nothing_and_prefetched_batches_do_not_count():
    alone, helped = make_loader(), make_loader(num_workers=2)
    assert take(helped, 4) == take(alone, 4)
    assert helped.state_dict() == alone.state_dict() == {"seed": 3, "num_batches": 4}


def test_an_image_looks_different_every_time():
    seen = [sample for batch in take(make_loader(), 10) for sample in batch]
    assert len({random for _, random in seen}) == len(seen) == 20
    assert take(make_loader(seed=4), 1) != take(make_loader(seed=3), 1)


def test_batches_of_one_orientation():
    for batch in itertools.islice(make_loader(wide=WIDE), 20):
        assert len({WIDE[sample["id"]] for sample in batch}) == 1


def test_workers_survive_a_signal_to_the_whole_group():
    expected = take(make_loader(), 6)
    batches = iter(make_loader(num_workers=2))
    seen = [next(batches), next(batches)]
    for process in {sample["process"] for batch in seen for sample in batch}:
        os.kill(process, signal.SIGTERM)
    seen += itertools.islice(batches, 4)
    assert [[(s["id"], s["random"]) for s in batch] for batch in seen] == expected


def break_the_fifth(record):
    if record["id"] == 4:
        raise ValueError("The fifth image is broken.")
    return augment(record)


def test_no_worker_outlives_an_error():
    """Else the process that fails would wait for them, and the other ones for it."""
    loader = make_loader(num_workers=2, mapper=break_the_fifth)
    before = set(multiprocessing.active_children())
    with pytest.raises(ValueError, match=r"fifth image is broken\. .*-check NAME") as error:
        take(loader, 10)
    end = time.monotonic() + 10
    while set(multiprocessing.active_children()) - before and time.monotonic() < end:
        time.sleep(0.01)
    assert set(multiprocessing.active_children()) <= before
    assert error.tb is not None  # A handler may hold on to it as long as it likes.


@pytest.mark.parametrize("sampler", ["TrainingSampler", "RepeatFactorTrainingSampler"])
def test_detectron2s_samplers_follow_the_seed_of_the_checkpoint(tiny_config, sampler):
    cfg = tiny_config("SEED", -1, "DATALOADER.SAMPLER_TRAIN", sampler)
    first, second = (ResumableTrainLoader(cfg, lambda record: record) for _ in range(2))
    files = [sample["file_name"] for batch in itertools.islice(first, 20) for sample in batch]
    assert first.seed != second.seed

    second.load_state_dict({"seed": first.seed, "num_batches": 8})
    rest = [sample["file_name"] for batch in itertools.islice(second, 12) for sample in batch]
    assert rest == files[16:]


def test_batch_too_small_for_the_processes(tiny_config):
    with pytest.raises(ValueError, match=r"IMS_PER_BATCH \(0\) must be a multiple"):
        ResumableTrainLoader(tiny_config("SOLVER.IMS_PER_BATCH", 0), lambda record: record)


def test_areas_of_a_set_that_detectron2_registered_arrive(
    tiny_config, label_content, write_labels, tmp_path
):
    """As ``keypoints_coco_2017_train`` is registered; Detectron2's own loader drops them."""
    name = f"coco_{tmp_path.name}"
    json_file = write_labels(label_content(COCO_SKELETON.keypoints))
    keypoints = {"thing_classes": ["person"], "keypoint_names": list(COCO_SKELETON.keypoints)}
    register_coco_instances(name, keypoints, str(json_file), str(tmp_path))
    affine = ("ZOOM", [1.0, 1.0], "DEGREES", 0.0, "SHIFT", 0.0, "SIZE", 192)
    options = [f"INPUT.AFFINE.{item}" if isinstance(item, str) else item for item in affine]
    cfg = tiny_config("DATASETS.TRAIN", (name,), "INPUT.MAPPER", "PoseAffineMapper", *options)
    try:
        batch = next(iter(ResumableTrainLoader(cfg, build_train_mapper(cfg))))
        areas = [area for sample in batch for area in sample["instances"].gt_areas.tolist()]
        # The crop is a square of the images' 96 rows, twice as large; the boxes would say 814.
        assert areas == pytest.approx([800 * 4] * 4)
    finally:
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)


def test_a_region_of_another_size_matters_where_it_is_read(
    tiny_config, label_content, register_labels
):
    content = label_content()
    content["annotations"][1] |= {"iscrowd": 1, "segmentation": {"size": [4, 2], "counts": [8]}}
    cfg = tiny_config("DATASETS.TRAIN", (register_labels(content),))
    ResumableTrainLoader(cfg, build_train_mapper(cfg))
    cfg.INPUT.MAPPER = "PoseAffineMapper"
    with pytest.raises(ValueError, match=r"1\.png: a crowd or a person without labels has a segm"):
        ResumableTrainLoader(cfg, build_train_mapper(cfg))
    cfg.INPUT.AFFINE.IGNORE_REGIONS = False
    ResumableTrainLoader(cfg, build_train_mapper(cfg))
