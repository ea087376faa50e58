"""The camera: a weak perspective, so foreshortening and hidden faces follow from geometry.

Camera frame: x to the image's right, y up, z towards the viewer, origin at the pelvis (meters).
A person who faces the viewer therefore has body and camera frame aligned, and the left shoulder at
the larger x.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from querypose.synthetic.appearance import Appearance
from querypose.synthetic.kinematics import PosedBody


@dataclass(frozen=True)
class View:
    """How the camera sees a figure.

    Attributes:
        rotation: (3, 3) body frame to camera frame.
        distance: camera distance in meters; smaller means stronger perspective.
        scale: pixels per meter at the pelvis' depth.
        origin: (2,) the pelvis in continuous image coordinates (pixels).
        light: (2,) unit vector in the image that points to the light.
        outline: width of the contour in meters.
    """

    rotation: np.ndarray
    distance: float
    scale: float
    origin: np.ndarray
    light: np.ndarray
    outline: float

    def project(self, points: np.ndarray) -> np.ndarray:
        """(..., 3) camera frame -> (..., 2) image (pixels)."""
        gain = self.gain(points[..., 2])[..., None]
        return self.origin + points[..., :2] * (1.0, -1.0) * gain

    def gain(self, depth: np.ndarray) -> np.ndarray:
        """Pixels per meter at a depth (meters towards the viewer)."""
        return self.scale * self.distance / (self.distance - depth)


class ProjectedFigure:
    """A posed and dressed person in front of the camera: what every body region is drawn from.

    Attributes:
        body: the solved pose.
        look: build, clothes and colors.
        view: camera, place in the image, light.
        painted: False where only silhouettes are wanted.
        points: the body's landmarks (3,) by name, in the camera frame.
        axes: the body's frames (3, 3) by name, as axes in the camera frame.
    """

    def __init__(
        self, body: PosedBody, look: Appearance, view: View, *, painted: bool = True
    ) -> None:
        """Turn the body towards the camera."""
        self.body, self.look, self.view, self.painted = body, look, view, painted
        points = np.array(list(body.points.values())) @ view.rotation.T
        self.points = dict(zip(body.points, points, strict=True))
        self.axes = {name: view.rotation @ frame for name, frame in body.frames.items()}

    def limb(self, side: str, *names: str) -> list[np.ndarray]:
        """Landmarks (3,) of an arm or leg, in the camera frame."""
        return [self.points[f"{side}_{name}"] for name in names]
