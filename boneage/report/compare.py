"""Compare all evaluated runs: tables, figures, and a record of what each figure was drawn from."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from matplotlib.figure import Figure
from tqdm import tqdm

from boneage import style
from boneage.data.cache import open_or_prepare
from boneage.evaluation.run_files import predictions_path
from boneage.evaluation.tone import NAME as TONE
from boneage.paths import write_csv, write_text
from boneage.report import figures, figures_groups, pictures, refinements, tables, tone, worst
from boneage.report.runs import REPORTED_ON, Runs, best, digest, evaluated, find_runs, headline
from boneage.report.tables import to_markdown

MANIFEST = "manifest.json"
TABLES = ("comparison.csv", "comparison.md", "differences.csv")


@dataclass(frozen=True)
class Drawing:
    """A figure of the report, not yet drawn.

    Attributes
    ----------
    name
        Its file in `images/`.
    title, caption
        Words above and below it.
    inputs
        The files it shows; a change in any of them makes it stale.
    draw
        Draws it; takes the cache of radiographs when `needs_images`.
    """

    name: str
    title: str
    caption: str
    inputs: tuple[Path, ...]
    draw: Callable[..., Figure]
    needs_images: bool = False


def drawings(runs: Runs) -> list[Drawing]:
    """The figures that these evaluated runs allow, in the order of the report; of many runs the `headline` ones."""
    runs = headline(runs)
    trained = tuple(r for r in runs if r.trained)
    months, groups = tuple(r for r in runs if r.has_months), tuple(r for r in runs if r.has_groups)
    made = [
        Drawing(
            "learning_curves.png",
            "Learning curves",
            "The star is the epoch that was kept, chosen on validation. Training values are means over an epoch of "
            "augmented images, before weight averaging; validation values are those of the averaged weights on images "
            "as they are.",
            tuple(r.folder / "history.csv" for r in trained),
            partial(figures.learning_curves, trained),
        )
    ]

    def add(title: str, caption: str, draw: Callable, shown: Runs, needs_images: bool = False, *more: Path) -> None:
        inputs = (*(r.folder / f"predictions_{REPORTED_ON}.csv" for r in shown), *more)
        made.append(Drawing(f"{draw.__name__}.png", title, caption, inputs, partial(draw, shown), needs_images))

    if months:
        add("Predicted against reference", "One dot a holdout image.", figures.predicted_against_reference, months)
        add(
            "Agreement",
            "After Bland and Altman; between the dashed lines lie 95 % of the differences if they are normal.",
            figures.bland_altman,
            months,
        )
        add(
            "Error by age and sex",
            "Mean absolute error with 95 % bootstrap intervals; the dashed line is the error over all holdout images.",
            figures.error_by_age_and_sex,
            months,
        )
    if groups:
        add(
            "Age groups: confusion",
            "The classification head's answers, not binned months. A row sums to 100 %; below, numbers of images.",
            figures_groups.confusion_matrices,
            groups,
        )
        add(
            "Age groups: calibration",
            "Ten bins of the probability given to the likeliest group.",
            figures_groups.reliability,
            groups,
        )
    if months:
        alike = tuple(r for r in months if r.same_images(best(months)))
        one_a_backbone = tuple(
            best(tuple(r for r in alike if r.backbone == b)) for b in dict.fromkeys(r.backbone for r in alike)
        )
        add(
            "The same images under every model",
            "Above: sex and reference; below: predictions and errors in months, one model a backbone, its best on "
            "validation. For each sex and the middle of each age group the holdout image of the nearest reference age, "
            "the first id of equals: a rule that knows no prediction.",
            pictures.sample_grid,
            one_a_backbone,
            needs_images=True,
        )
        others = tuple(r for r in one_a_backbone if r is not best(months) and r.trained)
        add(
            "Largest errors",
            f"The {worst.COUNT} holdout images on which {best(months).label} is furthest off, worst first. The lines "
            "on why come from rules over what is known of an image; nobody has looked for causes.",
            pictures.worst_cases,
            (best(months), *others),
            True,
            *worst.hands_of(best(months)),
        )
    if toned := tone.measured(runs):
        inputs = tuple(predictions_path(r.folder, TONE) for r in toned)
        caption = (
            "Validation images whose grey levels were changed, the window then taken anew; 95 % paired-bootstrap "
            "intervals. Grey: what counts as robust."
        )
        draw = partial(tone.tone_robustness, toned)
        made.append(Drawing("tone_robustness.png", "Other tone curves", caption, inputs, draw))
    return made


def write_tables(runs: Runs, folder: Path) -> None:
    """`comparison.csv`, `comparison.md` and `differences.csv`."""
    write_csv(folder / "comparison.csv", tables.comparison(runs))
    write_csv(folder / "differences.csv", tables.differences(runs))
    parts = ["# Comparison of the runs", style.PHANTOM_NOTE if any(r.phantom for r in runs) else "", results_text(runs)]
    if len(differences := tables.shown_differences(runs)):
        parts += [
            "## Differences to the run selected on validation",
            tables.PAIRED_NOTE,
            to_markdown(differences),
        ]
    for title, text in (("After training", after_training(headline(runs))), ("Other tone curves", other_tones(runs))):
        parts += [f"## {title}", text] if text else []
    parts += ["## What was run", to_markdown(tables.provenance(runs))]
    write_text(folder / "comparison.md", "\n\n".join(p for p in parts if p) + "\n")


def after_training(runs: Runs) -> str:
    """What views, ensembles and corrections gain, and what the ensembles consist of, as Markdown; may be empty."""
    gains, members = refinements.shown_gains(runs), refinements.ensembles(runs)
    parts = [to_markdown(gains), refinements.NOTE] if len(gains) else []
    return "\n\n".join(parts + ([to_markdown(members)] if len(members) else []))


def other_tones(runs: Runs) -> str:
    """How the models stand other grey-level curves, as Markdown; empty where it was not measured."""
    shown = tone.shown(runs)
    return f"{to_markdown(shown)}\n\n{tone.NOTE}" if len(shown) else ""


def results_text(runs: Runs) -> str:
    """The main table with a line on how to read it, as Markdown."""
    return to_markdown(tables.results(runs)) + "\n\n" + tables.results_note(runs)


def compare(outputs: Path, images: Path, data: Path | None = None) -> Path:
    """Write the tables to `outputs`, the figures and their manifest to `images`.

    Parameters
    ----------
    data
        The radiographs that the runs were evaluated on, a folder or a cache. Without it the figures that show
        radiographs are left as they are.

    Returns
    -------
    Path
        `outputs/comparison.md`.

    Raises
    ------
    BoneageError
        No evaluated run; `data` are not the runs' images.
    """
    outputs, images = Path(outputs), Path(images)
    runs = evaluated(find_runs(outputs))
    write_tables(runs, outputs)
    cache = open_or_prepare(data, max(r.config.size for r in runs if r.trained), frame=None) if data else None
    known, manifest = read_manifest(images), {}
    for drawing in tqdm(drawings(runs), desc="drawing", unit="figure"):
        if drawing.needs_images and cache is None:
            if drawing.name in known:
                manifest[drawing.name] = known[drawing.name]
            continue
        figure = drawing.draw(cache) if drawing.needs_images else drawing.draw()
        style.save(figure, images / drawing.name, palette=True)
        manifest[drawing.name] = digests(drawing, outputs)
    for gone in set(known) - set(manifest):
        (images / gone).unlink(missing_ok=True)
    write_text(images / MANIFEST, json.dumps(manifest, indent=1, sort_keys=True) + "\n")
    return outputs / "comparison.md"


def digests(drawing: Drawing, outputs: Path) -> dict[str, str]:
    """What a figure is drawn from: path below `outputs` -> SHA-256."""
    return {p.relative_to(outputs).as_posix(): digest(p) for p in drawing.inputs}


def read_manifest(images: Path) -> dict[str, dict[str, str]]:
    """Figure -> the digests of the files it was drawn from; {} where nothing was drawn yet."""
    path = images / MANIFEST
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def is_fresh(drawing: Drawing, outputs: Path, images: Path) -> bool:
    """Whether a figure is there and shows the files as they are now."""
    return (images / drawing.name).exists() and read_manifest(images).get(drawing.name) == digests(drawing, outputs)


def stale(outputs: Path, images: Path) -> list[str]:
    """Tables and figures that do not show what the runs' files say now.

    A figure of radiographs that was never drawn is not missed: it needs the images.
    """
    outputs, images = Path(outputs), Path(images)
    runs = evaluated(find_runs(outputs))
    with TemporaryDirectory() as fresh:
        write_tables(runs, Path(fresh))
        found = [
            str(outputs / name)
            for name in TABLES
            if not (outputs / name).exists() or (outputs / name).read_bytes() != (Path(fresh) / name).read_bytes()
        ]
    known, wanted = read_manifest(images), drawings(runs)
    for drawing in wanted:
        if (drawing.name in known or not drawing.needs_images) and not is_fresh(drawing, outputs, images):
            found.append(str(images / drawing.name))
    return found + [str(images / name) for name in sorted(set(known) - {d.name for d in wanted})]
