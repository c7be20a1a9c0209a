"""Texts: what a user of an answer reads stands in one catalogue, whichever way it reaches them."""

import ast
import re
import string
from pathlib import Path

import pytest

import boneage
from boneage import texts
from boneage.texts import catalogue, say

PACKAGE = Path(boneage.__file__).parent
# What stands between a radiograph and its answer. Not here: making a model ready, and a server's own settings.
ANSWERING = [
    *(PACKAGE / "data" / name for name in ("decode.py", "frame.py")),
    *(PACKAGE / "serving" / name for name in ("answer.py", "door.py", "predictor.py", "files.py", "dicom_report.py")),
    *(PACKAGE / "web" / name for name in ("api.py", "app.py", "assess.py", "growth.py", "limits.py", "pages.py")),
]
TOLD_ELSEWHERE = ("no readable", "direction must be")  # of a run that was not exported; of a program's own mistake


def calls(path: Path, *names: str) -> list[ast.Call]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return [n for n in ast.walk(tree) if isinstance(n, ast.Call) and getattr(n.func, "id", None) in names]


def placeholders(text: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(text) if name}


SAID = [(path, call) for path in sorted(PACKAGE.rglob("*.py")) for call in calls(path, "say")]
LITERAL = [(path, call) for path, call in SAID if isinstance(call.args[0], ast.Constant)]


def test_a_text_is_filled_in():
    assert (
        say("refusals.body_part", part="'{0} of {part}'")
        == "the DICOM file says that it shows '{0} of {part}'; expected a hand"
    )
    assert say("age.short", years=8, months=4) == "8 y 4 mo"


@pytest.mark.parametrize(("key", "values"), [("image.no_such_text", {}), ("age.short", {"years": 8})])
def test_a_missing_text_or_value_is_an_error(key, values):
    with pytest.raises(KeyError):
        say(key, **values)


def test_each_use_gives_what_the_text_asks_for():
    assert len(LITERAL) > 60
    for path, call in LITERAL:
        section, name = call.args[0].value.split(".")
        given = {keyword.arg for keyword in call.keywords}
        if None not in given:  # `**values`
            assert given == placeholders(catalogue()[section][name]), f"{path.name}: {section}.{name}"


@pytest.mark.parametrize("path", ANSWERING, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_no_refusal_or_warning_has_a_text_of_its_own(path):
    for call in calls(path, "BoneageError", "Refused", "Warning", "BadRequest", "Later"):
        for argument in call.args:
            text = ast.unparse(argument).lstrip("f'\"")
            if isinstance(argument, ast.JoinedStr) or (isinstance(argument, ast.Constant) and " " in text):
                assert text.startswith(TOLD_ELSEWHERE), text


def test_every_text_is_used():
    """By `say`, by a template, or by a name that a template or a status puts together."""
    said = {call.args[0].value for _, call in LITERAL} | {"case.born", "case.taken", "case.years", "case.months"}
    templates = "".join(p.read_text(encoding="utf-8") for p in (PACKAGE / "web" / "templates").glob("*.html"))
    for section, names in catalogue().items():
        for name in names:
            in_page = re.search(rf'\b(t\.{section}|words)\.{name}\b|words\["{name.split("_")[0]}_"', templates)
            status = section == "errors" and name.isdigit()
            assert f"{section}.{name}" in said or in_page or status or name in ("older", "younger"), (section, name)


def test_a_translation_is_a_file_beside_the_english_one(monkeypatch, tmp_path):
    """With the same names and the same `{...}` in each: what the page, the API and the node then say."""
    (tmp_path / "xx.toml").write_text('[page]\nnotice = "Nur zur Forschung."\n', encoding="utf-8")
    monkeypatch.setattr(texts, "files", lambda package: tmp_path)
    assert catalogue("xx")["page"]["notice"] == "Nur zur Forschung."


@pytest.mark.parametrize("language", sorted(p.stem for p in Path(texts.__file__).parent.glob("*.toml")))
def test_every_language_has_every_text_with_the_same_places_to_fill(language):
    def shape(of: dict) -> dict:
        return {(section, name): placeholders(text) for section, names in of.items() for name, text in names.items()}

    assert shape(catalogue(language)) == shape(catalogue("en"))
