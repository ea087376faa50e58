"""How a body looks solid: a contour, a shadow side and a lit side, painted one over the other.

The contours alone are the silhouette, so an unpainted figure consists of them.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from querypose.synthetic.color import Color, shade
from querypose.synthetic.polygons import capsule_polygons, grow
from querypose.synthetic.projection import ProjectedFigure
from querypose.synthetic.shapes import Part, Shape

CONTOUR_GAIN = 0.5
_SHADOW_GAIN = 0.8
_LIT_GAIN = 1.0


class Segment(NamedTuple):
    """A tapered piece of a limb between two landmarks in the camera frame; radii in meters."""

    start: np.ndarray
    start_radius: float
    end: np.ndarray
    end_radius: float
    color: Color
    part: Part


def draw_hulls(
    figure: ProjectedFigure, hulls: list[np.ndarray], color: Color, part: Part
) -> list[Shape]:
    """Contour, shadow side and lit side of a union of convex (V, 2) hulls."""
    view = figure.view
    contour = shade(color, CONTOUR_GAIN)
    shapes = [Shape(grow(hull, view.outline * view.scale), contour, part) for hull in hulls]
    if figure.painted:
        shadow, lit = shade(color, _SHADOW_GAIN), shade(color, _LIT_GAIN)
        shapes += [Shape(hull, shadow) for hull in hulls]
        shift = 0.02 * view.scale * view.light
        shapes += [Shape(grow(hull, -0.014 * view.scale) + shift, lit) for hull in hulls]
    return shapes


def draw_chains(
    figure: ProjectedFigure, chains: dict[str, list[Segment]]
) -> dict[str, list[Shape]]:
    """Contour, shadow side and lit side of every chain of tapered capsules, by chain.

    Within a chain a layer is complete before the next begins, so that its pieces merge.
    """
    # One call computes the corners of all chains: calls cost more than arithmetic here.
    layers = _capsule_layers(figure, [segment for chain in chains.values() for segment in chain])
    drawn, first = {}, 0
    for name, chain in chains.items():
        last = first + len(chain)
        drawn[name] = [
            Shape(polygon, shade(segment.color, gain), segment.part if silhouette else Part.DETAIL)
            for polygons, gain, silhouette in layers
            for segment, polygon in zip(chain, polygons[first:last], strict=True)
        ]
        first = last
    return drawn


def _capsule_layers(
    figure: ProjectedFigure, segments: list[Segment]
) -> list[tuple[np.ndarray, float, bool]]:
    """Per layer: (N, 18, 2) polygons, brightness, whether it is the silhouette."""
    view = figure.view
    ends = np.array([(segment.start, segment.end) for segment in segments])
    meters = np.array([(segment.start_radius, segment.end_radius) for segment in segments])
    gains = view.gain(ends[..., 2])
    centers, radii = view.project(ends), meters * gains
    layers = [(centers, radii + view.outline * gains, CONTOUR_GAIN)]
    if figure.painted:
        lit_centers = centers + 0.2 * radii[..., None] * view.light
        layers += [(centers, radii, _SHADOW_GAIN), (lit_centers, 0.8 * radii, _LIT_GAIN)]
    discs = np.concatenate([layer[0] for layer in layers])
    sizes = np.concatenate([layer[1] for layer in layers])
    polygons = capsule_polygons(discs[:, 0], sizes[:, 0], discs[:, 1], sizes[:, 1])
    by_layer = polygons.reshape(len(layers), len(segments), -1, 2)
    return [(by_layer[i], gain, i == 0) for i, (_, _, gain) in enumerate(layers)]
