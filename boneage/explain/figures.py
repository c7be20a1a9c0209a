"""Heat maps beside the radiograph they explain, and where on the line of ages each model puts the hand."""

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from boneage import style
from boneage.labels import GROUP_EDGES, GROUPS, MAX_MONTHS, MONTHS_PER_YEAR, SEX_NAMES, years_and_months
from boneage.paths import atomic

CONTOUR = 0.5  # of the map's maximum: outlined, so that grey print shows it too
FEW = 2  # models at most whose line of ages stands below the pictures, two hands in a row
# Inches. Every place in the figure is computed from these: an automatic layout gives way where titles are long.
WIDTH, SIDE, PICTURES = 9.0, 2.1, 6.4  # of the figure; of a picture at most; of all pictures left of a line of ages
GAP, TITLE_LINE, LANE, FOOT = 0.07, 0.135, 0.27, 0.85  # LANE: a model's height on the line of ages
NUMBERS = 0.4  # below a line of ages: its numbers and unit
TALLEST = 1.6  # height by width of the room for a picture, at most
REFERENCE = {"color": "black", "lw": 1.4, "ls": (0, (3, 1.5)), "zorder": 3}
VECTOR = (".pdf", ".svg")
CAPTIONS = {"older": "what pushes the estimate up", "younger": "what pushes the estimate down"}


@dataclass(frozen=True)
class Hand:
    """A row of the figure."""

    name: str
    image: np.ndarray  # (H, W) uint8
    male: int
    reference: float | None  # months


@dataclass(frozen=True)
class Explanation:
    """What one model says of the hands: a column of maps and a lane on every line of ages."""

    name: str  # as printed
    backbone: str  # decides the colour
    maps: list[np.ndarray]  # one a hand, float32 0..1, of the hand's image's shape
    months: np.ndarray | None  # (hands,), where the model has that head
    groups: np.ndarray | None  # (hands, 4) probabilities, likewise
    sex_effect: np.ndarray | None = None  # (hands,) months that the sex as given adds over the other one


def overlay(image: np.ndarray, cam: np.ndarray) -> np.ndarray:
    """A map over a radiograph, the bone still to be seen through it.

    The heat is laid on the thicker the higher it is, and is lit by the radiograph below.

    Parameters
    ----------
    image
        (H, W) uint8.
    cam
        (H, W), 0..1.

    Returns
    -------
    array, shape (H, W, 3), uint8, RGB
    """
    grey = image[..., None] / 255
    heat = heatmap()(cam)[..., :3] * (0.7 + 0.3 * grey)
    alpha = 0.75 * np.clip(cam, 0, 1)[..., None] ** 0.7
    return (255 * ((1 - alpha) * 0.85 * grey + alpha * heat)).round().astype(np.uint8)


def heatmap():
    """The colours of the house's heat map without its darkest part, which over a radiograph would read as film."""
    import matplotlib
    from matplotlib.colors import ListedColormap

    return ListedColormap(matplotlib.colormaps[style.HEATMAP](np.linspace(0.25, 1, 256)))


def explain_figure(
    hands: list[Hand], explanations: list[Explanation], target: str, phantom: bool, method: str = "Grad-CAM"
):
    """The same hands across models.

    A block a hand: its radiograph, one overlay a model, and a line of ages from 0 to 20 years with the reference and
    one lane a model: predicted age as given and with the other sex, and the probability of each age group as shade.
    Of one or two models the line stands below the pictures and two blocks stand in a row; of more, to their right.

    Returns
    -------
    matplotlib.figure.Figure
    """
    columns, below = 1 + len(explanations), len(explanations) <= FEW
    blocks = 2 if below else 1
    side = min(SIDE, (WIDTH / 2 - 2 * GAP if below else PICTURES) / columns - GAP)
    talls = [side * min(TALLEST, hand.image.shape[0] / hand.image.shape[1]) for hand in hands]
    lanes = LANE * len(explanations) + 0.1
    titles = TITLE_LINE * (3 if any(e.sex_effect is not None for e in explanations) else 2) + 0.05
    needs = [(tall + lanes + NUMBERS if below else max(tall, lanes + NUMBERS)) for tall in talls]
    rows = [titles + max(needs[i : i + blocks]) + 2 * GAP for i in range(0, len(hands), blocks)]
    height = sum(rows) + FOOT
    figure, axes = style.new_figure(WIDTH, height, nrows=len(hands), ncols=columns + 1, squeeze=False)
    figure.set_layout_engine("none")

    def place(ax, left: float, top: float, width: float, tall: float) -> None:
        ax.set_position((left / WIDTH, 1 - (top + tall) / height, width / WIDTH, tall / height))

    for i, (hand, tall, (*pictures, ages)) in enumerate(zip(hands, talls, axes, strict=True)):
        row, block = divmod(i, blocks)
        top, left = sum(rows[:row]) + titles + GAP, GAP + block * WIDTH / blocks
        for k, ax in enumerate(pictures):
            place(ax, left + k * (side + GAP), top, side, tall)
        _picture(pictures[0], np.repeat(hand.image[..., None], 3, -1))
        _title(pictures[0], _about(hand), "black")
        for explanation, ax in zip(explanations, pictures[1:], strict=True):
            _picture(ax, overlay(hand.image, explanation.maps[i]), explanation.maps[i])
            _title(ax, _says(explanation, i, hand.reference), _ink(explanation.backbone))
        end = left + columns * (side + GAP) - GAP
        if below:
            place(ages, left + GAP, top + tall, end - left - 2 * GAP, lanes)
        else:
            place(ages, end + 0.3, top + max(0, (tall - lanes) / 2), WIDTH - end - 0.5, lanes)
        age_line(ages, hand.reference, explanations, i)
    for ages in axes[-blocks:, -1]:
        ages.set_xlabel("bone age (years)", fontsize=8, labelpad=1)
    _foot(figure, f"{method}: {_caption(target)}", explanations, phantom)
    return figure


def save(figure, path: Path, limit: int = 500_000) -> Path:
    """Write a figure full of radiographs as PNG of at most `limit` bytes, as sharp as fits; or as .pdf or .svg, in
    which words, lines and marks are vectors.

    Grey levels are rounded to 64: film grain, which nobody sees at this size, is most of what a PNG would store.
    """
    from matplotlib import rc_context

    if Path(path).suffix in VECTOR:
        return style.save(figure, path)
    for dpi in (150, 130, 115, 100, 80):
        drawn, small = io.BytesIO(), io.BytesIO()
        with rc_context(style.RC):
            figure.savefig(drawn, dpi=dpi, metadata={"Software": None})
        Image.open(drawn).convert("RGB").point(lambda v: min(255, (v + 2) // 4 * 4)).save(small, "PNG", optimize=True)
        if small.tell() <= limit:
            break
    with atomic(path) as part:
        part.write_bytes(small.getvalue())
    return path


def age_line(ax, reference: float | None, explanations: list[Explanation], row: int) -> None:
    """A line of ages, 0 to 20 years: a lane a model, the reference (months) across all lanes."""
    from matplotlib.patheffects import withStroke

    edges = np.array(GROUP_EDGES) / MONTHS_PER_YEAR
    for lane, explanation in enumerate(explanations):
        colour = style.colour(explanation.backbone)
        chances = np.zeros(len(GROUPS)) if explanation.groups is None else explanation.groups[row]
        shades = [(colour, 0.08 + 0.6 * chance) for chance in chances]
        ax.barh([lane] * len(GROUPS), np.diff(edges), 0.5, edges[:-1], color=shades, edgecolor="white")
        for middle, chance in zip((edges[1:] + edges[:-1]) / 2, chances, strict=True):
            if chance >= 0.1:
                words = ax.text(middle, lane - 0.27, f"{chance:.0%}", fontsize=7, ha="center", va="bottom", zorder=6)
                words.set_path_effects([withStroke(linewidth=3, foreground="white")])  # over the reference's line
        if explanation.months is not None:
            predicted = explanation.months[row]
            if explanation.sex_effect is not None:
                other = predicted - explanation.sex_effect[row]
                ends = np.clip([other, predicted], 0, MAX_MONTHS) / MONTHS_PER_YEAR
                ax.plot(ends, [lane, lane], color=colour, lw=1.2, zorder=4, solid_capstyle="butt", clip_on=False)
                _marker(ax, other, lane, ms=5, mfc="white", mec=colour, mew=1.1)
            _marker(ax, predicted, lane, ms=7, mfc=colour, mec="white", mew=1.2)
    if reference is not None:
        ax.axvline(reference / MONTHS_PER_YEAR, **REFERENCE)
    ax.set(xlim=(0, edges[-1]), ylim=(len(explanations) - 0.6, -0.75), yticks=[], xticks=edges)
    ax.set_xticks(range(int(edges[-1]) + 1), minor=True)
    ax.tick_params(labelsize=8)
    ax.spines["left"].set_visible(False)
    ax.grid(False)


def _marker(ax, months: float, lane: int, **look) -> None:
    """A diamond at an age; beyond either end of the line, a tip there that points outwards.

    A poorly trained model may say ten thousand years, and a mark there would leave the layout no room for the picture.
    """
    inside = min(max(months, 0), MAX_MONTHS)
    shape = "D" if inside == months else "<" if months < 0 else ">"
    ax.plot(inside / MONTHS_PER_YEAR, lane, shape, zorder=5, clip_on=False, **look)


def _title(ax, text: str, colour) -> None:
    ax.set_title(text, fontsize=7.1, loc="left", pad=3, color=colour)


def _about(hand: Hand) -> str:
    lines = [f"{SEX_NAMES[hand.male]}, image {hand.name}"]
    if hand.reference is not None:
        lines.append(f"reference {years_and_months(hand.reference)}")
    return "\n".join(lines)


def _says(explanation: Explanation, row: int, reference: float | None) -> str:
    """Model, answer with its error where the reference is known, else in months, and what sex adds."""
    if explanation.months is None:
        chances = explanation.groups[row]
        said = f"{GROUPS[chances.argmax()]} years ({chances.max():.0%})".replace("-", "\u2013")
    else:
        months = float(explanation.months[row])
        said = f"{months:.0f} mo"
        if 0 <= months <= MAX_MONTHS:
            error = said if reference is None else f"{round(months - reference):+d} mo".replace("-", "\u2212")
            said = f"{years_and_months(months)} ({error})"
    lines = [explanation.name, said]
    if explanation.sex_effect is not None:
        lines.append(f"sex input: {explanation.sex_effect[row]:+.1f} mo".replace("-", "\u2212"))
    return "\n".join(lines)


def _ink(backbone: str) -> tuple:
    """A backbone's colour, dark enough for small print."""
    from matplotlib.colors import to_rgb

    return tuple(0.75 * c for c in to_rgb(style.colour(backbone)))


def _picture(ax, picture: np.ndarray, cam: np.ndarray | None = None) -> None:
    ax.imshow(picture, interpolation="bilinear")
    ax.set_anchor("NW")  # below its title, whatever its shape
    if cam is not None and cam.max() > CONTOUR:
        ax.contour(cam, [CONTOUR], colors="white", linewidths=0.7)
    if cam is not None and not cam.any():
        ax.text(0.5, 0.02, "no heat", fontsize=7, color="white", ha="center", transform=ax.transAxes)
    ax.set_axis_off()


def _caption(target: str) -> str:
    return CAPTIONS.get(target, f"what speaks for {target} years".replace("-", "\u2013"))


def _foot(figure, caption: str, explanations: list[Explanation], phantom: bool) -> None:
    """What the colours and marks mean, in the room below the rows."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    inch = 1 / figure.get_figheight()
    bar = figure.add_axes((0.03, 0.61 * inch, 0.13, 0.1 * inch))
    figure.colorbar(ScalarMappable(cmap=heatmap()), cax=bar, orientation="horizontal", ticks=[])
    bar.axvline(CONTOUR, color="white", lw=1)
    for x, word, side in ((0.025, "0", "right"), (0.165, "1", "left")):
        figure.text(x, 0.66 * inch, word, fontsize=8, ha=side, va="center")
    words = f"share of a map's own maximum, white: half of it   |   {caption}"
    figure.text(0.19, 0.66 * inch, words, fontsize=8, va="center")
    marks = [
        Line2D([], [], marker="D", ls="", ms=6, mfc="grey", mec="white", label="predicted"),
        Line2D([], [], **REFERENCE, label="reference"),
        Patch(color=("grey", 0.5), label="probability of the age group"),
    ]
    if any(explanation.sex_effect is not None for explanation in explanations):
        marks.insert(
            1, Line2D([], [], marker="D", ls="", ms=5, mfc="white", mec="grey", label="predicted with the other sex")
        )
    figure.legend(
        handles=marks, fontsize=8, ncols=len(marks), loc="center left", bbox_to_anchor=(0.008, 0.4 * inch),
        frameon=False, handletextpad=0.5, columnspacing=1.6, borderaxespad=0, borderpad=0,
    )  # fmt: skip
    note = "In brackets: error in months. Research use only; not a medical device."
    figure.text(0.01, 0.1 * inch, note, fontsize=8, va="bottom", color="#555555")
    if phantom:
        style.mark_phantom(figure)
