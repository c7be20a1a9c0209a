"""One self-contained HTML page about all runs: figures inside, no request to anywhere."""

import base64
import json
import re
from importlib.resources import files
from pathlib import Path

import pandas as pd
from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from boneage import __version__, style
from boneage.evaluation import metrics
from boneage.explain import audit_tables
from boneage.paths import write_text
from boneage.report import refinements, tables, tone
from boneage.report.compare import drawings, is_fresh
from boneage.report.runs import Run, best, evaluated, find_runs, headline

GRADCAM = ("gradcam*.png", "audit*.png")
TILES = ("mae", "within_12", "accuracy")  # of the selected run, in large print


def render(outputs: Path, images: Path, path: Path) -> Path:
    """Write the report on the evaluated runs of `outputs` to `path`, with the figures of `images` that are up to date.

    Raises
    ------
    BoneageError
        No evaluated run; the place cannot be written to.
    """
    outputs, images = Path(outputs), Path(images)
    everything = find_runs(outputs)
    all_runs = evaluated(everything)
    runs, chosen = headline(all_runs), best(all_runs)
    shown = {d.name: d for d in drawings(all_runs) if is_fresh(d, outputs, images)}
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string(files("boneage.report").joinpath("template.html").read_text(encoding="utf-8"))
    page = template.render(
        version=__version__,
        phantom_note=style.PHANTOM_NOTE if any(r.phantom for r in runs) else "",
        data=sorted({r.facts["data"] for r in runs}),
        selected=chosen,
        tiles=[_tile(chosen, m) for m in TILES if m in chosen.summary.index],
        runs=[_described(r) for r in runs],
        unevaluated=[r.label for r in everything if not r.evaluated],
        results=_table(tables.results(runs)),
        results_note=tables.results_note(runs),
        differences=_table(tables.shown_differences(runs)),
        paired_note=tables.PAIRED_NOTE,
        gains=_table(refinements.shown_gains(runs)),
        gains_note=refinements.NOTE,
        ensembles=_table(refinements.ensembles(runs), "wrap"),
        tones=_table(tone.shown(runs)),
        tones_note=tone.NOTE,
        provenance=_table(tables.provenance(runs), "wrap"),
        audit=_table(audit_tables.audit_table(outputs), "wrap"),
        audit_note=audit_tables.NOTE,
        figures=[
            {
                "id": d.name.removesuffix(".png"),
                "title": d.title,
                "caption": d.caption,
                "src": _embedded(images / d.name),
            }
            for d in shown.values()
        ],
        gradcam=[{"name": p.stem, "src": _embedded(p)} for p in [p for g in GRADCAM for p in sorted(images.glob(g))]],
    )
    write_text(path, page)
    return Path(path)


def _described(run: Run) -> dict:
    return {
        "label": run.label,
        "id": run.label.replace("/", "-"),
        "phantom": run.phantom,
        "summary": _table(tables.summary(run)),
        "by_group": _table(tables.by_group(run)),
        "limits": limits(run),
        "config": json.dumps(run.config.to_dict(), indent=2) if run.config else "",
        "facts": run.facts,
        "head": run.head,
    }


def _tile(run: Run, metric: str) -> tuple[str, str, str]:
    value, _, interval = tables.scored(run.summary, metric).partition(" ")
    return metrics.METRICS[metric].label, value, interval


def limits(run: Run) -> list[str]:
    """The points under "Limits" of a run's model card, plain text."""
    card = run.folder / "MODEL_CARD.md"
    text = card.read_text(encoding="utf-8") if card.exists() else ""
    section = re.search(r"^## Limits.*?$(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    points = re.split(r"^- ", section[1], flags=re.MULTILINE)[1:] if section else []
    return [" ".join(point.split()) for point in points]


def _table(table: pd.DataFrame, kind: str = "") -> Markup:
    """A table of text as HTML; `**bold**` and `*italic*` keep their meaning, a FAIL is red. Empty for an empty one."""
    if table.empty:
        return Markup("")

    def cell(text: str) -> Markup:
        if text.startswith(audit_tables.FAILED):
            return Markup('<strong class="fail">{}</strong>').format(text)
        for mark, tag in (("**", "strong"), ("*", "em")):
            if text.startswith(mark) and text.endswith(mark):
                return Markup("<{0}>{1}</{0}>").format(Markup(tag), text.strip("*"))
        return Markup.escape(text)

    head = Markup("").join(Markup('<th scope="col">{}</th>').format(c) for c in table.columns)
    rows = Markup("").join(
        Markup("<tr>{}</tr>\n").format(Markup("").join(Markup("<td>{}</td>").format(cell(str(v))) for v in row))
        for row in table.itertuples(index=False)
    )
    return Markup(
        '<div class="scroll"><table class="{}">\n<thead><tr>{}</tr></thead>\n<tbody>\n{}</tbody></table></div>'
    ).format(kind, head, rows)


def _embedded(path: Path) -> str:
    return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()
