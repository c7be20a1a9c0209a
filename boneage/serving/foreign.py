"""Pictures that are no hand radiograph, to measure how often they are refused; they come with libraries or are drawn.

They are deterministic, none is stored here, and none was used to set a threshold.
"""

import contextlib
import io
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np

from boneage.data.decode import decode_grey
from boneage.data.phantom import render
from boneage.errors import BoneageError

COUNT = 40  # of each kind
SIDE = 320  # pixels
_SLICES = ("CT_small", "693_J2KI", "J2K_pixelrep_mismatch", "MR_small", "examples_overlay", "examples_palette",
           "examples_jpeg2k", "examples_rgb_color", "liver_1frame", "image_dfl", "JPEG2000")  # fmt: skip


def pictures() -> Iterator[tuple[str, np.ndarray]]:
    """Pairs of a kind's name and a grey picture, (H, W) uint8 or uint16."""
    makers: dict[str, Callable[[np.random.Generator], np.ndarray]] = {
        "noise": _noise,
        "photograph": _Photographs(),
        "chart": _chart,
        "text": _text,
        "empty plate": _empty_plate,
    }
    for seed, (kind, make) in enumerate(makers.items()):
        for i in range(COUNT):
            yield kind, make(np.random.default_rng([seed, i]))
    yield from (("CT, MR, ultrasound", slice_) for slice_ in _slices())


def _noise(rng: np.random.Generator) -> np.ndarray:
    """White noise, clouds of any grain, stripes."""
    grain = rng.choice([0, 1, 4, 16, 48])
    field = rng.normal(size=(SIDE, SIDE))
    field = field if not grain else cv2.GaussianBlur(field, (0, 0), float(grain))
    if rng.random() < 0.25:
        field += np.sin(np.arange(SIDE) * rng.uniform(0.02, 0.5)) * field.std() * 3
    field = (field - field.min()) / np.ptp(field)
    return (255 * field ** rng.uniform(0.5, 2)).astype(np.uint8)


class _Photographs:
    """Parts of the photographs that scikit-learn and matplotlib bring along, turned and scaled."""

    def __init__(self):
        from matplotlib import get_data_path
        from sklearn.datasets import load_sample_images

        portrait = (Path(get_data_path()) / "sample_data" / "grace_hopper.jpg").read_bytes()
        self.whole = [
            *(cv2.cvtColor(p, cv2.COLOR_RGB2GRAY) for p in load_sample_images().images),
            decode_grey(portrait),
        ]

    def __call__(self, rng: np.random.Generator) -> np.ndarray:
        photograph = self.whole[rng.integers(len(self.whole))]
        side = int(rng.uniform(0.35, 1) * min(photograph.shape))
        top, left = (rng.integers(0, length - side + 1) for length in photograph.shape)
        part = np.rot90(photograph[top : top + side, left : left + side], rng.integers(4))
        return cv2.resize(part, (SIDE, SIDE), interpolation=cv2.INTER_AREA)


def _figure(rng: np.random.Generator):
    from matplotlib.figure import Figure

    figure = Figure(figsize=(3.2, 3.2), dpi=100)
    dark = rng.random() < 0.5
    figure.set_facecolor("black" if dark else "white")
    return figure, "white" if dark else "black"


def _pixels(figure) -> np.ndarray:
    file = io.BytesIO()
    figure.savefig(file, format="png", facecolor=figure.get_facecolor())
    return decode_grey(file.getvalue())


def _chart(rng: np.random.Generator) -> np.ndarray:
    figure, ink = _figure(rng)
    axes = figure.subplots()
    axes.set_facecolor(figure.get_facecolor())
    x = np.linspace(0, 10, 60)
    kind = rng.integers(4)
    if kind == 0:
        axes.bar(np.arange(8), rng.random(8), color=ink)
    elif kind == 1:
        axes.scatter(rng.normal(size=200), rng.normal(size=200), s=8, color=ink)
    elif kind == 2:
        axes.plot(x, np.cumsum(rng.normal(size=(60, 3)), 0), color=ink)
    else:
        axes.pie(rng.random(5) + 0.2, colors=[str(grey) for grey in rng.random(5)])
    axes.tick_params(colors=ink)
    return _pixels(figure)


def _text(rng: np.random.Generator) -> np.ndarray:
    figure, ink = _figure(rng)
    words = ["".join(chr(rng.integers(97, 123)) for _ in range(rng.integers(2, 10))) for _ in range(90)]
    lines = [" ".join(words[i : i + 5]) for i in range(0, 90, 5)]
    figure.text(0.05, 0.97, "\n".join(lines), color=ink, va="top", fontsize=rng.integers(6, 12))
    return _pixels(figure)


def _empty_plate(rng: np.random.Generator) -> np.ndarray:
    """An exposed plate with shutters and marker, the hand taken off it."""
    drawn = render(120, 1, int(rng.integers(10_000)), SIDE)
    hand = cv2.dilate(drawn.masks["hand"].astype(np.uint8), np.ones((9, 9))) > 0
    air = drawn.image[~hand & ~drawn.masks["border"] & ~drawn.masks["marker"]]
    plate = drawn.image.copy()
    plate[hand] = rng.choice(air, hand.sum())
    return plate


def _slices() -> Iterator[np.ndarray]:
    from pydicom.data import get_testdata_file

    for name in _SLICES:
        with warnings.catch_warnings(), contextlib.suppress(BoneageError):  # a build of pydicom without this file
            warnings.simplefilter("ignore")
            path = get_testdata_file(f"{name}.dcm", download=False)
            if path:
                yield decode_grey(Path(path).read_bytes())
