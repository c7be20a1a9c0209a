"""How figures look: one colour a backbone everywhere, safe for colour-blind readers, readable at README width."""

from pathlib import Path

from boneage.paths import atomic

# Okabe & Ito (2008); a backbone that is not listed takes the next free colour in the order of use.
BACKBONE_COLOURS = {
    "EfficientNetB0": "#0072B2",
    "EfficientNetB5": "#56B4E9",
    "ResNet101": "#D55E00",
    "Xception": "#009E73",
    "Ensemble": "#000000",
}
SPARE_COLOURS = ("#CC79A7", "#E69F00", "#F0E442")
SEX_COLOURS = ("#AA3377", "#4477AA")  # female, male; Tol's bright scheme
HEATMAP = "inferno"  # perceptually uniform, keeps its order in grey print
PHANTOM_NOTE = "PHANTOM: synthetic drawings, not patients"

RC = {
    "figure.dpi": 100, "savefig.dpi": 150, "font.size": 11, "axes.titlesize": 12, "axes.spines.top": False,
    "axes.spines.right": False, "axes.grid": True, "grid.alpha": 0.25, "legend.frameon": False,
    "svg.hashsalt": "boneage",
}  # fmt: skip


def colour(backbone: str, others: tuple[str, ...] = ()) -> str:
    """The colour of a backbone; `others` are unlisted ones that come before it."""
    return BACKBONE_COLOURS.get(backbone) or SPARE_COLOURS[len(others) % len(SPARE_COLOURS)]


def new_figure(width: float = 9.0, height: float = 4.5, **grid):
    """A matplotlib figure and its axes (`grid` goes to `subplots`) in the house style, off screen."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context(RC):
        figure = Figure(figsize=(width, height), layout="constrained")
        return figure, figure.subplots(**grid)


def mark_phantom(figure) -> None:
    """Say across the foot of a figure that it shows no patients."""
    figure.text(0.995, 0.005, PHANTOM_NOTE, ha="right", va="bottom", fontsize=9, color="#B00020", weight="bold")


def save(figure, path: Path, palette: bool = False) -> Path:
    """Write a figure whole, without time stamps: the same figure gives the same bytes.

    `palette` keeps 256 colours of a PNG, a third of the bytes: for figures without colour maps of many hues.
    """
    from matplotlib import rc_context
    from PIL import Image

    path = Path(path)
    with rc_context(RC), atomic(path) as part:
        metadata = {".svg": {"Date": None}, ".pdf": {"CreationDate": None}}.get(path.suffix, {"Software": None})
        figure.savefig(part, metadata=metadata)
        if palette:
            with Image.open(part) as image:
                image.convert("RGB").quantize(256, dither=Image.Dither.NONE).save(part, optimize=True)
    return path
