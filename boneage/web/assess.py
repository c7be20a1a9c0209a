"""What page and API have in common: read one question from a form, answer it, keep it if the operator said so."""

import logging
import re
import secrets
import time
from dataclasses import dataclass, replace
from datetime import date

from flask import Request, current_app, json

from boneage.errors import BoneageError
from boneage.paths import atomic
from boneage.serving.answer import Answer, ImageFacts, outside_ages
from boneage.serving.door import kind_of
from boneage.texts import say
from boneage.web.growth import Growth, growth
from boneage.web.limits import Rate, Turns
from boneage.web.problems import BadRequest
from boneage.web.settings import Settings

PRIVATE_FILE = 0o600  # radiographs and birth dates: for the operator alone

log = logging.getLogger("boneage.web")


@dataclass(frozen=True)
class Assessment:
    """A model's answer, and how it sits against chronological age where that is known."""

    answer: Answer
    growth: Growth | None

    def to_dict(self) -> dict:
        """Plain JSON: what the API answers and the page offers for download."""
        return self.answer.to_dict() | {"growth": self.growth and self.growth.to_dict()}


class Assessor:
    """The predictor behind its queue, its rate and its archive.

    Parameters
    ----------
    predictor
        A `boneage.serving.Predictor`, or anything that is called like one.
    """

    def __init__(self, predictor, settings: Settings):
        self.predictor, self.keep = predictor, settings.keep
        self.turns = Turns(settings.workers, settings.queue)
        self.rate = Rate(settings.per_minute, settings.burst)

    def assess(self, data: bytes, male: bool | None, chronological_months: float | None, maps: bool) -> Assessment:
        """Assess one radiograph.

        Raises
        ------
        BoneageError
            The image cannot be assessed; the server is full; the answer could not be kept.
        """
        with self.turns.take():
            answer = self.predictor(data, male, maps=maps)
        against = None
        if chronological_months is not None:  # which counts for more than an age in the file
            others = tuple(warning for warning in answer.warnings if warning.code != "outside_ages")
            answer = replace(answer, warnings=(*others, *outside_ages(chronological_months)))
            against = growth(answer.months, chronological_months, answer.male)
        assessment = Assessment(answer, against)
        if self.keep:
            self._keep(data, assessment)
        return assessment

    def inspect(self, data: bytes) -> ImageFacts:
        """What a file says about itself, without a prediction."""
        with self.turns.take():
            return self.predictor.inspect(data)

    def _keep(self, data: bytes, assessment: Assessment) -> None:
        """Image and answer under a name that nobody chose; the answer last, so that a pair is whole."""
        name = f"{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}-{secrets.token_hex(4)}"
        image = self.keep / f"{name}.{assessment.answer.image.kind.lower()}"
        answer = json.dumps(assessment.to_dict(), indent=1).encode()
        try:
            for path, content in ((image, data), (image.with_suffix(".json"), answer)):
                with atomic(path) as part:
                    part.touch(PRIVATE_FILE)
                    part.write_bytes(content)
        except BoneageError as error:
            image.unlink(missing_ok=True)
            log.error("not kept: %s", error)
            raise BadRequest(say("errors.not_kept"), "not_kept", 507) from error


def assessor() -> Assessor:
    """That of the running application."""
    return current_app.extensions["boneage"]


def one_image(request: Request) -> bytes:
    """The bytes of the only file in the request.

    Raises
    ------
    BadRequest
        No file, more than one, one under another name than `image`, or of a kind that is not read.
    """
    if request.mimetype != "multipart/form-data":
        raise BadRequest(say("errors.form"), "unsupported_media_type", 415)
    found = [name for name, _ in request.files.items(multi=True)]
    if found != ["image"]:
        raise BadRequest(say("errors.one_image", files=len(found)), "one_image")
    data = request.files["image"].stream.getvalue()
    if data and kind_of(data) == "unknown":
        raise BadRequest(say("errors.kind"), "unsupported_media_type", 415)
    return data


def one_value(request: Request, name: str) -> str | None:
    """A field of the form that may be there once; None where it is missing."""
    values = request.form.getlist(name)
    if len(values) > 1:
        raise BadRequest(say("errors.field_once", field=name, times=len(values)))
    return values[0] if values else None


def parse_choice(text: str | None) -> bool | None:
    """male -> True, female -> False, None -> None (the file may say)."""
    if text not in (None, "male", "female"):
        raise BadRequest(say("errors.sex", sex=repr(text[:20])), "unknown_sex")
    return None if text is None else text == "male"


def parse_number(text: str | None, name: str) -> float | None:
    """A number, or None where there is none."""
    try:
        return None if text is None else float(text if re.fullmatch(r"[-+.\deE]+", text) else "no number")
    except ValueError as error:
        raise BadRequest(say("errors.number", field=name, given=repr(text[:20]))) from error


def parse_day(text: str | None, name: str) -> date | None:
    """A day as YYYY-MM-DD, or None where there is none."""
    try:
        return None if text is None else date.fromisoformat(text)
    except ValueError as error:
        raise BadRequest(say("errors.day", field=name, given=repr(text[:20]))) from error
