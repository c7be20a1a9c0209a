"""Pictures for a lesson on heat maps: the way of one map step by step, one hand asked several questions, and over age
what no map shows, such as how much heat there is in it."""

import numpy as np
import pandas as pd

from boneage import style
from boneage.explain.figures import Explanation, heatmap, overlay
from boneage.explain.gradcam import CAM
from boneage.explain.maps import enlarge, normalise, weighted_map
from boneage.labels import GROUPS, SEX_NAMES, age_group, years_and_months


def steps(picture: np.ndarray, features: np.ndarray, weights: np.ndarray, strongest: int = 4) -> dict[str, np.ndarray]:
    """What lies between a radiograph (H, W) uint8 and its map, as titled pictures.

    Of the features (1, h, w, C) those that count most by their weights (1, C), the sum of all, and that enlarged and
    laid over.
    """
    shown = {"the radiograph": np.repeat(picture[..., None], 3, -1)}
    for k in np.argsort(-np.abs(weights[0]) * features[0].mean((0, 1)))[:strongest]:
        feature = features[0, ..., k]
        shown[f"feature {k}, weight {weights[0, k]:+.2f}"] = heatmap()(feature / (feature.max() or 1))
    small = weighted_map(features, weights)
    large = normalise(enlarge(small, *picture.shape))[0]
    shown |= {"weighted sum": heatmap()(normalise(small)[0]), "enlarged": heatmap()(large)}
    return shown | {"laid over": overlay(picture, large)}


def questions(method: CAM, images: np.ndarray, rows: pd.DataFrame) -> tuple[dict[str, np.ndarray], int]:
    """Hands (B, H, W) uint8 asked for older, younger and their own age group: titled pictures, and how many a hand.

    `rows` has `male` and `reference_months`.
    """
    maps = {target: method(images, rows["male"].to_numpy("float32"), target)[0] for target in method.targets}
    shown = {}
    for i, row in enumerate(rows.itertuples()):
        group, apart = (
            GROUPS[age_group(row.reference_months)],
            " " * i,
        )  # titles are keys: unseen spaces tell hands apart
        shown[f"{SEX_NAMES[row.male]}, {years_and_months(row.reference_months)}{apart}"] = images[i]
        for target in [t for t in ("older", "younger", group) if t in maps]:
            title = f"{target}{' years' * (target == group)}{apart}"
            shown[title] = overlay(images[i], maps[target][i])
    return shown, len(shown) // len(rows)


def likeness(explanations: list[Explanation]) -> str:
    """How much the maps of several models resemble each other, in a sentence."""
    heated = [np.ravel(e.maps) for e in explanations if np.ptp(e.maps)]  # maps of zeros correlate with nothing
    pairs = [np.corrcoef(a, b)[0, 1] for i, a in enumerate(heated) for b in heated[:i]]
    if not pairs:
        return "Fewer than two networks have heat here; they are compared as soon as there are two."
    return (
        f"Correlation of two networks' maps of the same hands: {np.mean(pairs):.2f} on average. Networks that agree on "
        "the age need not agree on the place: one hand holds the same evidence many times over."
    )


def heat(method: CAM, images, sex, target: str = "older") -> np.ndarray:
    """How much heat each map holds before it is divided by its own maximum, in months (of a group: logits); (B,).

    On a head that begins with the mean over cells, dy/dA is dy/dmean(A) divided by the number of cells, so that the sum
    of a map over its cells is gradient times features: the months that the features in it account for, to first order.
    """
    features, gradients, _ = method.gradients(images, sex, target)
    return weighted_map(features, method.weights(features, gradients)).sum((1, 2))


def scatter(table: pd.DataFrame, values: np.ndarray, label: str, phantom: bool):
    """`values` over reference age, a mark a sex; `table` has `reference_months` and `male`.

    Returns
    -------
    matplotlib.figure.Figure
    """
    figure, ax = style.new_figure(8, 3.6)
    for male, name in enumerate(SEX_NAMES):
        of_sex = (table["male"] == male).to_numpy()
        x = table["reference_months"][of_sex]
        ax.scatter(x, values[of_sex], color=style.SEX_COLOURS[male], marker="os"[male], label=name)
    ax.axhline(0, color="black", linewidth=1)
    ax.set(ylabel=label)
    ax.set_xlabel("reference bone age, months", loc="left")
    ax.legend(frameon=False)
    if phantom:
        style.mark_phantom(figure)
    return figure
