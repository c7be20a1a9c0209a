"""Errors as clients see them: an RFC 9457 problem, the same for the API (JSON) and the page (a paragraph)."""

import logging
import traceback
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path

from flask import Response, json
from werkzeug.exceptions import HTTPException, MethodNotAllowed

from boneage.errors import BoneageError
from boneage.texts import catalogue, say
from boneage.web.limits import Later

log = logging.getLogger("boneage.web")


class BadRequest(BoneageError):
    """What a client sent cannot be used; `status` and `code` say what sort of fault it is."""

    def __init__(self, message: str, code: str = "bad_input", status: int = 422):
        super().__init__(message)
        self.code, self.status = code, status


@dataclass(frozen=True)
class Problem:
    """Status, a short code for programs, a sentence for people, and the headers that belong to the status."""

    status: int
    code: str
    detail: str
    headers: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, error: Exception) -> "Problem":
        """What to tell about an error. Nothing that the server did not expect is told, nor are messages logged:
        they may quote what was uploaded."""
        if isinstance(error, Later):
            code = "busy" if error.status == 503 else "too_many_requests"
            return cls(error.status, code, str(error), {"Retry-After": str(error.retry_after)})
        if isinstance(error, BoneageError):
            code = getattr(error, "code", "bad_input")
            return cls(getattr(error, "status", 413 if code == "too_large" else 422), code, str(error))
        status = error.code if isinstance(error, HTTPException) and error.code else 500
        if status == 500:
            cause = getattr(error, "original_exception", None) or error
            last = traceback.extract_tb(cause.__traceback__)[-1:]
            log.error(
                "unexpected %s at %s", type(cause).__name__, *(f"{Path(f.filename).name}:{f.lineno}" for f in last)
            )
        phrase, headers = HTTPStatus(status).phrase, {}
        if status == 401:
            headers["WWW-Authenticate"] = 'Bearer realm="boneage"'
        if isinstance(error, MethodNotAllowed):
            headers["Allow"] = ", ".join(sorted(error.valid_methods or ()))
        return cls(status, cls.code_of(status, phrase), cls.text(status, phrase), headers)

    @staticmethod
    def code_of(status: int, phrase: str) -> str:
        """The code of a status that no refusal of ours stands behind."""
        return "too_large" if status == 413 else phrase.lower().replace(" ", "_")

    @staticmethod
    def text(status: int, phrase: str) -> str:
        """The catalogue's sentence for a status."""
        return catalogue()["errors"].get(str(status)) or say("errors.other", status=status, phrase=phrase)

    def response(self) -> Response:
        """As `application/problem+json`."""
        title = HTTPStatus(self.status).phrase
        told = {"type": "about:blank", "title": title, "status": self.status, "code": self.code, "detail": self.detail}
        return Response(json.dumps(told), self.status, self.headers, mimetype="application/problem+json")
