"""An endless stream of training batches that can be resumed at any position."""

from __future__ import annotations

import contextlib
import itertools
import signal
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from detectron2.config import CfgNode, configurable
from detectron2.data import DatasetFromList, build_detection_train_loader
from detectron2.data.build import trivial_batch_collator
from detectron2.utils import comm
from torch.utils.data import DataLoader, Dataset

from querypose.data.datasets.records import load_training_records
from querypose.data.ignore_mask import check_regions
from querypose.engine.dataset_agreement import check_flips, check_unnamed_classes
from querypose.engine.seeding import mixed_seed, seed_everything

# Enough for the current iteration and its checkpoint.
_SECONDS_AFTER_SIGTERM = 30

Record = dict[str, Any]
Mapper = Callable[[Record], Record]


class Draw(NamedTuple):
    """One sample of the stream.

    Attributes:
        index: index of the image in the dataset.
        position: position of the sample in the stream of all processes together.
    """

    index: int
    position: int


class SeededDataset(Dataset):
    """Maps records; the random numbers depend on the seed and the draw's position only.

    Args:
        records: the dataset.
        mapper: reads and augments one record.
        seed: the run's seed.
    """

    def __init__(self, records: Sequence[Record], mapper: Mapper, seed: int) -> None:
        self.records = records
        self.mapper = mapper
        self.seed = seed

    def __getitem__(self, draw: Draw) -> Record:
        seed_everything(mixed_seed(self.seed, draw.position))
        try:
            return self.mapper(self.records[draw.index])
        except (FileNotFoundError, ValueError) as error:
            kind = FileNotFoundError if isinstance(error, FileNotFoundError) else ValueError
            raise kind(
                f"{error} What else is wrong with a dataset: querypose-check NAME."
            ) from error


class ResumableTrainLoader:
    """Batches of Detectron2's training samplers, with a state to resume from.

    A sample and its augmentation depend on the seed and the sample's position in the stream, not
    on the number of worker processes. Without grouping by aspect ratio, the batch of all training
    processes together does not depend on their number either.

    Args:
        records: the dataset.
        mapper: reads and augments one record.
        build_sampler: builds this process's endless stream of indices from a seed.
        batch_size: images per batch of this process.
        num_workers: worker processes that read images; 0 reads them in this process.
        seed: the run's seed.
        wide: whether each record is wider than high, to batch images of one orientation; None
            mixes them.
    """

    @configurable
    def __init__(
        self,
        *,
        records: Sequence[Record],
        mapper: Mapper,
        build_sampler: Callable[[int], Iterable[int]],
        batch_size: int,
        num_workers: int,
        seed: int,
        wide: Sequence[bool] | None = None,
    ) -> None:
        self.records = records
        self.mapper = mapper
        self.build_sampler = build_sampler
        self.batch_size = batch_size
        self.num_workers = num_workers
        self.seed = seed
        self.wide = wide
        self.num_batches = 0

    @classmethod
    def from_config(cls, cfg: CfgNode, mapper: Mapper) -> dict[str, Any]:
        """Reads ``DATASETS``, ``DATALOADER``, ``SOLVER.IMS_PER_BATCH``, ``SEED`` and the filters.

        Raises:
            FileNotFoundError: a label file does not exist.
            ValueError: the batch cannot be divided among the processes, there is no image to train
                on, the dataset has other classes or mirror images than the model, a region has
                another size than its image, or a label file contradicts itself.
        """
        keypoint_head = cfg.MODEL.ROI_KEYPOINT_HEAD
        loaded = load_training_records(
            cfg.DATASETS.TRAIN,
            filter_empty=cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS,
            min_keypoints=keypoint_head.MIN_KEYPOINTS_PER_IMAGE if cfg.MODEL.KEYPOINT_ON else 0,
        )
        check_unnamed_classes(cfg, loaded)
        check_flips(cfg)
        if getattr(mapper, "ignore_regions", False):
            check_regions(loaded)
        # Serialized, so that worker processes share it.
        records = DatasetFromList(loaded, copy=False)
        build = partial(
            build_detection_train_loader.from_config, cfg, mapper=mapper, dataset=records
        )
        parts = build()

        def build_sampler(seed: int) -> Iterable[int]:
            with _numpy_seed(seed):
                return build()["sampler"]

        batch_size, rest = divmod(parts["total_batch_size"], comm.get_world_size())
        if rest or batch_size == 0:
            raise ValueError(
                f"SOLVER.IMS_PER_BATCH ({parts['total_batch_size']}) must be a multiple of the "
                f"number of processes ({comm.get_world_size()})."
            )
        wide = None
        if parts["aspect_ratio_grouping"]:
            wide = [record["width"] > record["height"] for record in loaded]
        return {
            "records": records,
            "mapper": mapper,
            "build_sampler": build_sampler,
            "batch_size": batch_size,
            "num_workers": parts["num_workers"],
            "seed": cfg.SEED if cfg.SEED >= 0 else comm.shared_random_seed(),
            "wide": wide,
        }

    def __iter__(self) -> Iterator[list[Record]]:
        """Yields batches without end, from the position of the state on."""
        batches = DataLoader(
            SeededDataset(self.records, self.mapper, self.seed),
            batch_sampler=itertools.islice(self._batches(), self.num_batches, None),
            num_workers=self.num_workers,
            collate_fn=trivial_batch_collator,
            worker_init_fn=_outlive_sigterm,
        )
        try:
            for batch in batches:
                self.num_batches += 1
                yield batch
        except BaseException as error:
            # The error's frames would keep the worker processes alive, and Python waits for them
            # when it exits.
            traceback.clear_frames(error.__traceback__)
            raise

    def _batches(self) -> Iterator[list[Draw]]:
        rank, world_size = comm.get_rank(), comm.get_world_size()
        pending: dict[bool, list[Draw]] = {False: [], True: []}
        for count, index in enumerate(self.build_sampler(self.seed)):
            batch = pending[self.wide is not None and self.wide[index]]
            batch.append(Draw(index, rank + count * world_size))
            if len(batch) == self.batch_size:
                yield batch[:]
                batch.clear()

    def state_dict(self) -> dict[str, int]:
        """The seed and the number of batches yielded so far; equal in all processes."""
        return {"seed": self.seed, "num_batches": self.num_batches}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        """Continues the stream of a state; call it before iterating."""
        self.seed = state_dict["seed"]
        self.num_batches = state_dict["num_batches"]


@contextlib.contextmanager
def _numpy_seed(seed: int) -> Iterator[None]:
    """Seeds NumPy's global generator, from which Detectron2's samplers draw their seeds."""
    state = np.random.get_state()
    np.random.seed(mixed_seed(seed))
    try:
        yield
    finally:
        np.random.set_state(state)


def _outlive_sigterm(_: int) -> None:
    """Keeps a worker alive for a while after SIGTERM, which schedulers send to all processes.

    The time is limited, because a process that ends with an error sends its workers the same signal
    and waits for them.
    """
    signal.signal(signal.SIGTERM, lambda *_: signal.alarm(_SECONDS_AFTER_SIGTERM))
