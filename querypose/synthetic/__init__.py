"""Generated people: a keypoint dataset that needs no files and is the same on every machine.

An image is a function of its path, ``synthetic://people/{seed}/{width}x{height}/{max_people}/
{index}.png``. Detectron2's own file layer renders it when a loader, mapper or visualizer opens that
path; the records come from the same scene without painting it. Importing this package registers
``synthetic_people_train``, ``synthetic_people_val`` and ``synthetic_people_tiny``.

From seed to image: ``scene`` (who is where; ``pose``, ``appearance``, ``kinematics``,
``foreground``), ``figure`` (one person as polygons; ``projection``, ``trunk``, ``limbs``, ``head``,
``hair``, ``face``, ``seat``, ``keypoints``), then ``painting`` (``backdrop``, ``photograph``) for
the pixels or ``annotation`` (``labels``) for what is known about them.
"""

from querypose.synthetic.annotation import annotate
from querypose.synthetic.dataset import SyntheticPeople
from querypose.synthetic.painting import render
from querypose.synthetic.path_handler import SyntheticPathHandler
from querypose.synthetic.registration import (
    register_builtin_synthetic_people,
    register_synthetic_people,
)
from querypose.synthetic.scene import MAX_PEOPLE, Scene, sample_scene

__all__ = [
    "MAX_PEOPLE",
    "Scene",
    "SyntheticPathHandler",
    "SyntheticPeople",
    "annotate",
    "register_builtin_synthetic_people",
    "register_synthetic_people",
    "render",
    "sample_scene",
]

register_builtin_synthetic_people()
