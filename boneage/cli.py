"""The `boneage` command. No logic here: each command calls one function of the package."""

import sys
from pathlib import Path

import click

from boneage import __version__
from boneage.errors import BoneageError
from boneage.explain import DEFAULT_METHOD
from boneage.paths import outputs_root

# Imports of Keras and pandas wait inside the commands: `boneage --help` must answer at once.
# What an installation may lack, and the extra that brings it; anything else comes with `train`.
EXTRAS = {"onnxruntime": "serve", "flask": "serve", "waitress": "serve", "pynetdicom": "dicom", "highdicom": "dicom"}


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
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        _stop(f"error: {package} is missing; install with: pip install 'boneage[{EXTRAS.get(package, 'train')}]'", 2)
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
@click.option("--align", type=click.Choice(["hand"]), help="Turn the hand upright and crop to it, where it is found.")
def data_prepare(folder: Path, size: int, out: Path | None, workers: int | None, align: str | None):
    """Decode, window and letterbox every radiograph once; a killed run goes on where it was."""
    from boneage.data.cache import prepare

    cache = prepare(folder, size, out, workers, align or "whole")
    click.echo(f"{cache.folder}: {cache.info['images']} images of {cache.size} px, {cache.info['rejected']} rejected")
    if align:
        click.echo(f"no sure hand in {cache.info['whole_frames']} of them: these show the whole frame")


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
@click.option("--tone", is_flag=True, help="Also under other grey-level curves: tone.csv and the model card tell.")
@click.option("--tta", is_flag=True, help="Also with test-time augmentation, into RUN/tta.")
@click.option("--speed", is_flag=True, help="Also time single answers: speed.json.")
def evaluate(runs, data, force, tone, tta, speed):
    """Per-image predictions of RUNS, then metrics with intervals and a model card from them."""
    from boneage.evaluation.evaluate import evaluate as run

    for folder in runs:
        run(folder, data, force=force, with_tone=tone, with_tta=tta, with_speed=speed)
        click.echo(f"{folder}: predictions, metrics.json and MODEL_CARD.md written")


@cli.command()
@click.argument("name")
@click.argument("runs", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--fit-weights", is_flag=True, help="Weights fitted on validation in place of the mean.")
@click.option(
    "--correct",
    type=click.Choice(["none", "linear", "isotonic"]),
    default="none",
    show_default=True,
    help="Take away bias and shrinkage, fitted on validation.",
)
@_outputs
def ensemble(name, runs, fit_weights, correct, outputs):
    """One answer from several evaluated RUNS (folders, or their tta folders), into OUTPUTS/Ensemble/NAME."""
    from boneage.evaluation.ensemble import combine

    click.echo(f"ensemble: {combine(name, list(runs), outputs, fit_weights, correct)}")


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
@click.option(
    "--method", default=DEFAULT_METHOD, show_default=True,
    help="gradcam, gradcam++, hirescam, layercam, smoothgrad, integrated-gradients, rise or occlusion.",
)  # fmt: skip
@click.option("--out", type=click.Path(path_type=Path), default=Path("gradcam.png"), show_default=True)
def explain(runs, data, ids, set_name, count, files, sex, target, method, out):
    """Heat maps of the same hands through RUNS: a figure, and a table beside it.

    The hands come from --data, or are files given with --images and --sex.
    """
    from boneage.explain import explain as job
    from boneage.labels import parse_sex

    if bool(data) == bool(files):
        raise BoneageError("say which hands: either --data DIR, or --images FILE with --sex")
    if files:
        job.explain_files(list(runs), list(files), parse_sex(sex), out, target, method)
    else:
        job.explain(list(runs), data, out, list(ids) or None, set_name, target, count, method)
    click.echo(f"figure: {out}, table: {out.with_suffix('.csv')}")


@cli.command("explain-audit")
@click.argument("runs", nargs=-1, required=True, type=click.Path(path_type=Path))
@_data()
@click.option(
    "--boxes",
    type=click.Path(path_type=Path),
    help="Folder with hand-bones.csv and ossification-regions.csv; the phantom needs none.",
)
@click.option("--set", "set_name", default="holdout", show_default=True, help="Set that the verdicts are about.")
@click.option("--every-method", is_flag=True, help="Also the slow methods, on few images: some ten times as long.")
@_images
def explain_audit(runs, data, boxes, set_name, every_method, images):
    """Do the heat maps of RUNS mean anything? Evidence with verdicts, into RUN/audit and figures."""
    from boneage.explain.audit import audit as run

    figures = _images_folder(images, runs[0].parent.parent)
    for summary in run(list(runs), data, boxes, figures, set_name, every_method):
        click.echo(f"audit: {summary}")


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
    click.echo(sweeps.describe(plan, outputs))
    images = _images_folder(images, outputs)
    sweeps.run(plan, folder, outputs)
    if runs := sweeps.shown(plan, outputs):
        explain_runs(runs, folder, out=images / "gradcam.png")
    report_runs(outputs, images, data=folder)
    click.echo(f"report: {(outputs / PAGE).resolve()}")


@cli.command()
@click.argument("images", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--sex", help="F or M, of all images.  [default: what a DICOM file says]")
@click.option("--model", metavar="RUN", help="Backbone, backbone/name or run folder.  [default: the best exported]")
@click.option("--json", "as_json", is_flag=True, help="Print JSON in place of sentences.")
@click.option("--csv", "table", type=click.Path(path_type=Path), help="Also write a table.")
@click.option("--overlay", type=click.Path(path_type=Path), help="Also write Grad-CAM pictures into this folder.")
def predict(images, sex, model, as_json, table, overlay):
    """Bone age of radiograph files: PNG, JPEG, WebP, TIFF or DICOM. Needs no TensorFlow."""
    from boneage.labels import parse_sex
    from boneage.serving import files

    male = None if sex is None else bool(parse_sex(sex))
    answers = files.predict_files(list(images), male, model, maps=overlay is not None)
    if table:
        files.save_csv(answers, table)
    if overlay:
        files.save_overlays(answers, overlay)
    click.echo(files.as_json(answers) if as_json else files.as_text(answers))
    if any(isinstance(answer, BoneageError) for answer in answers.values()):
        sys.exit(2)


@cli.group()
def models():
    """The models on the shelf."""


@models.command("list")
@_outputs
def models_list(outputs: Path):
    """Finished runs that tell months, the best by validation first, and whether they can be used by `predict`."""
    from boneage.serving.shelf import describe

    click.echo(describe(outputs))


@cli.command()
@click.argument("run", type=click.Path(path_type=Path))
@_data()
@click.option("--format", "kind", type=click.Choice(["onnx", "litert"]), default="onnx", show_default=True)
def export(run: Path, data: str, kind: str):
    """Make RUN usable without TensorFlow: model.onnx, checked against the Keras model; intervals; the door's gate.

    `litert` writes model.tflite, checked in the same way, and nothing else: `boneage predict` and `serve` take ONNX.
    """
    from boneage.serving.calibrate import calibrate
    from boneage.serving.export import FILES
    from boneage.serving.export import export as write

    found = write(run, data, kind)
    apart, correlation = found["months_apart"], found["correlation"]
    click.echo(f"{run / FILES[kind]}: {found['images']} images, up to {apart:.2g} months apart, maps {correlation:.5f}")
    if kind == "onnx":
        rates = calibrate(run, data)
        click.echo(rates.to_string(index=False, float_format=lambda share: f"{share:.1%}"))


@cli.group()
def hand():
    """The hand finder: train it, measure it."""


_bones = click.option(
    "--boxes", type=click.Path(path_type=Path), help="Folder with `hand-bones.csv`: radiologist-made boxes."
)


@hand.command("train")
@_data()
@_bones
@click.option("--out", type=click.Path(path_type=Path), help="ONNX file.  [default: the package's own]")
def hand_train(data: str, boxes: Path, out: Path | None):
    """Train the hand finder on boxes of the training side."""
    from boneage.data import boxes as reader
    from boneage.data.hand import WEIGHTS
    from boneage.training.hand_finder import train as run

    click.echo(f"hand finder: {run(data, reader.read(boxes).bones, out or WEIGHTS)}")


@hand.command("evaluate")
@click.argument("folder", type=click.Path(path_type=Path))
@_bones
@_outputs
def hand_evaluate(folder: Path, boxes: Path | None, outputs: Path):
    """Find the hand in every radiograph of FOLDER; errors against boxes, and the doubtful crops as a picture."""
    from boneage.data import boxes as reader
    from boneage.evaluation.hand_finder import evaluate as run

    run(folder, reader.read(boxes).bones if boxes else None, outputs / "HandFinder")
    click.echo(f"hands: {outputs / 'HandFinder'}")


@cli.command("dicom-node")
@click.option("--peer", required=True, metavar="TITLE@HOST:PORT", help="Where answers go, such as PACS@127.0.0.1:104.")
@click.option("--spool", type=click.Path(path_type=Path), default=Path("spool"), show_default=True, help="Work folder.")
@click.option("--title", default="BONEAGE", show_default=True, help="What this node is called.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", type=click.IntRange(1, 65535), default=11112, show_default=True)
@click.option("--allow", multiple=True, metavar="TITLE", help="Who may send; may be repeated.  [default: any, locally]")
@click.option("--model", metavar="RUN", help="Backbone or run folder.  [default: the best that is shipped]")
@click.option("--modality", "modalities", multiple=True, help="May be repeated.  [default: CR, DX]")
@click.option("--body-part", metavar="REGEX", help="Taken when this fits Body Part Examined ...  [default: hand|wrist]")
@click.option(
    "--description", metavar="REGEX", help="... or this a description of the study.  [default: bone.?age|hand|wrist]"
)
def dicom_node(peer, spool, title, host, port, allow, model, modalities, body_part, description):
    """Receive radiographs by C-STORE and send reports and Grad-CAM pictures to another DICOM node."""
    from boneage.serving.dicom_node import serve
    from boneage.serving.dicom_settings import Peer, Settings, Wanted

    def predictor():
        from boneage.serving.predictor import Predictor

        return Predictor(model)

    filters = {"modalities": modalities, "body_part": body_part, "description": description}
    wanted = Wanted(**{name: value for name, value in filters.items() if value})
    serve(Settings(Peer.parse(peer), spool, title, host, port, wanted, allow), predictor)


@cli.command()
@click.option("--model", metavar="RUN", help="Backbone or run folder.  [default: the best that is shipped]")
@click.option(
    "--host", default="127.0.0.1", show_default=True, help="Address to listen on; any but this needs a token."
)
@click.option("--port", type=click.IntRange(0, 65535), default=8000, show_default=True)
@click.option("--token", envvar="BONEAGE_TOKEN", show_envvar=True, help="What clients must know; better set it there.")
@click.option(
    "--keep", type=click.Path(path_type=Path), help="Keep images and answers here.  [default: nothing is kept]"
)
@click.option("--rate", type=click.FloatRange(1), default=120, show_default=True, help="Requests a minute and address.")
def serve(model, host, port, token, keep, rate):
    """The web page for radiographs, and its HTTP API."""
    from boneage.web.serve import serve as run

    server, address = run(model, host, port, token, keep, rate)
    click.echo(f"{address} (stop with Ctrl+C); research use only, not a medical device")
    server.run()
