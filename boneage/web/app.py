"""The application: configuration, guard, pages and API put together."""

from io import BytesIO
from itertools import count

from flask import Flask, Request, Response, render_template, request
from jinja2 import StrictUndefined
from werkzeug.exceptions import SecurityError

from boneage import __version__
from boneage.labels import MAX_MONTHS, years_and_months
from boneage.serving.answer import in_months
from boneage.texts import LANGUAGE, catalogue
from boneage.web import guard
from boneage.web.api import api
from boneage.web.assess import Assessor
from boneage.web.pages import pages
from boneage.web.problems import Problem
from boneage.web.settings import Settings

FORM_BYTES = 64 * 1024  # of a request that are not the image
FORM_PARTS = 12


class InMemory(Request):
    """A request whose uploads stay in memory: Werkzeug would write those above 500 kB to a temporary file."""

    def _get_file_stream(self, total_content_length, content_type, filename=None, content_length=None) -> BytesIO:
        return BytesIO()


def create_app(predictor, settings: Settings | None = None) -> Flask:
    """A WSGI application around a predictor.

    Parameters
    ----------
    predictor
        A `boneage.serving.Predictor`.
    settings
        Default: local, without token, keeping nothing.
    """
    settings = settings or Settings()
    app = Flask(__name__)
    app.request_class = InMemory
    app.logger.disabled = True  # it would write paths and messages; boneage.web.problems writes what may be written
    app.json.sort_keys = False
    app.jinja_env.undefined = StrictUndefined
    app.jinja_env.trim_blocks = app.jinja_env.lstrip_blocks = True
    numbers = count(1)  # ids of a piece of HTML, which will stand beside other pieces
    app.jinja_env.globals.update(
        t=catalogue(), language=LANGUAGE, version=__version__, keeps=settings.keep is not None, uid=numbers.__next__
    )
    app.jinja_env.filters.update(age=_age, months=in_months, place=_place, signed=_signed)
    app.config.update(
        SECRET_KEY=settings.secret,
        SESSION_COOKIE_NAME="boneage",
        SESSION_COOKIE_SAMESITE="Strict",
        MAX_CONTENT_LENGTH=settings.max_bytes + FORM_BYTES,
        MAX_FORM_PARTS=FORM_PARTS,
    )
    app.extensions["boneage"] = Assessor(predictor, settings)
    app.extensions["boneage.settings"] = settings
    app.register_blueprint(api)
    app.register_blueprint(pages)
    guard.install(app, settings)
    app.register_error_handler(Exception, _problem)
    return app


def _age(months: float) -> str:
    """An age that no line break tears apart."""
    return years_and_months(months).replace(" ", "\N{NO-BREAK SPACE}")


def _signed(value: float) -> str:
    return f"{round(value, 1) + 0.0:+.1f}"  # the sum makes -0.0 a plain zero


def _place(months: float) -> str:
    """Where an age lies on the scale of 0 to 20 years."""
    return f"{100 * min(max(months / MAX_MONTHS, 0), 1):.2f}%"


def _problem(error: Exception) -> Response | tuple[str, int, dict]:
    """Whatever went wrong, as JSON for programs, as a paragraph for a page's request, else as a page."""
    problem = Problem.of(error)
    # A request whose host is no host name has no addresses to build a page with.
    if request.path.startswith(("/api/", "/healthz")) or isinstance(error, SecurityError):
        return problem.response()
    page = "problem.html" if request.headers.get("X-CSRF-Token") else "problem_page.html"
    return render_template(page, problem=problem), problem.status, problem.headers
