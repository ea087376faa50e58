"""Evaluates a results file: ``python -m querypose.evaluation ANNOTATIONS RESULTS``."""

from __future__ import annotations

import argparse
import dataclasses
import sys

from detectron2.utils.logger import create_small_table

from querypose.data.datasets.coco import declared_skeleton
from querypose.data.datasets.labels import read_categories
from querypose.evaluation.coco import evaluate_coco
from querypose.evaluation.crowdpose import evaluate_crowdpose
from querypose.skeleton import COCO_SKELETON, CROWDPOSE_SKELETON, DEFAULT_SIGMA, Skeleton


def main() -> None:
    """Prints a table of metrics, in percent: CrowdPose's on its keypoints, else COCO's."""
    arguments = _parser().parse_args()
    try:
        skeleton = _skeleton(arguments)
        is_crowdpose = skeleton.keypoints == CROWDPOSE_SKELETON.keypoints
        # Sets that come with a skeleton file are evaluated as COCO does, whatever their keypoints.
        own_file = bool(arguments.skeleton)
        evaluate = evaluate_crowdpose if is_crowdpose and not own_file else evaluate_coco
        metrics = evaluate(arguments.annotations, arguments.results, skeleton)
    except (OSError, ValueError) as error:
        sys.exit(f"querypose.evaluation: {error}")
    print(create_small_table(metrics))
    if skeleton.sigmas != COCO_SKELETON.sigmas:
        print(f"OKS sigmas: {_origin_of_sigmas(skeleton, arguments)}.")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m querypose.evaluation",
        description="Evaluate keypoint results: as CrowdPose does on its keypoints, else as COCO.",
    )
    parser.add_argument("annotations", help="labels in COCO's format")
    parser.add_argument(
        "results", help="results in COCO's format, e.g. coco_instances_results.json"
    )
    parser.add_argument(
        "--skeleton",
        metavar="FILE",
        help="the skeleton file of the dataset, as the fourth entry of DATASETS.REGISTER, to "
        "evaluate as COCO; by default the keypoints are those of the labels",
    )
    parser.add_argument(
        "--sigmas",
        type=float,
        nargs="+",
        default=[],
        help="OKS standard deviations of the keypoints, as TEST.KEYPOINT_OKS_SIGMAS; by default "
        "those of the skeleton",
    )
    return parser


def _skeleton(arguments: argparse.Namespace) -> Skeleton:
    if arguments.skeleton:
        skeleton = Skeleton.from_file(arguments.skeleton)
    elif any(row.get("keypoints") for row in read_categories(arguments.annotations)):
        skeleton = declared_skeleton(arguments.annotations)
    else:
        skeleton = CROWDPOSE_SKELETON
    return dataclasses.replace(skeleton, sigmas=tuple(arguments.sigmas) or skeleton.sigmas)


def _origin_of_sigmas(skeleton: Skeleton, arguments: argparse.Namespace) -> str:
    if arguments.sigmas:
        return "those of --sigmas"
    if arguments.skeleton:
        return f"those of {arguments.skeleton}"
    if skeleton.sigmas == CROWDPOSE_SKELETON.sigmas:
        return "CrowdPose's"
    return (
        f"{DEFAULT_SIGMA} for each keypoint, since label files name none; if the dataset has a "
        "skeleton file, pass it by --skeleton"
    )


if __name__ == "__main__":
    main()
