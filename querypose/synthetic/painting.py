"""Paint a scene: backdrop, people from the farthest to the nearest, foreground, camera."""

from __future__ import annotations

import cv2
import numpy as np

from querypose.synthetic.backdrop import paint_backdrop
from querypose.synthetic.figure import draw_figure
from querypose.synthetic.photograph import photograph
from querypose.synthetic.scene import Scene
from querypose.synthetic.shapes import paint_shapes

_SUPERSAMPLING = 2


def render(scene: Scene) -> np.ndarray:
    """Paint a scene.

    Returns:
        (H, W, 3) uint8, RGB.
    """
    rng = np.random.default_rng([scene.seed, scene.index, 1])
    size = (scene.width, scene.height)
    zoomed = (_SUPERSAMPLING * scene.width, _SUPERSAMPLING * scene.height)
    canvas = cv2.resize(paint_backdrop(rng, scene), zoomed, interpolation=cv2.INTER_NEAREST)
    for person in scene.people:
        drawing = draw_figure(person.body, person.look, person.view)
        paint_shapes(canvas, drawing.shapes, zoom=_SUPERSAMPLING)
    paint_shapes(canvas, scene.foreground, zoom=_SUPERSAMPLING)
    return photograph(rng, cv2.resize(canvas, size, interpolation=cv2.INTER_AREA))
