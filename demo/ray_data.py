"""Finds people with Ray Data: ``python demo/ray_data.py photos/ results.parquet``.

Each actor holds one predictor, and Ray shares the images among them, on one machine or a cluster.
Needs ``pip install 'querypose[ray]'``.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from io import BytesIO
from typing import Any

import numpy as np
import ray

from querypose import PosePredictor
from querypose.cli.formats import image_suffixes
from querypose.data.image import decode_file

Batch = dict[str, Any]


class FindPeople:
    """An actor class for ``Dataset.map_batches``; its arguments are those of ``from_config``."""

    def __init__(self, **options: Any) -> None:
        self.predict = PosePredictor.from_config(**options)

    def __call__(self, batch: Batch) -> Batch:
        """Replaces image files by the number of people, their scores and keypoints."""
        # Ray's own reader neither turns photos by their EXIF orientation nor scales 16 bits.
        images = [decode_file(BytesIO(content)) for content in batch.pop("bytes")]
        poses = self.predict(images)
        return batch | {
            "num_people": np.array([len(found) for found in poses]),
            # Lists of different lengths: K keypoints of x, y and score for each person.
            "scores": [found.scores.tolist() for found in poses],
            "keypoints": [found.keypoints.tolist() for found in poses],
        }


def find_people(
    folder: str, *, num_actors: int, batch_size: int, num_gpus: float, **options: Any
) -> ray.data.Dataset:
    """A dataset of ``path``, ``num_people``, ``scores`` and ``keypoints`` of all images.

    Args:
        folder: of images, on any file system that Ray reads.
        num_actors: predictors that work at once.
        batch_size: images that an actor gets at once.
        num_gpus: of each actor; 0 computes on processors, 0.5 lets two actors share a card.
        options: of :meth:`querypose.PosePredictor.from_config`.

    Raises:
        ValueError: the actors would leave no processor to read images.
    """
    if not ray.is_initialized():
        ray.init()
    num_processors = ray.cluster_resources()["CPU"]
    if num_actors >= num_processors:
        raise ValueError(
            f"{num_actors} actors on {num_processors:g} processors leave none to read images, and "
            "would wait forever: ask for fewer."
        )
    suffixes = [suffix.removeprefix(".") for suffix in image_suffixes()]
    files = ray.data.read_binary_files(folder, include_paths=True, file_extensions=suffixes)
    return files.map_batches(
        FindPeople,
        fn_constructor_kwargs=options,
        compute=ray.data.ActorPoolStrategy(size=num_actors),
        batch_size=batch_size,
        num_gpus=num_gpus,
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder")
    parser.add_argument("output", help="folder for Parquet files")
    parser.add_argument("--config-file", help="default: what the weights say, or the small model")
    parser.add_argument("--weights")
    parser.add_argument("--num-actors", type=int, default=1, help="(1)")
    parser.add_argument("--batch-size", type=int, default=8, help="images (8)")
    parser.add_argument("--num-gpus", type=float, default=0, help="of each actor (0)")
    args = parser.parse_args(arguments)
    people = find_people(
        args.folder,
        num_actors=args.num_actors,
        batch_size=args.batch_size,
        num_gpus=args.num_gpus,
        config=args.config_file,
        weights=args.weights,
        device="cuda" if args.num_gpus else "cpu",
    )
    people.write_parquet(args.output)


if __name__ == "__main__":
    sys.exit(main())
