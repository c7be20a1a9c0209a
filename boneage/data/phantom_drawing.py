"""How the phantom is drawn: bones and soft tissue as attenuation on a canvas, and masks of what was drawn.

Every shape is evaluated, pixel by pixel, in millimetres of its own bone, on a canvas of twice the film's resolution.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from boneage.data import phantom_anatomy as anatomy

FINER = 2  # the canvas against the film, per side
# Attenuation, per mm
_SOFT, _TRABECULAR, _CORTEX = 0.019, 0.040, 0.135
_FINE = 0.1  # mm, step of the tables along a bone


@dataclass(frozen=True)
class Film:
    """Where millimetres fall on the fine canvas: (2, 3) map `to_px`, `scale` in px per mm, (height, width) in px."""

    to_px: np.ndarray
    scale: float
    shape: tuple[int, int]

    def points(self, mm: Sequence) -> np.ndarray:
        """(n, 2) mm to (n, 2) px of the fine canvas."""
        x, y = np.asarray(mm, float).T
        a = self.to_px
        return np.stack([a[0, 0] * x + a[0, 1] * y + a[0, 2], a[1, 0] * x + a[1, 1] * y + a[1, 2]], 1)

    def local(self, origin: Sequence[float], axis: Sequence[float], corners: np.ndarray):
        """A patch of the canvas seen from a bone.

        Parameters
        ----------
        origin, axis
            Bone's origin and unit direction (mm).
        corners
            (n, 2) mm, what the patch has to cover.

        Returns
        -------
        window : tuple of slices, or None when it lies off the canvas
        along, across : (h, w) float32, mm from the origin; across is positive to the radial side of a finger
        """
        box = self.points(corners)
        low = np.maximum(np.floor(box.min(0)).astype(int), 0)
        high = np.minimum(np.ceil(box.max(0)).astype(int) + 1, self.shape[::-1])
        if (low >= high).any():
            return None
        (ox, oy), (ux, uy) = self.points([origin])[0], (self.points([axis])[0] - self.to_px[:, 2]) / self.scale
        dx = ((np.arange(low[0], high[0]) + 0.5 - ox) / self.scale).astype(np.float32)[None, :]
        dy = ((np.arange(low[1], high[1]) + 0.5 - oy) / self.scale).astype(np.float32)[:, None]
        ux, uy = np.float32(ux), np.float32(uy)
        across = dy * ux - dx * uy
        return np.s_[low[1] : high[1], low[0] : high[0]], dx * ux + dy * uy, across if axis[1] >= 0 else -across


def _blend(knots: Sequence[tuple[float, float]], at: np.ndarray) -> np.ndarray:
    """Smooth curve through (place, value) knots that is flat at each of them."""
    place, value = np.array(knots).T
    k = np.clip(np.searchsorted(place, at, side="right") - 1, 0, len(place) - 2)
    t = np.clip((at - place[k]) / (place[k + 1] - place[k]), 0, 1)
    return value[k] + (value[k + 1] - value[k]) * t * t * (3 - 2 * t)


def _chord(u: np.ndarray) -> np.ndarray:
    return np.sqrt(np.maximum(u, 0, dtype=np.float32))


def _shell(u: np.ndarray, rim: np.float32) -> tuple[np.ndarray, np.ndarray]:
    """Path through the bony shell and through the core of a body whose skin is at u = 1, as shares of its depth."""
    core = _chord(1 - u * rim)
    return _chord(1 - u) - core, core


class Canvas:
    """Bone attenuation and region masks on the fine canvas (twice the film's resolution)."""

    def __init__(self, film: Film, young: float):
        self.film = film
        self.young = young  # 1 at birth to 0 at maturity: slimmer cortex, sturdier shafts
        self.bone = np.zeros(film.shape, np.float32)
        self.regions = {name: np.zeros(film.shape, bool) for name in (*anatomy.REGIONS, "sesamoid")}

    def _tables(self, tube: anatomy.Tube, length: float, start: float, far: float):
        """Half width, marrow half width and density along a bone that begins at `start` and ends at `far` (mm)."""
        s = np.arange(0, length + 1, _FINE)
        width = tube.half_width * _blend(anatomy.PROFILES[tube.kind], s / length)
        waist = 1 - width / tube.half_width
        cortex = (0.5 + 9.0 * waist * waist * (1 - 0.4 * self.young)) * tube.half_width / 7
        width = width * (1 + 0.22 * self.young * waist)
        cortex = np.minimum(cortex, 0.45 * width)
        near_round, far_round = 1.4, (3.2 if tube.kind == "phalanx" else 1.8)
        for inside, radius in ((s - start, near_round), (far - s, far_round)):
            t = np.clip(inside / radius, 0, 1)
            width = width * np.where(t < 1, np.sqrt(1 - (1 - t) ** 3), 1) * (inside > 0)
        edge = np.minimum(np.abs(s - start), np.abs(far - s))
        # Marrow fat in the waist, trabeculae towards the ends, and the bony end plate seen edge on.
        density = 1.2 - 2.1 * waist + 0.75 * np.maximum(1 - edge / 2.0, 0) ** 2
        return tuple(a.astype(np.float32) for a in (width, np.maximum(width - cortex, 0), density))

    def _shaft(self, tables, along: np.ndarray, across2: np.ndarray) -> np.ndarray:
        """Attenuation of a round shaft with cortex and marrow, from the tables of `_tables`."""
        width, marrow, density = tables
        index = np.clip(along * np.float32(1 / _FINE) + np.float32(0.5), 0, len(width) - 1).astype(np.int32)
        outer, inner = (_chord(table[index] ** 2 - across2) for table in (width, marrow))
        bone = np.float32(2 * _CORTEX) * (outer - inner) + np.float32(2 * _TRABECULAR) * inner * density[index]
        return np.where((along >= 0) & (index < len(width) - 1), bone, 0)

    def long_bone(self, name: str, placed: anatomy.Placed, stage: anatomy.Stage) -> None:
        """Add one long bone: shaft, growth plate and epiphysis at this stage."""
        tube, length, plate = anatomy.TUBES[name], placed.length, anatomy.TUBES[name].plate
        (ox, oy), (ax, ay), w = placed.origin, placed.axis, tube.half_width * 1.3
        corners = [(ox + ax * s + ay * x, oy + ay * s - ax * x) for s in (-4, length + 1) for x in (-w, w)]
        patch = self.film.local(placed.origin, placed.axis, np.array(corners))
        if patch is None:
            return
        window, along, across = patch
        across2 = across * across
        spread = across2 / np.float32(tube.half_width**2)
        # The joint surface is slanted and domed, the growth plate is straight: squeeze what lies between them.
        surface = np.float32(tube.tilt) * across + np.float32(tube.dome) * spread - np.float32(min(tube.dome, 0))
        surface = np.minimum(surface, np.float32(plate - 1))
        near = (along - surface) * (np.float32(plate) / (np.float32(plate) - surface))
        along = np.where(along < plate, near, along)
        far = length * (1 - 0.05 * self.young)
        bone = np.zeros_like(along)
        if stage.bridged < 1:
            bone += self._shaft(self._tables(tube, length, plate, far), along, across2)
            if stage.present:
                bone += self._epiphysis(tube, stage, along, across, window, anatomy.CENTRES[name].region)
        if stage.bridged > 0:
            whole = self._shaft(self._tables(tube, length, 0.0, far), along, across2)
            share = np.clip(np.float32(1.7 * stage.bridged) - np.float32(0.7) * spread, 0, 1)  # bridged from the middle
            bone += (whole - bone) * share
            off = (along - np.float32(plate - 0.8)) * np.float32(1 / 0.9)
            bone += np.float32(0.35 * stage.line) * whole * np.maximum(1 - off * off, 0) ** 2
            if stage.bridged == 1:
                self._mark(tube, anatomy.CENTRES[name].region, along, across, window)
        self.bone[window] += bone * np.float32(tube.flat)

    def _mark(self, tube, region, along, across, window, half_width=None, top=0.0) -> None:
        inside = np.abs(across) < (half_width or tube.half_width * 1.05)
        self.regions[region][window] |= inside & (along > top) & (along < tube.plate + 0.8)

    def _epiphysis(self, tube, stage, along, across, window, region) -> np.ndarray:
        """Attenuation of an epiphysis that has not fused; marks it and its growth plate in the region's mask."""
        grown, room = stage.grown, tube.plate - 1.3
        half_width = tube.half_width * (0.34 + 0.68 * grown + 0.06 * stage.capped)
        half_height = room / 2 * (0.5 + 0.5 * grown)
        square = np.float32(0.85 * grown)
        x = across * np.float32(1 / half_width)
        x2 = x * x
        # Capping: the edges of the epiphysis turn over the corner of the metaphysis.
        bent = along - np.float32(1.2 * stage.capped) * x2 * x2
        s = (bent - np.float32(room * 0.5 + 0.15 * (1 - grown) * room)) * np.float32(1 / half_height)
        s2 = s * s
        round_, box = x2 + s2, x2 * x2 * x2 * x2 + s2 * s2
        u = round_ + (box - round_) * square
        rim = np.float32((1 / (1 - 0.55 / half_height)) ** 2)
        # A disc is as deep as it is wide here, whatever its height; a young one is a small ball.
        deep = _chord(1 - x2 * np.float32(0.8)) * np.float32(half_width * 0.85)
        shell, core = _shell(u, rim)
        self.regions[region][window] |= u < 1
        self._mark(tube, region, bent, across, window, half_width, top=room / 2)
        return np.float32(2) * deep * (np.float32(_CORTEX * 0.62) * shell + np.float32(_TRABECULAR * 1.35) * core)

    def nodule(self, region: str, outline: np.ndarray, grown: float) -> None:
        """Add a carpal or sesamoid: a small ball that grows into its adult `outline`, (n, 2) mm."""
        centre = outline.mean(0)
        patch = self.film.local(centre, (0.0, 1.0), outline + 0.15 * (outline - centre))
        if patch is None:
            return
        window, y, x = patch
        rays = outline - centre
        turn, reach = _diamond(rays[:, 0], rays[:, 1]), np.sqrt((rays**2).sum(1))
        order = np.argsort(turn, kind="stable")
        table = np.interp(np.arange(512) / 128, turn[order], reach[order], period=4.0)
        ball = reach.min() * 0.5 + reach.max() * 0.5
        shaped = min(1.0, 1.25 * grown)
        table = ((0.20 + 0.80 * grown) * (ball * (1 - shaped) + table * shaped)).astype(np.float32)
        radius = table[(_diamond(x, y) * np.float32(128)).astype(np.int32) & 511]
        u = (x * x + y * y) / (radius * radius)
        u = u * u
        rim = np.float32((1 / (1 - 0.75 / max(2.0, ball * (0.2 + 0.8 * grown)))) ** 4)
        deep = np.float32(1.6 * ball * (0.25 + 0.75 * grown))
        shell, core = _shell(u, rim)
        self.bone[window] += deep * (np.float32(_CORTEX * 0.75) * shell + np.float32(_TRABECULAR * 1.3) * core)
        self.regions[region][window] |= u < 1

    def bone_on_film(self, grain: np.random.Generator) -> np.ndarray:
        """Attenuation of all bone on the film, (H, W) float32, with its trabecular texture."""
        noise = grain.integers(0, 256, self.film.shape, np.uint8)
        mm = self.film.scale
        texture = np.zeros(self.film.shape, np.float32)
        # Trabeculae run along the fingers; coarser clouds lie across them.
        for width, height, strength in ((0.25, 0.8, 0.5), (0.8, 1.3, 0.28)):
            sizes = 2 * round(3 * width * mm) + 1, 2 * round(3 * height * mm) + 1
            blurred = cv2.GaussianBlur(noise, sizes, width * mm, sigmaY=height * mm)
            texture += (blurred.astype(np.float32) - 128) * np.float32(strength * 0.01 * mm * np.sqrt(width * height))
        steps = np.rint(self.bone * (1 + texture) * 4096).astype(np.int32)
        return halve(steps).astype(np.float32) * np.float32(1 / (4096 * FINER * FINER))


def _diamond(x, y):
    """Angle of a direction as a number 0..4, made of exact arithmetic instead of arctangents."""
    t = y / (np.abs(x) + np.abs(y) + 1e-9)
    return np.where(x < 0, 2 - t, np.where(y < 0, 4 + t, t))


def _smooth(points: Sequence[tuple[float, float]]) -> np.ndarray:
    """Closed curve near control points, four rounds of cutting corners; (16 n, 2)."""
    curve = np.asarray(points, float)
    curve = curve + 0.14 * (curve - curve.mean(0))  # what the cutting takes away
    for _ in range(4):
        ahead = np.roll(curve, -1, 0)
        curve = np.stack([0.75 * curve + 0.25 * ahead, 0.25 * curve + 0.75 * ahead], 1).reshape(-1, 2)
    return curve


_OUTLINES = {name: _smooth(points) for name, points in anatomy.CARPALS.items()}


def outline_of(name: str, placed: dict[str, anatomy.Placed]) -> np.ndarray:
    """Adult outline of a carpal or of the sesamoid, (n, 2) mm."""
    if name in _OUTLINES:
        return _OUTLINES[name]
    thumb = placed["MC1"]  # the adductor sesamoid lies at its head, on the side of the fingers
    (ax, ay), along = thumb.axis, thumb.length * 0.93
    x, y = thumb.origin[0] + ax * along - ay * 6.3, thumb.origin[1] + ay * along + ax * 6.3
    return _smooth([(x - 2.3, y - 2.9), (x + 2.3, y - 2.9), (x + 2.3, y + 2.9), (x - 2.3, y + 2.9)])


# Half width of the soft tissue (mm) at the joints of each ray, from metacarpal base to fingertip.
_FLESH = {
    1: (11, 11.5, 9.8, 8.2),
    2: (10, 11, 9.4, 8.4, 7.0),
    3: (10, 11, 9.8, 8.7, 7.3),
    4: (10, 10.5, 9.2, 8.3, 7.0),
    5: (10, 10, 8.2, 7.3, 6.2),
}


def joints(placed: dict[str, anatomy.Placed]) -> dict[int, list[tuple[float, float]]]:
    """Joints of each ray in mm, from the metacarpal base to the fingertip (4 for the thumb, else 5)."""
    chains = {}
    for ray in range(1, 6):
        chain = []
        for bone in ("MC", "PP", "MP", "DP"):
            if f"{bone}{ray}" in placed:
                p = placed[f"{bone}{ray}"]
                near, far = p.origin, (p.origin[0] + p.axis[0] * p.length, p.origin[1] + p.axis[1] * p.length)
                if anatomy.TUBES[f"{bone}{ray}"].kind == "metacarpal":
                    near, far = far, near
                chain.append(near)
        chains[ray] = [*chain, far]
    return chains


def _capsule(mask: np.ndarray, film: Film, ends: Sequence, radii: Sequence[float]) -> None:
    """Fill a limb between two joints: two discs (radii in mm) and what lies between them."""
    fixed = 16  # fractional steps of a pixel in OpenCV's fixed-point drawing, 4 bits
    points, radii = film.points(ends), np.asarray(radii, float) * film.scale
    for point, radius in zip(points, radii, strict=True):
        cv2.circle(mask, np.rint(point * fixed).astype(int).tolist(), round(radius * fixed), 1, -1, cv2.LINE_8, 4)
    step = points[1] - points[0]
    side = np.array([-step[1], step[0]]) / np.sqrt((step**2).sum())
    quad = np.stack(
        [
            points[0] + side * radii[0],
            points[1] + side * radii[1],
            points[1] - side * radii[1],
            points[0] - side * radii[0],
        ]
    )
    cv2.fillConvexPoly(mask, np.rint(quad * fixed).astype(np.int32), 1, cv2.LINE_8, 4)


def skin(film: Film, placed: dict[str, anatomy.Placed], plump: float) -> np.ndarray:
    """Outline of the hand on the canvas, uint8 0 or 1; `plump` widens the flesh by a factor."""
    mask = np.zeros(film.shape, np.uint8)
    chains = joints(placed)
    for ray, chain in chains.items():
        flesh = [f * plump for f in _FLESH[ray]]
        for k in range(len(chain) - 1):
            _capsule(mask, film, chain[k : k + 2], flesh[k : k + 2])

    def along(ray, share):  # a point of a proximal phalanx
        (x0, y0), (x1, y1) = chains[ray][1:3]
        return x0 + (x1 - x0) * share, y0 + (y1 - y0) * share

    thumb = chains[1]
    (ax, ay), (cx, cy) = along(2, -0.05), along(1, 0.45)
    bx, by = (0.5 * (p + q) for p, q in zip(along(2, -0.75), along(1, -0.15), strict=True))
    web = [
        tuple((1 - t) ** 2 * a + 2 * t * (1 - t) * b + t * t * c for a, b, c in ((ax, bx, cx), (ay, by, cy)))
        for t in np.linspace(0, 1, 9)
    ]
    palm = [
        (-28, -24),
        (-33, -12),
        (-36, 8),
        along(5, -0.1),
        along(5, 0.42),
        along(4, 0.44),
        along(3, 0.45),
        along(2, 0.42),
        *web,
        thumb[1],
        (thumb[0][0] + 6, thumb[0][1] - 4),
        (27, -14),
        (26, -24),
    ]
    cv2.fillPoly(mask, [np.rint(film.points(palm) * 16).astype(np.int32)], 1, cv2.LINE_8, 4)
    forearm = [
        (26.5 * plump, -16),
        (26 * plump, -30),
        (29 * plump, -75),
        (34 * plump, -200),
        (-38 * plump, -200),
        (-32 * plump, -75),
        (-28.5 * plump, -30),
        (-30.5 * plump, -12),
    ]
    cv2.fillPoly(mask, [np.rint(film.points(forearm) * 16).astype(np.int32)], 1, cv2.LINE_8, 4)
    # Rounding the corners by blur and threshold joins fingers into webs, as skin does.
    size = 2 * round(2.6 * film.scale) + 1
    return (cv2.GaussianBlur(mask * np.uint8(255), (size, size), 0) >= 128).astype(np.uint8)


def soft_tissue(film: Film, outline: np.ndarray) -> np.ndarray:
    """Attenuation of the flesh on the film, (H, W) float32, from its `outline` on the canvas."""
    cover = halve(outline).astype(np.float32) / (FINER * FINER)
    from_skin = cv2.distanceTransform((cover >= 0.5).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    # Squares of pixel distances are whole numbers; a table over them is safe from how the roots were taken.
    squares = np.rint(from_skin * from_skin).astype(np.int32)
    mm = np.sqrt(np.arange(squares.max() + 1)) * (FINER / film.scale)
    rounded = np.sqrt(1 - (1 - np.clip(mm / 9.5, 0, 1)) ** 2)
    thickness = np.rint((15.5 * rounded + 11.0 * np.clip((mm - 8) / 22, 0, 1)) * 1000).astype(np.uint16)[squares]
    size = 2 * round(1.2 * film.scale) + 1
    smooth = cv2.GaussianBlur(thickness, (size, size), 0)
    return smooth.astype(np.float32) * cover * np.float32(_SOFT / 1000)


def halve(fine: np.ndarray) -> np.ndarray:
    """Sum of each FINER x FINER block of the canvas: integers stay exact."""
    return sum(fine[i::FINER, j::FINER] for i in range(FINER) for j in range(FINER))
