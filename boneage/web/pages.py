"""The page: drop a radiograph, confirm sex and age, read the answer. Its script asks for ready-made pieces of HTML."""

import base64
from datetime import date
from itertools import pairwise

from flask import Blueprint, Response, current_app, json, redirect, render_template, request, url_for

from boneage.labels import GROUP_EDGES, MAX_MONTHS, MONTHS_PER_YEAR
from boneage.texts import say
from boneage.web import guard, pictures
from boneage.web.assess import assessor, one_image, one_value, parse_choice, parse_day, parse_number
from boneage.web.growth import SOURCE, age_between, checked_age
from boneage.web.problems import BadRequest
from boneage.web.tags import Tags

pages = Blueprint("pages", __name__)


@pages.get("/")
def index() -> str:
    """The page, empty."""
    return render_template("index.html", max_bytes=current_app.extensions["boneage.settings"].max_bytes)


@pages.post("/inspect")
def inspect() -> str:
    """The form of one radiograph, filled with what its file says."""
    assessor().rate.take(request.remote_addr or "")
    facts = assessor().inspect(one_image(request))
    return render_template("case.html", facts=facts, tags=Tags.of(facts.dicom), today=date.today().isoformat())


@pages.post("/assess")
def assess() -> str:
    """The answer to one radiograph and its form."""
    assessor().rate.take(request.remote_addr or "")
    data = one_image(request)
    male = parse_choice(one_value(request, "sex"))
    if male is None:
        raise BadRequest(say("errors.choose_sex"), "sex_missing")
    assessment = assessor().assess(data, male, chronological_months(), maps=True)
    answer = assessment.answer
    return render_template(
        "result.html",
        answer=answer,
        growth=assessment.growth,
        source=SOURCE,
        groups=tuple(pairwise(GROUP_EDGES)),
        years=range(MAX_MONTHS // MONTHS_PER_YEAR + 1),
        radiograph=pictures.radiograph(answer.radiograph),
        older=pictures.heat(answer.older),
        younger=pictures.heat(answer.younger),
        download=base64.b64encode(json.dumps(assessment.to_dict(), indent=1).encode()).decode(),
    )


def chronological_months() -> float | None:
    """Chronological age from the form: date of birth and of the radiograph, or years and months, or nothing."""
    # A browser sends what was left empty as an empty text.
    born, taken = (parse_day(one_value(request, name) or None, say(f"case.{name}")) for name in ("born", "taken"))
    years, months = (
        parse_number(one_value(request, name) or None, say(f"case.{name}")) for name in ("years", "months")
    )
    if born is not None:
        if years is not None or months is not None:
            raise BadRequest(say("errors.two_ages"), "two_ages")
        if taken is None:  # today would be a guess: radiographs come from archives too
            raise BadRequest(say("errors.when_taken"), "when_taken")
        return age_between(born, taken)
    if years is None and months is None:
        return None
    return checked_age((years or 0) * MONTHS_PER_YEAR + (months or 0))


@pages.get("/login")
def login() -> str:
    """Ask for the token."""
    return render_template("login.html", wrong=False)


@pages.post("/login")
def enter() -> Response | tuple[str, int]:
    """Let a browser in."""
    assessor().rate.take(request.remote_addr or "")
    if guard.enter(request.form.get("token", ""), current_app.extensions["boneage.settings"]):
        return redirect(url_for("pages.index"), 303)
    return render_template("login.html", wrong=True), 401
