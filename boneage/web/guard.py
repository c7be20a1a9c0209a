"""What every request passes and every response carries: token, origin, CSRF, security headers, one log line."""

import hmac
import logging
import secrets
import time
from urllib.parse import urlsplit

from flask import Flask, Response, abort, current_app, g, redirect, request, session, url_for

from boneage.web.settings import Settings

log = logging.getLogger("boneage.web")
OPEN = ("static", "api.health", "api.openapi", "pages.login", "pages.enter")  # answered without a token
CSRF = "csrf"
HEADERS = {
    # No inline script, nothing from elsewhere; pictures of a result are data: URIs, so that nothing is stored.
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}


def install(app: Flask, settings: Settings) -> None:
    """Put the guard before and after every view of the application."""

    @app.before_request
    def before():
        g.start = time.monotonic()
        # Not by Flask's TRUSTED_HOSTS, whose matching cuts an IPv6 address at its first colon.
        if settings.names is not None and urlsplit(f"//{request.host}").hostname not in settings.names:
            abort(400)
        # Browsers say where a request comes from; a foreign page must not spend this machine's time.
        if request.method == "POST" and request.headers.get("Sec-Fetch-Site", "none") not in ("none", "same-origin"):
            abort(403)
        if settings.token and request.endpoint not in OPEN and not _has_token(settings.token):
            if request.method == "GET" and request.endpoint == "pages.index":
                return redirect(url_for("pages.login"), 303)
            # Guesses are no faster than questions.
            current_app.extensions["boneage"].rate.take(request.remote_addr or "")
            abort(401)
        if request.method == "POST" and request.blueprint == "pages":
            given = request.headers.get("X-CSRF-Token") or request.form.get(CSRF, "")
            if not _same(given, session.get(CSRF, "")):
                abort(403)
        return None

    @app.after_request
    def after(response: Response) -> Response:
        response.headers.update(HEADERS)
        response.headers["Cache-Control"] = "no-cache" if request.endpoint == "static" else "no-store"
        if request.endpoint != "static":  # the rule, not the path: a path may hold a name
            milliseconds = 1000 * (time.monotonic() - g.get("start", time.monotonic()))
            rule = f"{request.method} {request.url_rule.rule}" if request.url_rule else "unknown address"
            log.info("%s %d %.0f ms", rule, response.status_code, milliseconds)
        return response

    @app.context_processor
    def csrf() -> dict:
        return {"csrf_token": session.setdefault(CSRF, secrets.token_urlsafe(32))}


def enter(token: str, settings: Settings) -> bool:
    """Let this browser in when it knows the token, with a fresh session."""
    if not settings.token or not _same(token, settings.token):
        return False
    session.clear()
    session["in"] = True
    return True


def _has_token(token: str) -> bool:
    """API clients send the token with every request; a cookie must not do for them, or a page could ride on it."""
    if request.blueprint == "api":
        return _same(request.headers.get("Authorization", "").removeprefix("Bearer "), token)
    return session.get("in", False)


def _same(given: str, secret: str) -> bool:
    return bool(secret) and hmac.compare_digest(given.encode(errors="replace"), secret.encode())
