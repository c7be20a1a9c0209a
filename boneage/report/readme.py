"""README's tables, between markers, rendered from the runs; and all that a report consists of, in one call."""

import re
from pathlib import Path

from boneage import style
from boneage.errors import BoneageError
from boneage.explain import audit_tables, audit_words
from boneage.paths import write_text
from boneage.report import ablation, html, serving, tables
from boneage.report.compare import after_training, compare, other_tones, results_text, stale
from boneage.report.runs import Runs, best, evaluated, find_runs, headline

MARKED = re.compile(r"(?P<open><!-- report:(?P<name>\w+) -->\n)(?P<body>.*?)(?P<close><!-- /report -->)", re.DOTALL)
PAGE = "report.html"  # below the outputs
KNOWN_TRUTH = "known_truth"  # below the outputs; see boneage/campaigns/known_truth.toml
MOVED_NOTE = (
    "Of freshly drawn hands one region alone, or all four, matures by two years, all else as it was, noise and tone "
    "included. How far the answer moves, and how much of the map's change lies in that region, against a change spread "
    "evenly."
)


def blocks(runs: Runs) -> dict[str, str]:
    """What stands between README's markers, by name, as Markdown."""
    warning = f"**{style.PHANTOM_NOTE}.**\n\n" if any(r.phantom for r in runs) else ""
    chosen = best(runs)
    of = "Mean absolute error in months" if chosen.has_months else "Accuracy in %"
    return {
        "results": warning + results_text(headline(runs)),
        "by_group": f"{warning}{of} of {chosen.label} on the holdout, with 95 % bootstrap intervals:\n\n"
        + tables.to_markdown(tables.by_group(chosen)),
        "runs": warning + tables.to_markdown(tables.provenance(headline(runs))),
        "refinements": warning + after_training(headline(runs)),
        "tone": warning + other_tones(headline(runs)),
        "ablation": warning + ablation.text(chosen.folder.parents[1]),
        "serving": warning + serving.text(headline(runs)),
        "audit": warning + _audits(chosen.folder.parents[1]),
        "known_truth": _known_truth(chosen.folder.parents[1] / KNOWN_TRUTH),
    }


def _audits(outputs: Path) -> str:
    """Heat maps against the goals of their audit, with how to read it."""
    table = audit_tables.audit_table(outputs)
    if table.empty:
        return "No run's heat maps have been audited yet."
    return f"{tables.to_markdown(table)}\n\n{audit_tables.NOTE}"


def _known_truth(outputs: Path) -> str:
    """The audit of the phantom's own network, and what its maps do when one region alone matures."""
    moved = [table for run in sorted(outputs.glob("*/*")) for table in audit_words.moved(run)]
    parts = [tables.to_markdown(table) for table in moved] + ([MOVED_NOTE] if moved else [])
    return "\n\n".join([_audits(outputs), *parts])


def render_readme(readme: Path, outputs: Path, check: bool = False) -> list[str]:
    """Fill the blocks `<!-- report:NAME -->` .. `<!-- /report -->` of a README.

    Parameters
    ----------
    check
        Write nothing.

    Returns
    -------
    list of str
        The blocks that were not up to date, such as `README.md: results`.

    Raises
    ------
    BoneageError
        No such README, or a block of unknown name.
    """
    readme = Path(readme)
    if not readme.is_file():
        raise BoneageError(f"no README at {readme}; name the file whose tables are to be filled")
    text, found = readme.read_text(encoding="utf-8"), []
    known = blocks(evaluated(find_runs(outputs)))

    def fill(match: re.Match) -> str:
        name = match["name"]
        if name not in known:
            raise BoneageError(f"{readme} has a block report:{name}; known blocks: {', '.join(known)}")
        if match["body"] != known[name] + "\n":
            found.append(f"{readme.name}: {name}")
        return match["open"] + known[name] + "\n" + match["close"]

    filled = MARKED.sub(fill, text)
    if found and not check:
        write_text(readme, filled)
    return found


def report(
    outputs: Path, images: Path, readme: Path | None = None, check: bool = False, data: Path | None = None
) -> list[str]:
    """Bring tables, figures, README and the HTML page (`outputs/report.html`) up to date, or only say what is not.

    Parameters
    ----------
    readme
        None: leave README alone, as for runs that are not to be published.
    check
        Write nothing; the HTML page, which is no published file, is not looked at.
    data
        Needed to draw the figures that show radiographs; see `boneage.report.compare.compare`.

    Returns
    -------
    list of str
        What is stale, with `check`; else what of README was renewed.
    """
    if check:
        return stale(outputs, images) + (render_readme(readme, outputs, check=True) if readme else [])
    compare(outputs, images, data)
    renewed = render_readme(readme, outputs) if readme else []
    html.render(outputs, images, Path(outputs) / PAGE)
    return renewed
