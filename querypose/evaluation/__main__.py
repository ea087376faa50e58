"""Evaluates CrowdPose results: ``python -m querypose.evaluation ANNOTATIONS RESULTS``."""

from __future__ import annotations

import argparse
import sys

from detectron2.utils.logger import create_small_table

from querypose.evaluation.crowdpose import evaluate_crowdpose


def main() -> None:
    """Prints a table of CrowdPose's metrics, in percent."""
    parser = argparse.ArgumentParser(
        prog="python -m querypose.evaluation", description="Evaluate CrowdPose results."
    )
    parser.add_argument("annotations", help="CrowdPose's annotation file, e.g. crowdpose_test.json")
    parser.add_argument(
        "results", help="results in COCO's format, e.g. coco_instances_results.json"
    )
    arguments = parser.parse_args()
    try:
        metrics = evaluate_crowdpose(arguments.annotations, arguments.results)
    except (OSError, ValueError) as error:
        sys.exit(f"querypose.evaluation: {error}")
    print(create_small_table(metrics))


if __name__ == "__main__":
    main()
