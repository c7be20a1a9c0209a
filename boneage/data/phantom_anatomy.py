"""The anatomy behind the phantom: which bone lies where, and when each ossification centre appears, grows and fuses.

Nothing here draws. Lengths are millimetres in an adult left hand seen in PA projection with the thumb on the right:
the origin is the middle of the capitate, ``x`` runs to the radial (thumb) side and ``y`` to the fingertips. Ages are
months, always in the order ``(female, male)``.

Sources of the ages
-------------------
- Appearance: medians of Garn, Rohmann & Silverman, "Radiographic standards for postnatal ossification and tooth
  calcification", Medical Radiography and Photography 43 (1967) 45-66, for every centre but the pisiform, which is read
  off the plates of the atlas below.
- Capping and fusion: plates of Greulich & Pyle, "Radiographic Atlas of Skeletal Development of the Hand and Wrist",
  2nd ed., Stanford 1959, with the stages as ordered by Gilsanz & Ratib, "Hand Bone Age", Springer 2005.

The numbers are rounded from the literature to what a drawing needs (appearance to about a month, capping and fusion to
about half a year, the growth in between is a smooth guess). They make a believable phantom; they are no clinical
reference.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

REGIONS = ("carpals", "radius_ulna_epiphyses", "metacarpal_epiphyses", "phalangeal_epiphyses")


@dataclass(frozen=True)
class Centre:
    """One ossification centre; ages in months as (female, male).

    ``full`` is when a carpal has its adult outline, or an epiphysis is wider than its metaphysis and begins to cap it.
    ``fused`` is when the growth plate is gone; a centre that never fuses (carpals, sesamoid) has None.
    """

    region: str
    appears: tuple[float, float]
    full: tuple[float, float]
    fused: tuple[float, float] | None


def _phalanx(appears: tuple[float, float], full: tuple[float, float], fused: tuple[float, float]) -> Centre:
    return Centre("phalangeal_epiphyses", appears, full, fused)


def _metacarpal(appears: tuple[float, float], full: tuple[float, float], fused: tuple[float, float]) -> Centre:
    return Centre("metacarpal_epiphyses", appears, full, fused)


# Fingers are numbered 1 (thumb) to 5; PP, MP and DP are the proximal, middle and distal phalanx.
CENTRES: dict[str, Centre] = {
    # name                            appears      full        fused
    "capitate": Centre("carpals", (2, 3), (138, 165), None),
    "hamate": Centre("carpals", (2, 4), (138, 165), None),
    "triquetrum": Centre("carpals", (21, 29), (138, 165), None),
    "lunate": Centre("carpals", (31, 49), (140, 167), None),
    "trapezium": Centre("carpals", (49, 70), (140, 167), None),
    "trapezoid": Centre("carpals", (50, 75), (138, 165), None),
    "scaphoid": Centre("carpals", (49, 68), (142, 170), None),
    "pisiform": Centre("carpals", (108, 130), (156, 182), None),  # Greulich & Pyle
    "radius": Centre("radius_ulna_epiphyses", (10, 13), (156, 176), (202, 214)),
    "ulna": Centre("radius_ulna_epiphyses", (64, 85), (162, 182), (198, 210)),
    "MC1": _metacarpal((19, 31), (138, 164), (171, 194)),
    "MC2": _metacarpal((13, 19), (142, 168), (180, 200)),
    "MC3": _metacarpal((14, 21), (142, 168), (180, 200)),
    "MC4": _metacarpal((15, 24), (142, 168), (180, 200)),
    "MC5": _metacarpal((16, 26), (142, 168), (180, 200)),
    "PP1": _phalanx((21, 36), (138, 164), (174, 196)),
    "PP2": _phalanx((11, 17), (138, 164), (175, 197)),
    "PP3": _phalanx((10, 16), (138, 164), (175, 197)),
    "PP4": _phalanx((11, 18), (138, 164), (175, 197)),
    "PP5": _phalanx((14, 22), (138, 164), (175, 197)),
    "MP2": _phalanx((16, 26), (138, 164), (177, 198)),
    "MP3": _phalanx((15, 24), (138, 164), (177, 198)),
    "MP4": _phalanx((15, 25), (138, 164), (177, 198)),
    "MP5": _phalanx((24, 41), (140, 166), (177, 198)),
    "DP1": _phalanx((12, 18), (134, 160), (166, 189)),
    "DP2": _phalanx((30, 38), (136, 162), (168, 191)),
    "DP3": _phalanx((18, 29), (135, 161), (168, 191)),
    "DP4": _phalanx((18, 29), (135, 161), (168, 191)),
    "DP5": _phalanx((24, 39), (136, 162), (168, 191)),
    "sesamoid": Centre("sesamoid", (129, 153), (162, 186), None),  # adductor sesamoid of the thumb
}

_FUSING = 20.0  # months from the first bridge across a growth plate to the last of it
_LINE_FADES = 30.0  # months until the sclerotic line left by the growth plate is gone


def growth(months: float, appears: float, full: float) -> float:
    """How far a centre has grown, 0 (not there yet) to 1 (adult outline), at an age in months.

    Quick at first and slower later, as centres are: half the growth is done after about a third of the time.
    """
    if months <= appears:
        return 0.0
    return min(1.0, ((months - appears) / (full - appears)) ** 0.6)


@dataclass(frozen=True)
class Stage:
    """What one centre looks like: growth, capping, bridging and the line after fusion, each 0..1."""

    present: bool
    grown: float
    capped: float
    bridged: float
    line: float


def stage(name: str, months: float, male: int) -> Stage:
    """Stage of one centre of ``CENTRES`` at a bone age in months for a girl (``male`` 0) or a boy (1)."""
    centre = CENTRES[name]
    appears, full = centre.appears[male], centre.full[male]
    grown = growth(months, appears, full)
    if centre.fused is None:
        return Stage(months >= appears, grown, 0.0, 0.0, 0.0)
    fused = centre.fused[male]
    bridged = min(1.0, max(0.0, (months - fused + _FUSING) / _FUSING))
    fading = min(1.0, max(0.0, (months - fused) / _LINE_FADES))
    capped = min(1.0, max(0.0, (months - full + 30.0) / 30.0))
    return Stage(months >= appears, grown, capped, bridged, bridged * (1.0 - fading))


def visible(months: float, male: int, region: str | None = None) -> list[str]:
    """Names of the centres that a hand of this bone age (months) and sex shows, in one region or in all."""
    return [
        name for name, centre in CENTRES.items() if months >= centre.appears[male] and region in (None, centre.region)
    ]


# Adult outlines of the carpals as control points of a smooth closed curve (mm).
CARPALS: dict[str, tuple[tuple[float, float], ...]] = {
    "capitate": (
        (-6, 10),
        (0, 12),
        (6, 10.5),
        (6.5, 4),
        (5, -2),
        (5.5, -8),
        (2, -12.5),
        (-3, -12.5),
        (-6, -9),
        (-5.5, -2),
        (-6.5, 4),
    ),
    "hamate": ((-8, 9.5), (-15, 11), (-22, 7), (-21, 2), (-16, -3), (-10.5, -9.5), (-8, -8.5), (-7.8, 0)),
    "triquetrum": ((-12.5, -9.5), (-17, -5), (-22, -0.5), (-25.5, -4), (-25, -11), (-20, -16.5), (-14, -16)),
    "lunate": ((-11, -13), (-5, -15.5), (1.5, -15), (3, -19), (0, -24), (-6, -25.5), (-11.5, -22.5), (-12, -17)),
    "trapezium": ((15.5, -0.5), (18.5, 5), (17.5, 11), (23, 12), (29, 8), (29.5, 1), (27, -4.5), (20, -4.5)),
    "trapezoid": ((7.5, 1.5), (7.5, 11), (12, 13), (17, 11.5), (17.5, 5), (14.5, -0.5), (9.5, -1)),
    "scaphoid": (
        (3.5, -14.5),
        (7, -10),
        (8, -4),
        (12, -1),
        (17, -1.5),
        (20, -6),
        (17, -12),
        (12, -19),
        (7, -22),
        (4, -20),
    ),
    "pisiform": ((-21, -4), (-17.5, -6), (-17, -10.5), (-20, -13.5), (-24, -12.5), (-26, -9), (-24.5, -5.5)),
}


@dataclass(frozen=True)
class Tube:
    """One long bone, measured from its epiphyseal end: lengths in mm, shape as factors of ``half_width``.

    ``plate`` is the distance from the joint surface to the metaphyseal side of the growth plate; ``tilt`` slants the
    joint surface, and ``dome`` (mm) rounds it (positive) or hollows it (negative).
    """

    length: float
    half_width: float
    kind: str
    plate: float
    tilt: float = 0.0
    dome: float = 0.0
    flat: float = 1.0  # depth over width


TUBES: dict[str, Tube] = {
    "radius": Tube(150, 14.5, "radius", 9.8, tilt=-0.28, dome=-0.8, flat=0.6),
    "ulna": Tube(150, 8.2, "ulna", 6.5, tilt=0.12, dome=1.0, flat=0.8),
    "MC1": Tube(45, 7.8, "thumb metacarpal", 6.0, dome=-0.6),
    "MC2": Tube(66, 8.0, "metacarpal", 9.0, dome=4.2),
    "MC3": Tube(64, 7.6, "metacarpal", 9.0, dome=4.0),
    "MC4": Tube(57, 6.6, "metacarpal", 8.0, dome=3.5),
    "MC5": Tube(53, 6.6, "metacarpal", 7.8, dome=3.4),
    "PP1": Tube(31, 7.2, "phalanx", 5.4, dome=-0.7),
    "PP2": Tube(40, 7.3, "phalanx", 5.8, dome=-0.8),
    "PP3": Tube(44, 7.6, "phalanx", 6.0, dome=-0.8),
    "PP4": Tube(41, 7.2, "phalanx", 5.8, dome=-0.8),
    "PP5": Tube(32.5, 6.3, "phalanx", 5.2, dome=-0.7),
    "MP2": Tube(23.5, 6.4, "phalanx", 4.8, dome=-0.5),
    "MP3": Tube(28.5, 6.8, "phalanx", 5.0, dome=-0.5),
    "MP4": Tube(27, 6.5, "phalanx", 5.0, dome=-0.5),
    "MP5": Tube(19, 5.5, "phalanx", 4.4, dome=-0.4),
    "DP1": Tube(22.5, 6.9, "distal phalanx", 4.9, dome=-0.3),
    "DP2": Tube(17, 5.4, "distal phalanx", 4.2, dome=-0.3),
    "DP3": Tube(18, 5.7, "distal phalanx", 4.3, dome=-0.3),
    "DP4": Tube(18, 5.6, "distal phalanx", 4.3, dome=-0.3),
    "DP5": Tube(16, 4.8, "distal phalanx", 3.9, dome=-0.3),
}

# (place along the bone 0..1, half width as a factor of the widest); the cortex is thickest at the waist.
PROFILES: dict[str, tuple[tuple[float, float], ...]] = {
    "phalanx": ((0.0, 0.97), (0.09, 1.0), (0.60, 0.57), (0.90, 0.75), (1.0, 0.72)),
    "distal phalanx": ((0.0, 0.95), (0.12, 1.0), (0.62, 0.46), (0.90, 0.64), (1.0, 0.58)),
    "metacarpal": ((0.0, 0.86), (0.09, 1.0), (0.55, 0.54), (0.93, 0.97), (1.0, 0.95)),
    "thumb metacarpal": ((0.0, 0.95), (0.10, 1.0), (0.55, 0.60), (0.88, 0.88), (1.0, 0.82)),
    "radius": ((0.0, 0.96), (0.05, 1.0), (0.30, 0.56), (1.0, 0.50)),
    "ulna": ((0.0, 0.90), (0.035, 1.0), (0.15, 0.74), (1.0, 0.72)),
}


@dataclass(frozen=True)
class Placed:
    """A long bone in its place: epiphyseal end and axis towards the other end (mm), and its drawn length."""

    origin: tuple[float, float]
    axis: tuple[float, float]
    length: float


# Base of each metacarpal (mm) and its direction in degrees from straight distal, positive to the radial side.
_METACARPAL_BASE = {1: (28.0, 10.5), 2: (12.5, 13.5), 3: (0.8, 13.0), 4: (-9.6, 12.2), 5: (-18.0, 10.5)}
_METACARPAL_TILT = {1: 40.0, 2: 7.0, 3: 1.0, 4: -6.0, 5: -12.5}
_FAN = {1: 0.0, 2: 0.9, 3: 0.1, 4: -0.7, 5: -1.6}  # share of the finger spread that each ray takes
JOINT_GAP = 0.8  # mm of cartilage at each end of an adult bone


def towards(degrees: float) -> tuple[float, float]:
    """Unit direction at an angle in degrees from distal, positive to the radial side.

    Rounded, so that a last-bit difference between two maths libraries cannot move a pixel.
    """
    angle = math.radians(degrees)
    return round(math.sin(angle), 9), round(math.cos(angle), 9)


def place(rng: np.random.Generator) -> dict[str, Placed]:
    """Lay the long bones out in a random posture: finger spread, deviation, flexion, thumb abduction; never the age.

    Returns
    -------
    dict
        One ``Placed`` for each name in ``TUBES``, in mm. Flexed phalanges are foreshortened.
    """
    spread = rng.uniform(1.0, 8.0)
    placed = {
        "radius": Placed((6.0, -24.5), (0.0, -1.0), TUBES["radius"].length),
        "ulna": Placed((-18.6, -26.5), (0.0, -1.0), TUBES["ulna"].length),
    }
    for ray in range(1, 6):
        thumb = ray == 1
        heading = _METACARPAL_TILT[ray] + (rng.uniform(-8, 6) if thumb else 0.35 * _FAN[ray] * (spread - 4.5))
        x, y = _METACARPAL_BASE[ray]
        flexion = rng.uniform(0.0, 20.0)
        for bone, bend in (("MC", 0.0), ("PP", 0.4), ("MP", 1.0), ("DP", 1.2)):
            if f"{bone}{ray}" not in TUBES:
                continue  # the thumb has no middle phalanx
            tube = TUBES[f"{bone}{ray}"]
            if bone == "PP":
                heading += rng.uniform(-18, -8) if thumb else _FAN[ray] * (spread - 2.0) + rng.uniform(-1.5, 1.5)
            elif bone != "MC":
                heading += rng.uniform(-2.5, 2.5)
            dx, dy = towards(heading)
            length = round(tube.length * towards(flexion * bend)[1], 6)
            if tube.kind == "metacarpal":  # its epiphysis is the head, at the far end
                placed[f"{bone}{ray}"] = Placed((x + dx * length, y + dy * length), (-dx, -dy), length)
            else:
                placed[f"{bone}{ray}"] = Placed((x, y), (dx, dy), length)
            step = length + 2 * JOINT_GAP
            x, y = x + dx * step, y + dy * step
    return placed
