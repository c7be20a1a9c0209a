"""The HTTP API: one radiograph in, one JSON answer out; described by openapi.json."""

from importlib.resources import files

from flask import Blueprint, Response, json, jsonify, request

from boneage import __version__
from boneage.texts import say
from boneage.web.assess import assessor, one_image, one_value, parse_choice, parse_number
from boneage.web.growth import checked_age
from boneage.web.problems import BadRequest

api = Blueprint("api", __name__)
FIELDS = ("sex", "chronological_age_months")


@api.post("/api/v1/predictions")
def predictions() -> Response:
    """Bone age of the radiograph in the field `image`."""
    assessor().rate.take(request.remote_addr or "")
    data = one_image(request)
    unknown = sorted(set(request.form) - set(FIELDS))
    if unknown:  # a misspelt age must not pass unnoticed
        raise BadRequest(say("errors.field_unknown", field=repr(unknown[0][:40]), fields=", ".join(("image", *FIELDS))))
    male = parse_choice(one_value(request, "sex"))
    months = parse_number(one_value(request, "chronological_age_months"), "chronological_age_months")
    months = None if months is None else checked_age(months)
    return jsonify(assessor().assess(data, male, months, maps=False).to_dict())


@api.get("/healthz")
def health() -> Response:
    """Answers as long as the server lives; says nothing about anybody."""
    return jsonify(status="ok", version=__version__)


@api.get("/api/v1/openapi.json")
def openapi() -> Response:
    """This API in OpenAPI 3.1."""
    document = json.loads(files("boneage.web").joinpath("openapi.json").read_text(encoding="utf-8"))
    document["info"]["version"] = __version__
    return jsonify(document)
