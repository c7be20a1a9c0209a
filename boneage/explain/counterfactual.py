"""What would change the answer by a year? The least of the picture, in the order of a map, that has to be hidden."""

from dataclasses import dataclass

import numpy as np

from boneage import style
from boneage.errors import BoneageError
from boneage.explain.maps import background
from boneage.explain.methods import hidden_scores
from boneage.labels import MONTHS_PER_YEAR
from boneage.models.probe import DIRECTIONS, Probe

EDGE = "#E69F00"  # of what is hidden: seen on bone and on film, and by colour-blind readers
STEPS = 64  # of the picture's area, from nothing to all of it


@dataclass(frozen=True)
class Counterfactual:
    """The answer for one image.

    Attributes
    ----------
    mask
        (H, W) bool, at model image size: what has to be hidden; where `reached` is False, all that the map points at.
    reached
        Whether that changed the prediction by the months asked for.
    area
        Share of the picture that `mask` covers, 0..1.
    shares, months
        (65,): the curve, predicted months over the share of the picture that may be hidden.
    step
        Where on the curve `mask` is; its end where `reached` is False.
    """

    mask: np.ndarray
    reached: bool
    area: float
    shares: np.ndarray
    months: np.ndarray
    step: int


def counterfactual(
    probe: Probe, images, sex, maps: np.ndarray, target: str = "older", change: float = MONTHS_PER_YEAR,
    batch_size: int = 32,
) -> list[Counterfactual]:  # fmt: skip
    """Hide what a map points at, strongest first, until the prediction has changed by a year.

    Hidden pixels show `boneage.explain.maps.background`, the blurred picture, so that the child grows younger for want
    of evidence and not for a black hole in the hand. Pixels without heat are never hidden. Steps are 1/64 of the
    picture.

    It is an answer about the network: which part of the picture its estimate hangs on. It is not about the child, and
    as the order is the map's own, a better choice of pixels may do with a smaller area. A smaller area than another
    map's means a map that found what matters.

    Parameters
    ----------
    probe
        Of a model with a months output.
    images, sex
        (B, H, W) or (B, H, W, 1), grey 0..255, and (B,), male = 1.
    maps
        (B, H, W), 0..1, of any method, for `target`.
    target
        "older": hides what pushes the estimate up, until it is `change` months lower; "younger": the reverse.
    change
        Months, positive.

    Raises
    ------
    BoneageError
        For another target, or for maps of another shape than the images.
    """
    if target not in DIRECTIONS:
        raise BoneageError(f"a change in months is asked of older or younger. Received: {target!r}")
    images, sex = np.asarray(images, "float32").reshape(np.shape(images)[:3]), np.asarray(sex)
    if images.shape != np.shape(maps):
        raise BoneageError(f"expected one map an image, of its size. Received: {np.shape(maps)} and {images.shape}")
    shares = np.arange(STEPS + 1) / STEPS
    answers = []
    for i, cam in enumerate(maps):
        masks = _strongest(cam, shares)
        scores = hidden_scores(probe, images[i : i + 1], sex[i : i + 1], target, masks.astype("float32"), batch_size)[0]
        fallen = scores[0] - scores >= change
        step = int(fallen.argmax()) if fallen.any() else STEPS
        months = scores if target == "older" else -scores
        mask = masks[step]
        answers.append(Counterfactual(mask, bool(fallen.any()), float(mask.mean()), shares, months, step))
    return answers


def _strongest(cam: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """Masks (n, H, W) of the strongest pixels of a map, as many as each share (n,) of it says; none without heat."""
    order = np.argsort(-cam, axis=None, kind="stable")
    rank = np.empty(cam.size, int)
    rank[order] = np.arange(cam.size)
    return (rank.reshape(cam.shape) < np.round(shares * cam.size)[:, None, None]) & (cam > 0)


def counterfactual_figure(images: np.ndarray, answers: list[Counterfactual], phantom: bool):
    """What had to be hidden in each image, as the network saw it then, above its curve of months.

    Parameters
    ----------
    images
        (B, H, W), grey 0..255.

    Returns
    -------
    matplotlib.figure.Figure
    """
    side = min(3.5, 9 / len(answers))  # inches
    figure, axes = style.new_figure(
        side * len(answers), side + 2, nrows=2, ncols=len(answers), squeeze=False,
        gridspec_kw={"height_ratios": [side, 1.5]},
    )  # fmt: skip
    figure.get_layout_engine().set(rect=(0, 0.06, 1, 0.94))
    ground = background(np.asarray(images, "float32"))
    for image, blurred, answer, (picture, curve) in zip(images, ground, answers, axes.T, strict=True):
        picture.imshow(np.where(answer.mask, blurred, image), cmap="gray", vmin=0, vmax=255)
        if answer.mask.any():
            picture.contour(answer.mask, [0.5], colors=[EDGE], linewidths=1.2)
        picture.set_axis_off()
        before, after = answer.months[[0, answer.step]]
        found = f"{answer.area:.0%} hidden" if answer.reached else "all heat hidden, no year"
        picture.set_title(f"{found}\n{before:.0f} \u2192 {after:.0f} months", fontsize=9)
        curve.plot(100 * answer.shares, answer.months, color="black", lw=1.4)
        curve.plot(100 * answer.shares[[0, answer.step]], [before, after], "o", color=EDGE, ms=6, mec="white")
        low, high = answer.months.min(), answer.months.max()
        spare = max(0, 2 * MONTHS_PER_YEAR - (high - low)) / 2 + 2  # a change of some months shall not fill the axis
        curve.set(xlim=(-4, 104), xticks=(0, 50, 100), ylim=(low - spare, high + spare))
        curve.tick_params(labelsize=8)
        curve.set_xlabel("hidden at most (%)", fontsize=8.5)
    axes[1, 0].set_ylabel("prediction (months)", fontsize=8.5)
    if phantom:
        style.mark_phantom(figure)
    return figure
