"""Radiograph files to answers and reports of them: what `boneage predict` does."""

import csv
import io
import json
import os
from collections import Counter
from pathlib import Path

import cv2

from boneage.data.decode import read_bytes
from boneage.errors import BoneageError
from boneage.labels import GROUP_COLUMNS, GROUPS
from boneage.paths import atomic, write_text
from boneage.serving.answer import NOTICE, Answer, sex_name, words
from boneage.serving.predictor import Predictor
from boneage.texts import say

Answers = dict[str, Answer | BoneageError]  # by file


def predict_files(files: list[str | Path], male: bool | None, model: str | None = None, maps: bool = False) -> Answers:
    """An answer, or the reason why there is none, for each file; one bad file stops no other.

    Parameters
    ----------
    male
        Of all of them; None: what DICOM files say.
    model
        As `Predictor` takes it.

    Raises
    ------
    BoneageError
        No such model.
    """
    predictor, answers = Predictor(model), {}
    for file in files:
        name = os.fsencode(file).decode(errors="backslashreplace")  # not every name can be written
        try:
            answers[name] = predictor(read_bytes(file), male, maps=maps)
        except BoneageError as error:
            answers[name] = error
    return answers


def as_text(answers: Answers) -> str:
    """For people: a paragraph a file, and the notice."""
    lines, models = [], set()
    for file, answer in answers.items():
        if isinstance(answer, BoneageError):
            lines.append(say("report.no_answer", file=file, why=answer))
            continue
        models.add(answer.model)
        low, high, otherwise = (words(m) for m in (answer.low, answer.high, answer.months - answer.sex_effect))
        lines.append(say("report.answer", file=file, age=answer.text, low=low, high=high))
        if answer.groups:
            shares = [say("report.group", group=group, share=f"{share:.0%}") for group, share in answer.groups.items()]
            lines.append(say("report.groups", groups=", ".join(shares)))
        lines.append(say("report.sex", sex=sex_name(answer.male), other=sex_name(not answer.male), age=otherwise))
        lines += [say("report.note", warning=warning.text) for warning in answer.warnings]
    said = [say("report.models", models=", ".join(sorted(models)))] if models else []
    return "\n".join([*lines, " ".join([*said, NOTICE])])


def as_json(answers: Answers) -> str:
    """For programs: a list of objects with `file` and what `Answer.to_dict` gives, or `error` and `code`."""
    rows = [
        {"file": file, "error": str(answer), "code": getattr(answer, "code", "unreadable")}
        if isinstance(answer, BoneageError)
        else {"file": file} | answer.to_dict()
        for file, answer in answers.items()
    ]
    return json.dumps(rows, indent=2, ensure_ascii=False)


def save_csv(answers: Answers, path: Path) -> None:
    """A row a file: `file`, `male`, `predicted_months`, `low`, `high`, `p_0_5` .. `p_15_20`, `model`, `warnings`
    (their codes), `error`; six significant digits.
    """
    columns = ["file", "male", "predicted_months", "low", "high", *GROUP_COLUMNS, "model", "warnings", "error"]
    text = io.StringIO()
    table = csv.DictWriter(text, columns, lineterminator="\n")
    table.writeheader()
    for file, answer in answers.items():
        if isinstance(answer, BoneageError):
            table.writerow({"file": file, "error": str(answer)})
            continue
        numbers = {"predicted_months": answer.months, "low": answer.low, "high": answer.high}
        numbers |= {c: answer.groups[g] for c, g in zip(GROUP_COLUMNS, GROUPS, strict=True) if g in answer.groups}
        codes = " ".join(warning.code for warning in answer.warnings)
        row = {"file": file, "male": int(answer.male), "model": answer.model, "warnings": codes}
        table.writerow(row | {name: f"{number:.6g}" for name, number in numbers.items()})
    write_text(path, text.getvalue())


def save_overlays(answers: Answers, folder: Path) -> list[Path]:
    """`<name>_older.png` and `<name>_younger.png` of each answered file; the paths.

    Of files that share a name the second becomes `<name>-2`, and so on.
    """
    written, named = [], Counter()
    for file, answer in answers.items():
        if isinstance(answer, BoneageError):
            continue
        name = Path(file).stem
        named[name] += 1
        name += f"-{named[name]}" if named[name] > 1 else ""
        for direction in ("older", "younger"):
            path = Path(folder) / f"{name}_{direction}.png"
            _, png = cv2.imencode(".png", cv2.cvtColor(answer.overlay(direction), cv2.COLOR_RGB2BGR))
            with atomic(path) as part:
                part.write_bytes(png.tobytes())
            written.append(path)
    return written
