"""How a DICOM node is set up: where it listens, where answers go, which images it answers."""

import ipaddress
import re
from dataclasses import dataclass
from pathlib import Path

from pydicom import Dataset

from boneage.errors import BoneageError

# Of an application entity (PS3.5 table 6.2-1); without "@", which ends it here.
TITLE = r"[!-?A-\[\]-~][ -?A-\[\]-~]{0,15}"


@dataclass(frozen=True)
class Peer:
    """Where answers go."""

    title: str
    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> "Peer":
        """`"PACS@192.0.2.5:104"`.

        Raises
        ------
        BoneageError
        """
        found = re.fullmatch(rf"({TITLE})@([^@\s]+):([0-9]{{1,5}})", text)
        if not found or not 0 < int(found[3]) < 65536:
            raise BoneageError(f"a peer is written TITLE@HOST:PORT, such as PACS@127.0.0.1:104. Received: {text!r}")
        return cls(found[1], found[2].strip("[]"), int(found[3]))


@dataclass(frozen=True)
class Wanted:
    """Which radiographs are answered: the modality fits, and the body part or a description does.

    Attributes
    ----------
    modalities
        Values of Modality (0008,0060).
    body_part
        Regular expression, searched for in Body Part Examined; case does not matter.
    description
        The same for the descriptions of study and series and the protocol's name.
    """

    modalities: tuple[str, ...] = ("CR", "DX")
    body_part: str = "hand|wrist"
    description: str = "bone.?age|hand|wrist"

    def __post_init__(self):
        for pattern in (self.body_part, self.description):
            try:
                re.compile(pattern)
            except re.error as error:
                raise BoneageError(f"not a regular expression ({error}). Received: {pattern!r}") from error

    def misses(self, header: Dataset) -> str | None:
        """None for a wanted image, else what about it is not wanted."""

        def matches(pattern: str, *keywords: str) -> bool:
            return any(re.search(pattern, str(header.get(word, "")), re.IGNORECASE) for word in keywords)

        if header.get("Modality") not in self.modalities:
            return "modality"
        described = ("StudyDescription", "SeriesDescription", "ProtocolName")
        fits = matches(self.body_part, "BodyPartExamined") or matches(self.description, *described)
        return None if fits else "body part"


@dataclass(frozen=True)
class Settings:
    """How a node is set up.

    Attributes
    ----------
    peer, spool
        Where answers go; where unfinished work lies.
    title, host, port
        What this node is called and where it listens.
    allow
        Titles that may send. None named: any may, which only a node that other machines cannot reach accepts.
    timeout
        Seconds that a sender or the peer may keep silent.
    first_delay, longest_delay
        Seconds until what failed is tried again; doubled each time, up to the longest.
    """

    peer: Peer
    spool: Path
    title: str = "BONEAGE"
    host: str = "127.0.0.1"
    port: int = 11112
    wanted: Wanted = Wanted()
    allow: tuple[str, ...] = ()
    timeout: float = 30
    first_delay: float = 2
    longest_delay: float = 300

    def __post_init__(self):
        for title in (self.title, *self.allow):
            if not re.fullmatch(TITLE, title):
                raise BoneageError(f"a title has 1 to 16 ASCII characters and no backslash. Received: {title!r}")
        if not self.allow and not _only_here(self.host):
            raise BoneageError(
                f"other machines can reach {self.host}: name those that may send (--allow), or listen on 127.0.0.1"
            )


def _only_here(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
