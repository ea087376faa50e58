"""What the demo does with its predictions."""

from __future__ import annotations

from dataclasses import dataclass

from querypose import drawable
from querypose.cli.window import Window


@dataclass(frozen=True)
class DemoOptions:
    """What the demo does with its predictions.

    Attributes:
        save_json: path of the plain JSON file; "" for none.
        sheet: path of the mosaic of all drawn images; "" for none.
        window: shows drawings; None shows none.
        draw: see :class:`~querypose.visualization.visualizer.PoseVisualizer`.
        extras: what else to draw of images, of :data:`querypose.drawable.EXTRAS`.
        attention_stage: decoder stage; negative counts from the last.
        attention_person: draw one person, from 1 by falling score; None draws everybody.
        keypoint_threshold: see
            :class:`~querypose.visualization.visualizer.PoseVisualizer`; None takes that of the
            predictor.
        track: whether to track people; None tracks them in streams but not in images.
    """

    save_json: str = ""
    sheet: str = ""
    window: Window | None = None
    draw: frozenset[str] = drawable.DEFAULT
    extras: frozenset[str] = frozenset()
    attention_stage: int = -1
    attention_person: int | None = None
    keypoint_threshold: float | None = None
    track: bool | None = None
