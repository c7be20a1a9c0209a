"""Figures drawn from histories and predictions. Each takes evaluated runs and returns a matplotlib Figure."""

import math

import matplotlib.pyplot as plt
import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MultipleLocator, NullLocator, StrMethodFormatter

from boneage import style
from boneage.labels import GROUPS, MAX_MONTHS, MONTHS_PER_YEAR, SEX_NAMES
from boneage.models import backbones
from boneage.report.runs import Run, Runs

MONTH_TICKS = (4, 5, 6, 7, 8, 10, 12, 15, 20, 30, 40, 60)
GREY = "#666666"


def colour_of(run: Run) -> str:
    """One colour a backbone, the same in every figure."""
    unlisted = [n for n in backbones.names() if n not in style.BACKBONE_COLOURS]
    place = unlisted.index(run.backbone) if run.backbone in unlisted else 0
    return style.colour(run.backbone, tuple(unlisted[:place]))


def panels(runs: Runs, height: float, alone: float = 9.0, **grid) -> tuple[Figure, list[Axes]]:
    """A grid two wide, of three in one row, one panel a run, titled; marked when a run is a phantom's.

    A single panel is `alone` inches wide.
    """
    columns = len(runs) if len(runs) <= 3 else 2
    rows, width = math.ceil(len(runs) / columns), {1: alone, 2: 9.0, 3: 12.0}[columns]
    figure, axes = style.new_figure(width, height * rows, nrows=rows, ncols=columns, squeeze=False, **grid)
    figure.get_layout_engine().set(h_pad=0.08, w_pad=0.08)
    axes = list(axes.flat)
    for ax in axes[len(runs) :]:
        ax.set_visible(False)
    for ax, run in zip(axes, runs, strict=False):
        ax.set_title(run.label, weight="bold")
    mark(figure, runs)
    return figure, axes[: len(runs)]


def mark(figure: Figure, runs: Runs) -> None:
    """Say so, below everything else, when a figure shows no patients."""
    if any(r.phantom for r in runs):
        foot = 0.25 / figure.get_figheight()  # inches
        figure.get_layout_engine().set(rect=(0, foot, 1, 1 - foot))
        style.mark_phantom(figure)


def note(ax: Axes, text: str, y: float) -> None:
    ax.text(0.03, y, text, transform=ax.transAxes, va="top", fontsize=10)


@rc_context(style.RC)
def learning_curves(runs: Runs) -> Figure:
    """Training and validation error by epoch (of a classifier: accuracy), the stages of image size behind."""
    figure, axes = panels(runs, 4.2)
    shown = np.concatenate([r.history[c] for r in runs if r.has_months for c in (_training_key(r), "val_mae")] or [[1]])
    for ax, run in zip(axes, runs, strict=True):
        history, colour = run.history, colour_of(run)
        key, label, factor = ("val_mae", "MAE, months", 1) if run.has_months else ("val_accuracy", "accuracy, %", 100)
        training, validation = history[_training_key(run)] * factor, history[key] * factor
        ax.plot(history["epoch"], training, color=GREY, linestyle="--", label="training")
        ax.plot(history["epoch"], validation, color=colour, marker="o", markersize=4, linewidth=2, label="validation")
        best = history.index[history["epoch"] == run.facts["best_epoch"]][0]  # of the last image size only
        ax.plot(
            history["epoch"][best],
            validation[best],
            marker="*",
            markersize=17,
            color=colour,
            markeredgecolor="white",
            zorder=5,
        )
        ax.annotate(
            f"{validation[best]:.1f}",
            (history["epoch"][best], validation[best]),
            (0, -22),
            textcoords="offset points",
            ha="center",
            weight="bold",
        )
        if run.has_months:
            ax.set_yscale("log")
            ax.set_ylim(shown.min() * 0.75, shown.max() * 1.4)
            ax.yaxis.set_major_locator(plt.FixedLocator(MONTH_TICKS))
            ax.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
            ax.yaxis.set_minor_locator(NullLocator())
        else:
            low, high = min(training.min(), validation.min()), max(training.max(), validation.max())
            ax.set_ylim(low - 0.05 * (high - low), high + 0.25 * (high - low))
        ax.set_xlim(0.5, history["epoch"].max() + 0.5)
        ax.xaxis.set_major_locator(plt.MaxNLocator(integer=True))
        ax.set(xlabel="epoch", ylabel=label)
        _shade_stages(ax, history)
        ax.legend(
            loc="upper right" if run.has_months else "lower right", bbox_to_anchor=(1, 0.94 if run.has_months else 0.08)
        )
    return figure


def _training_key(run: Run) -> str:
    """Keras names a metric after its output where there are several."""
    name, output = ("mae", "months") if run.has_months else ("accuracy", "groups")
    return name if name in run.history else f"{output}_{name}"


def _shade_stages(ax: Axes, history) -> None:
    for i, (size, epochs) in enumerate(history.groupby("size", sort=False)["epoch"]):
        ax.axvspan(
            epochs.min() - 0.5, epochs.max() + 0.5, color="#000000", alpha=0.035 + 0.05 * (i % 2), linewidth=0, zorder=0
        )
        ax.text(
            epochs.mean(),
            0.985,
            f"{size} px",
            transform=ax.get_xaxis_transform(),
            ha="center",
            va="top",
            fontsize=9,
            color=GREY,
        )


def _age_axes(ax: Axes, x: str, y: str | None = None) -> None:
    ax.set_xlim(0, MAX_MONTHS)
    ax.xaxis.set_major_locator(MultipleLocator(4 * MONTHS_PER_YEAR))
    ax.set_xlabel(x)
    if y is not None:
        ax.set_ylim(0, MAX_MONTHS)
        ax.yaxis.set_major_locator(MultipleLocator(4 * MONTHS_PER_YEAR))
        ax.set_ylabel(y)
        ax.set_aspect("equal")


def _dots(ax: Axes, run: Run, x, y) -> None:
    alpha = float(np.clip(60 / np.sqrt(len(x)) / 4, 0.12, 0.7))  # a thousand dots still show where they crowd
    ax.scatter(x, y, s=11, color=colour_of(run), alpha=alpha, linewidths=0)


@rc_context(style.RC)
def predicted_against_reference(runs: Runs) -> Figure:
    """Predicted bone age over reference bone age, with the identity and a band of a year either way."""
    figure, axes = panels(runs, 4.5, alone=6)
    line = np.array([0, MAX_MONTHS])
    for ax, run in zip(axes, runs, strict=True):
        ax.fill_between(
            line,
            line - MONTHS_PER_YEAR,
            line + MONTHS_PER_YEAR,
            color="#000000",
            alpha=0.1,
            linewidth=0,
            label="± 12 months",
        )
        ax.plot(line, line, color="black", linewidth=1, label="identity")
        _dots(ax, run, run.holdout["reference_months"], run.holdout["predicted_months"])
        s = run.summary
        note(ax, f"MAE {s.value['mae']:.2f} months\n{s.value['within_12']:.0f} % within 12\nn = {s.n['mae']:,}", 0.97)
        _age_axes(ax, "reference bone age, months", "predicted bone age, months")
        ax.legend(loc="lower right", fontsize=9)
    return figure


@rc_context(style.RC)
def bland_altman(runs: Runs) -> Figure:
    """Difference over mean of predicted and reference, the bias and the 95 % limits (Bland & Altman, Lancet 1986)."""
    figure, axes = panels(runs, 4, sharey=True)
    for ax, run in zip(axes, runs, strict=True):
        reference, predicted = run.holdout["reference_months"], run.holdout["predicted_months"]
        difference = predicted - reference
        _dots(ax, run, (predicted + reference) / 2, difference)
        bias, spread = difference.mean(), 1.96 * difference.std()
        for level, name, dash in (
            (bias + spread, "+1.96 SD", "--"),
            (bias, "bias", "-"),
            (bias - spread, "−1.96 SD", "--"),
        ):
            ax.axhline(level, color="black", linewidth=1.2, linestyle=dash)
            ax.text(
                MAX_MONTHS,
                level + 0.8,
                f"{name} {level:+.1f}".replace("-", "−"),
                ha="right",
                va="bottom",
                fontsize=9,
                bbox={"facecolor": "white", "alpha": 0.75, "edgecolor": "none", "pad": 0.8},
            )
        _age_axes(ax, "mean of reference and predicted, months")
        ax.set_ylabel("predicted − reference, months")
    return figure


@rc_context(style.RC)
def error_by_age_and_sex(runs: Runs) -> Figure:
    """MAE of each age group and sex with its 95 % interval; the dashed line is the MAE of all."""
    figure, axes = panels(runs, 4.2, sharey=True)
    where = np.arange(len(GROUPS))
    for ax, run in zip(axes, runs, strict=True):
        table = run.groups[run.groups["metric"] == "mae"].set_index(["sex", "age_group"])
        for sex, colour, shift in zip(SEX_NAMES, style.SEX_COLOURS, (-0.14, 0.14), strict=True):
            rows = table.loc[[(sex, g) for g in GROUPS]]
            margins = np.nan_to_num([rows["value"] - rows["low"], rows["high"] - rows["value"]]).clip(0)
            ax.errorbar(
                where + shift,
                rows["value"],
                margins,
                fmt="o" if sex == SEX_NAMES[0] else "s",
                color=colour,
                markersize=7,
                capsize=4,
                linewidth=2,
                label=sex,
            )
            for x, n in zip(where + shift, rows["n"], strict=True):
                ax.text(x, 0.02, f"{n:,}", transform=ax.get_xaxis_transform(), ha="center", fontsize=8, color=colour)
        ax.axhline(run.summary.value["mae"], color=GREY, linestyle="--", linewidth=1, zorder=0, label="all")
        ax.set_xticks(where, GROUPS)
        ax.set_xlim(-0.5, len(GROUPS) - 0.5)
        ax.set(xlabel="reference bone age, years\n(small numbers: images)", ylabel="MAE, months")
        ax.legend(loc="upper right", ncols=2, fontsize=9)
    top = max(ax.get_ylim()[1] for ax in axes)
    for ax in axes:
        ax.set_ylim(0, top * 1.12)
    return figure
