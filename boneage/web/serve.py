"""The server: waitress around the application, whose every buffer stays in memory."""

import errno
import logging
from pathlib import Path
from weakref import WeakSet

from waitress.channel import HTTPChannel
from waitress.parser import HTTPRequestParser
from waitress.server import create_server
from waitress.task import ErrorTask
from waitress.utilities import Error

from boneage.errors import BoneageError
from boneage.texts import say
from boneage.web.app import FORM_BYTES, create_app
from boneage.web.problems import Problem
from boneage.web.settings import Settings

SPARE_THREADS = 8  # beside those that wait for the model: for the page, its style and honest refusals
UPLOADS = 512_000_000  # bytes of all requests that are being received or answered, together
WAIT = 5  # seconds after which to come back, when they are more


class _Busy(Error):
    code, reason = 503, "Service Unavailable"


class _Request(HTTPRequestParser):
    """A request as it comes in, of whom nobody yet knows what for: all together may fill a part of the memory only."""

    _alive: WeakSet["_Request"] = WeakSet()

    def received(self, data: bytes) -> int:
        consumed = super().received(data)
        self._alive.add(self)
        if not self.error and sum(request.body_bytes_received for request in list(self._alive)) > UPLOADS:
            self.error, self.completed = _Busy("uploads"), True
        return consumed


class _ProblemTask(ErrorTask):
    """What waitress refuses before the application sees it, told as the application would tell it."""

    def execute(self):
        fault = self.request.error
        code = "busy" if fault.code == 503 else Problem.code_of(fault.code, fault.reason)
        later = {"Retry-After": str(WAIT)} if fault.code == 503 else {}
        text = say("errors.busy") if fault.code == 503 else Problem.text(fault.code, fault.reason)
        response = Problem(fault.code, code, text, later).response()
        fault.to_response = lambda ident=None: (response.status, list(response.headers), response.data)
        super().execute()


class _Channel(HTTPChannel):
    parser_class, error_task_class = _Request, _ProblemTask


def open_server(predictor, port: int, settings: Settings):
    """A bound server; `run()` answers until interrupted, `effective_port` says where.

    Raises
    ------
    BoneageError
        The port is taken or may not be used; the address does not exist.
    """
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%Y-%m-%d %H:%M:%S")
    logging.getLogger("waitress").setLevel(logging.CRITICAL)  # it quotes addresses and paths; clients are told by 503
    largest, listeners = settings.max_bytes + FORM_BYTES, {}
    try:
        server = create_server(
            create_app(predictor, settings),
            map=listeners,
            host=settings.host,
            port=port,
            threads=settings.workers + settings.queue + SPARE_THREADS,
            ident=None,
            max_request_body_size=largest,
            max_request_header_size=16 * 1024,
            # Above these waitress would write bodies to temporary files.
            inbuf_overflow=2 * largest,
            outbuf_overflow=2 * largest,
            channel_timeout=30,
        )
    except OSError as error:
        taken = error.errno == errno.EADDRINUSE
        why = "is in use; choose another with --port" if taken else f"cannot be used ({error.strerror or error})"
        raise BoneageError(f"port {port} of {settings.host} {why}") from error
    except ValueError as error:  # what waitress raises for a name that does not resolve
        raise BoneageError(f"no such address to listen at. Received: {settings.host}") from error
    for listener in listeners.values():
        listener.channel_class = _Channel
    return server


def serve(run: str | None, host: str, port: int, token: str | None, keep: Path | None, per_minute: float):
    """Load a model and bind a server around it; what is wrong with the settings is told before anything is loaded.

    Returns
    -------
    server, address
        `server.run()` answers until interrupted.
    """
    settings = Settings(token=token, keep=keep, per_minute=per_minute, host=host)
    from boneage.serving.predictor import Predictor

    server = open_server(Predictor(run), port, settings)
    port = getattr(server, "effective_port", port)  # a server on several sockets has none of its own
    return server, f"http://{f'[{host}]' if ':' in host else host}:{port}"
