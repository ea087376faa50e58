"""Arms and legs as chains of tapered capsules."""

from __future__ import annotations

from querypose.synthetic.projection import ProjectedFigure
from querypose.synthetic.shading import Segment
from querypose.synthetic.shapes import Part


def limb_parts(side: str) -> tuple[Part, Part, Part, Part]:
    """Upper arm, forearm, thigh and shin of a side."""
    if side == "left":
        return Part.LEFT_UPPER_ARM, Part.LEFT_FOREARM, Part.LEFT_THIGH, Part.LEFT_SHIN
    return Part.RIGHT_UPPER_ARM, Part.RIGHT_FOREARM, Part.RIGHT_THIGH, Part.RIGHT_SHIN


def arm_segments(figure: ProjectedFigure, side: str) -> list[Segment]:
    """Hand, forearm, upper arm, then the sleeve over them."""
    look = figure.look
    shoulder, elbow, wrist, hand, thumb = figure.limb(
        side, "shoulder", "elbow", "wrist", "hand", "thumb"
    )
    upper, fore, _, _ = limb_parts(side)
    girth = 0.5 + 0.5 * look.girth
    thick, middle, thin = 0.05 * girth, 0.041 * girth, 0.029 * girth
    segments = [
        Segment(wrist, 0.03, hand, 0.03, look.skin, fore),
        Segment(wrist, 0.018, thumb, 0.014, look.skin, fore),
        Segment(elbow, middle, wrist, thin, look.skin, fore),
        Segment(shoulder, thick, elbow, middle, look.skin, upper),
    ]
    if look.sleeve > 1.0:
        cuff = elbow + min(look.sleeve - 1.0, 0.96) * (wrist - elbow)
        segments.append(Segment(elbow, middle + 0.008, cuff, thin + 0.012, look.shirt, fore))
    if look.sleeve > 0.0:
        cuff = shoulder + min(look.sleeve, 1.0) * (elbow - shoulder)
        opening = middle + (0.008 if look.sleeve > 1.0 else 0.018)
        segments.append(Segment(shoulder, thick + 0.008, cuff, opening, look.shirt, upper))
    return segments


def leg_segments(figure: ProjectedFigure, side: str) -> list[Segment]:
    """Thigh, shin and shoe; the shin comes over the thigh where it is nearer to the viewer."""
    look = figure.look
    hip, knee, ankle, heel, toe = figure.limb(side, "hip", "knee", "ankle", "heel", "toe")
    _, _, thigh, shin = limb_parts(side)
    clothed = look.bottom_style == "trousers"
    color, cloth = (look.bottoms, 0.008) if clothed else (look.skin, 0.0)
    girth = 0.4 + 0.6 * look.girth
    thick, middle, thin = 0.08 * girth, 0.054 * girth + cloth, 0.036 * girth + 1.5 * cloth
    calf, bulge = knee + 0.3 * (ankle - knee), middle + 0.003
    foot = [
        Segment(heel, 0.036, toe, 0.03, look.shoes, shin),
        Segment(ankle, 0.038, 0.6 * heel + 0.4 * toe, 0.036, look.shoes, shin),
    ]
    lower = [
        Segment(knee, middle, calf, bulge, color, shin),
        Segment(calf, bulge, ankle, thin, color, shin),
    ]
    upper = [Segment(hip, thick, knee, middle, color, thigh)]
    if look.bottom_style == "shorts":
        cuff = hip + 0.72 * (knee - hip)
        upper.append(Segment(hip, thick + 0.006, cuff, 0.078 * girth, look.bottoms, thigh))
    nearer_shin = ankle[2] > knee[2] > hip[2] + 0.2
    return upper + foot + lower if nearer_shin else foot + lower + upper
