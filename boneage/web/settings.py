"""What an operator of the server may choose, checked before anything opens."""

import ipaddress
import os
import secrets
from dataclasses import dataclass, field
from pathlib import Path

from boneage.errors import BoneageError
from boneage.serving.door import MAX_BYTES

SHORTEST_TOKEN = 16  # characters
LOCAL_NAMES = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True)
class Settings:
    """How the server behaves.

    Attributes
    ----------
    token
        The secret that every client must show; None: none is asked for.
    keep
        Folder where uploads and answers are kept; None: nothing is.
    per_minute, burst
        Images an address may send in the long run, and at once.
    workers, queue
        Images assessed at the same time, and waiting; the next gets 503.
    max_bytes
        Largest image file in bytes; the whole request may be a little larger.
    host
        Address to listen on. One of this machine only is answered under no other name, which stops DNS rebinding.
    secret
        Signs the session cookie; new with every start.
    """

    token: str | None = None
    keep: Path | None = None
    per_minute: float = 120
    burst: int = 40
    workers: int = field(default_factory=lambda: min(4, os.cpu_count() or 1))
    queue: int = 14
    max_bytes: int = MAX_BYTES
    host: str = "127.0.0.1"
    secret: bytes = field(default_factory=lambda: secrets.token_bytes(32), repr=False)

    def __post_init__(self):
        if self.token is not None and len(self.token) < SHORTEST_TOKEN:
            raise BoneageError(
                f"the token is too short to protect anything; expected at least {SHORTEST_TOKEN} characters, "
                "as `python -c 'import secrets; print(secrets.token_urlsafe())'` makes"
            )
        if self.names is None and self.token is None:
            raise BoneageError(
                "other machines can reach this address, so it needs a token; give --token or set BONEAGE_TOKEN"
            )

    @property
    def names(self) -> tuple[str, ...] | None:
        """The host names that are answered: None, any, where other machines can reach the server."""
        bare = self.host.strip("[]")
        try:
            local = ipaddress.ip_address(bare).is_loopback
        except ValueError:
            local = bare == "localhost"
        return (*LOCAL_NAMES, bare) if local else None
