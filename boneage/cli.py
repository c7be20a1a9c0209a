"""The `boneage` command. No logic here: each command calls one function of the package."""

import sys
from pathlib import Path

import click

from boneage import __version__
from boneage.errors import BoneageError
from boneage.paths import outputs_root

# Imports of Keras and pandas wait inside the commands: `boneage --help` must answer at once.


def main() -> None:
    """Run the command line; bad input ends in one clear line and exit code 2."""
    try:
        cli.main(standalone_mode=False)
    except BoneageError as error:
        _stop(f"error: {error}", 2)
    except click.Abort:
        _stop("stopped; the same command, with --resume for a training, goes on from here", 130)
    except click.ClickException as error:
        error.show()
        sys.exit(2)
    except OSError as error:
        where = f" ({error.filename})" if error.filename else ""
        _stop(f"error: {error.strerror or error}{where}; nothing that was finished is lost", 2)


def _stop(message: str, code: int) -> None:
    click.echo(message, err=True)
    sys.exit(code)


def _outputs(function):
    return click.option(
        "--outputs",
        type=click.Path(path_type=Path),
        default=outputs_root,
        show_default="outputs",
        help="Where run folders lie.",
    )(function)


def _images(function):
    return click.option(
        "--images",
        type=click.Path(path_type=Path),
        help="Where figures go; `images` for `outputs`, else `images` inside it.",
    )(function)


def _data(required: bool = True):
    return click.option(
        "--data", required=required, help="Folder of radiographs (prepared on first use), or a prepared cache."
    )


def _images_folder(images: Path | None, outputs: Path) -> Path:
    return images or (Path("images") if outputs == Path("outputs") else outputs / "images")


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="boneage")
def cli():
    """Bone age from hand radiographs: prepare, train, evaluate, explain, compare, report.

    Research use only; not a medical device. The whole job at once is `boneage campaign phantom`.
    """


@cli.group()
def data():
    """Look at a data set, prepare it, or draw a synthetic one."""


@data.command("check")
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--figure", type=click.Path(path_type=Path), help="Also write the age and sex distribution as a picture.")
def data_check(folder: Path, figure: Path | None):
    """Counts, distribution and every problem by id; exit code 1 when there are problems."""
    from boneage import style
    from boneage.data import check

    report = check.check(folder)
    click.echo(check.describe(report))
    if figure:
        click.echo(f"picture: {style.save(check.figure(report), figure)}")
    sys.exit(1 if len(report.problems) else 0)


@data.command("prepare")
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--size", type=click.IntRange(32, 2048), required=True, help="Side of the square in pixels.")
@click.option("--out", type=click.Path(path_type=Path), help="Cache folder.  [default: cache/<folder>-<size>]")
@click.option("--workers", type=click.IntRange(1), help="Threads.  [default: all cores]")
def data_prepare(folder: Path, size: int, out: Path | None, workers: int | None):
    """Decode, window and letterbox every radiograph once; a killed run goes on where it was."""
    from boneage.data.cache import prepare

    cache = prepare(folder, size, out, workers)
    click.echo(f"{cache.folder}: {cache.info['images']} images of {cache.size} px, {cache.info['rejected']} rejected")


@data.command("phantom")
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--images", "n", type=click.IntRange(1), default=480, show_default=True, help="How many hands.")
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--height", type=click.IntRange(64, 2048), default=384, show_default=True, help="Pixels.")
@click.option(
    "--test",
    "with_test",
    type=click.IntRange(0),
    default=0,
    show_default=True,
    help="Further hands without ages, as an official test set has them.",
)
def data_phantom(folder: Path, n: int, seed: int, height: int, with_test: int):
    """Draw synthetic hand radiographs with known bone age, in the layout of the RSNA data."""
    from boneage.data.phantom import make_dataset

    click.echo(f"{make_dataset(folder, n, seed, height, with_test)}: {n} synthetic hands, not patients")


@cli.command()
@_data()
@click.option(
    "--config",
    "config_file",
    type=click.Path(path_type=Path),
    help="JSON file of settings, such as the config.json of another run.",
)
@click.option("--backbone", help="EfficientNetB0, EfficientNetB5, ResNet101, Xception.")
@click.option("--head", help="joint (default), regression or classification.")
@click.option(
    "--set", "settings", multiple=True, metavar="KEY=VALUE", help="Any setting of boneage/config.py; may be repeated."
)
@click.option("--resume", is_flag=True, help="Go on with an unfinished run.")
@_outputs
def train(data, config_file, backbone, head, settings, resume, outputs):
    """Train one model into OUTPUTS/<backbone>/<name>."""
    from boneage.config import TrainConfig
    from boneage.training.train import train as run

    config = TrainConfig.load(config_file) if config_file else TrainConfig()
    named = [f"{key}={value}" for key, value in (("backbone", backbone), ("head", head)) if value]
    folder = run(config.with_settings([*named, *settings]), data, outputs, resume)
    click.echo(f"finished: {folder}; next: boneage evaluate '{folder}' --data '{data}'")


@cli.command()
@click.argument("runs", nargs=-1, required=True, type=click.Path(path_type=Path))
@_data()
@click.option("--force", is_flag=True, help="Predict again what has been predicted.")
def evaluate(runs, data, force):
    """Per-image predictions of RUNS, then metrics with intervals and a model card from them."""
    from boneage.evaluation.evaluate import evaluate as run

    for folder in runs:
        run(folder, data, force=force)
        click.echo(f"{folder}: predictions, metrics.json and MODEL_CARD.md written")


@cli.command()
@click.argument("runs", nargs=-1, required=True, type=click.Path(path_type=Path))
@_data(required=False)
@click.option("--id", "ids", multiple=True, help="An image of the data; may be repeated.  [default: by a fixed rule]")
@click.option("--set", "set_name", default="holdout", show_default=True, help="Set to choose images from.")
@click.option("--count", type=click.IntRange(1, 12), default=6, show_default=True, help="How many to choose.")
@click.option(
    "--images", "files", multiple=True, type=click.Path(path_type=Path), help="A radiograph file; may be repeated."
)
@click.option("--sex", help="M or F: sex of the radiograph files.")
@click.option("--target", default="older", show_default=True, help="older, younger, 0-5, 5-10, 10-15 or 15-20.")
@click.option("--out", type=click.Path(path_type=Path), default=Path("gradcam.png"), show_default=True)
def explain(runs, data, ids, set_name, count, files, sex, target, out):
    """Grad-CAM of the same hands through RUNS: a figure, and a table beside it.

    The hands come from --data, or are files given with --images and --sex.
    """
    from boneage.explain import explain as job
    from boneage.labels import parse_sex

    if bool(data) == bool(files):
        raise BoneageError("say which hands: either --data DIR, or --images FILE with --sex")
    if files:
        job.explain_files(list(runs), list(files), parse_sex(sex), out, target)
    else:
        job.explain(list(runs), data, out, list(ids) or None, set_name, target, count)
    click.echo(f"figure: {out}, table: {out.with_suffix('.csv')}")


@cli.command()
@_outputs
@_images
@_data(required=False)
def compare(outputs, images, data):
    """Tables and figures over all finished runs."""
    from boneage.report.compare import compare as run

    click.echo(f"comparison: {run(outputs, _images_folder(images, outputs), data)}")


@cli.command()
@click.option("--check", is_flag=True, help="Write nothing; exit code 1 when anything shown is stale.")
@click.option(
    "--readme", type=click.Path(path_type=Path), help="Its tables are filled too.  [default: README.md for `outputs`]"
)
@_outputs
@_images
@_data(required=False)
def report(check, readme, outputs, images, data):
    """Bring tables, figures, README's blocks and the HTML report up to date with OUTPUTS."""
    from boneage.report.readme import PAGE
    from boneage.report.readme import report as run

    readme = readme or (Path("README.md") if outputs == Path("outputs") else None)
    stale = run(outputs, _images_folder(images, outputs), readme, check, data)
    if check and stale:
        _stop("stale, render with `boneage report`: " + ", ".join(stale), 1)
    click.echo("everything shown is up to date" if check else f"report: {(outputs / PAGE).resolve()}")


@cli.command()
@click.argument("name")
@_data(required=False)
@_outputs
@_images
def campaign(name, data, outputs, images):
    """The whole job: run the campaign NAME (`phantom`, `real` or a TOML file), explain, compare, report."""
    from boneage import sweeps
    from boneage.explain.explain import explain as explain_runs
    from boneage.report.readme import PAGE
    from boneage.report.readme import report as report_runs

    plan = sweeps.load(name)
    folder = plan.data(data)
    for config, said in sweeps.state(plan, outputs):
        click.echo(f"  {config.backbone:16} {config.run_name:16} {said}")
    images = _images_folder(images, outputs)
    runs = sweeps.run(plan, folder, outputs)
    explain_runs(runs, folder, out=images / "gradcam.png")
    report_runs(outputs, images, data=folder)
    click.echo(f"report: {(outputs / PAGE).resolve()}")
