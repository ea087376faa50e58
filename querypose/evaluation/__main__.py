"""Evaluates a results file: ``python -m querypose.evaluation ANNOTATIONS RESULTS``."""

from __future__ import annotations

import argparse
import sys

from detectron2.utils.logger import create_small_table

from querypose.data.datasets.labels import read_categories
from querypose.evaluation.coco import evaluate_coco
from querypose.evaluation.crowdpose import evaluate_crowdpose
from querypose.skeleton import CROWDPOSE_SKELETON


def main() -> None:
    """Prints a table of metrics, in percent: CrowdPose's on its keypoints, else COCO's."""
    parser = argparse.ArgumentParser(
        prog="python -m querypose.evaluation",
        description="Evaluate keypoint results: as CrowdPose does on its keypoints, else as COCO.",
    )
    parser.add_argument("annotations", help="labels in COCO's format")
    parser.add_argument(
        "results", help="results in COCO's format, e.g. coco_instances_results.json"
    )
    arguments = parser.parse_args()
    try:
        evaluate = evaluate_crowdpose if _is_crowdpose(arguments.annotations) else evaluate_coco
        metrics = evaluate(arguments.annotations, arguments.results)
    except (OSError, ValueError) as error:
        sys.exit(f"querypose.evaluation: {error}")
    print(create_small_table(metrics))


def _is_crowdpose(annotations: str) -> bool:
    keypoints = [row["keypoints"] for row in read_categories(annotations) if row.get("keypoints")]
    return not keypoints or list(keypoints[0]) == list(CROWDPOSE_SKELETON.keypoints)


if __name__ == "__main__":
    main()
