"""The skeletons of COCO and CrowdPose, as fields of a :class:`querypose.skeleton.Skeleton`."""

from __future__ import annotations

from typing import Any

from querypose.side_names import flips_by_name

_LIMB_PARTS = (
    ("left_shoulder", "right_shoulder"),
    ("left_elbow", "left_wrist"),
    ("right_elbow", "right_wrist"),
    ("left_hip", "right_hip"),
    ("left_knee", "left_ankle"),
    ("right_knee", "right_ankle"),
)

_LIMB_EDGES = (
    ("left_shoulder", "left_elbow"),
    ("left_elbow", "left_wrist"),
    ("right_shoulder", "right_elbow"),
    ("right_elbow", "right_wrist"),
    ("left_shoulder", "left_hip"),
    ("right_shoulder", "right_hip"),
    ("left_shoulder", "right_shoulder"),
    ("left_hip", "right_hip"),
    ("left_hip", "left_knee"),
    ("left_knee", "left_ankle"),
    ("right_hip", "right_knee"),
    ("right_knee", "right_ankle"),
)


def _both_sides(*names: str) -> tuple[str, ...]:
    return tuple(f"{side}_{name}" for name in names for side in ("left", "right"))


def _both_sigmas(*tenths: float) -> tuple[float, ...]:
    return tuple(round(tenth / 10, 4) for tenth in tenths for _ in ("left", "right"))


_LIMBS = _both_sides("shoulder", "elbow", "wrist", "hip", "knee", "ankle")
_LIMB_SIGMAS = _both_sigmas(0.79, 0.72, 0.62, 1.07, 0.87, 0.89)

COCO: dict[str, Any] = {
    "keypoints": ("nose", *_both_sides("eye", "ear"), *_LIMBS),
    "flips": flips_by_name((*_both_sides("eye", "ear"), *_LIMBS)),
    "sigmas": (0.026, *_both_sigmas(0.25, 0.35), *_LIMB_SIGMAS),
    "edges": (
        ("nose", "left_eye"),
        ("nose", "right_eye"),
        ("left_eye", "right_eye"),
        ("left_eye", "left_ear"),
        ("right_eye", "right_ear"),
        ("left_ear", "left_shoulder"),
        ("right_ear", "right_shoulder"),
        *_LIMB_EDGES,
    ),
    "parts": (("nose", *_both_sides("eye", "ear")), *_LIMB_PARTS),
}

CROWDPOSE: dict[str, Any] = {
    "keypoints": (*_LIMBS, "head", "neck"),
    "flips": flips_by_name(_LIMBS),
    "sigmas": (*_LIMB_SIGMAS, 0.079, 0.079),
    "edges": (
        ("head", "neck"),
        ("neck", "left_shoulder"),
        ("neck", "right_shoulder"),
        *(edge for edge in _LIMB_EDGES if edge != ("left_shoulder", "right_shoulder")),
    ),
    "parts": (("head", "neck"), *_LIMB_PARTS),
}
