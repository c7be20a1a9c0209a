"""Talking to other DICOM applications: what is accepted, what is sent, and no waiting for ever for anybody."""

import logging
import socket
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

from pydicom.pixels import get_decoder
from pydicom.uid import (
    AllTransferSyntaxes,
    ComputedRadiographyImageStorage,
    DeflatedExplicitVRLittleEndian,
    DigitalXRayImageStorageForPresentation,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)
from pynetdicom import AE, evt
from pynetdicom.association import Association
from pynetdicom.sop_class import ComprehensiveSRStorage, SecondaryCaptureImageStorage, Verification
from pynetdicom.status import code_to_category

from boneage.errors import BoneageError
from boneage.serving import door
from boneage.serving.dicom_settings import Settings

# Not Secondary Capture: a peer that forwards everything would send us our own pictures for ever.
ACCEPTED = (ComputedRadiographyImageStorage, DigitalXRayImageStorageForPresentation)
SENT = (ComprehensiveSRStorage, SecondaryCaptureImageStorage)
MAX_BYTES = 2 * door.MAX_BYTES  # of one received object: what is too large to be answered still learns so
MAX_PDU = 1 << 20  # bytes of one protocol data unit; we ask peers for 16 kB
MAX_ASSOCIATIONS = 10
OUT_OF_RESOURCES = 0xA700  # DICOM PS3.4, table B.2-1

log = logging.getLogger("boneage.dicom")


class Unreachable(Exception):
    """No connection, no association, or no answer in time: nothing else can be delivered now either."""


class Declined(Exception):
    """The peer answered, and did not take this object."""


def listen(settings: Settings, store: Callable[[evt.Event], int]) -> tuple[AE, int]:
    """Accept C-ECHO, and C-STORE of radiographs in transfer syntaxes that this installation can decode.

    Parameters
    ----------
    settings
        Title, address, who may send, and how long they may keep silent.
    store
        Called with each C-STORE event, in a thread of its association; returns the status.

    Returns
    -------
    The application entity, to shut down, and its port.

    Raises
    ------
    BoneageError
        When the port is taken, or the address is not this machine's.
    """
    entity = _entity(settings)
    entity.maximum_associations = MAX_ASSOCIATIONS
    entity.require_called_aet, entity.require_calling_aet = True, list(settings.allow)
    entity.add_supported_context(Verification)
    for kind in ACCEPTED:
        entity.add_supported_context(kind, decodable())
    handlers = [
        (evt.EVT_C_STORE, lambda event: OUT_OF_RESOURCES if _too_large(event.assoc) else store(event)),
        (evt.EVT_CONN_OPEN, _limit_connection),
        (evt.EVT_DATA_RECV, _limit_size),
        (evt.EVT_DIMSE_RECV, _message_ended),
    ]
    try:
        server = entity.start_server((settings.host, settings.port), block=False, evt_handlers=handlers)
    except OSError as error:
        raise BoneageError(
            f"cannot listen on {settings.host}:{settings.port} ({error.strerror}); "
            "if another node runs there, stop it or choose another --port"
        ) from error
    return entity, server.server_address[1]


def decodable() -> list[str]:
    """UIDs of the transfer syntaxes whose pixels can be decoded here; any other is rejected when it is proposed."""
    syntaxes = []
    for uid in AllTransferSyntaxes:
        if uid == DeflatedExplicitVRLittleEndian:  # which the door refuses: a few kB may unpack to GB
            continue
        with suppress(NotImplementedError):  # films, sound, references
            if get_decoder(uid).is_available:
                syntaxes.append(uid)
    return syntaxes


def close(entity: AE) -> None:
    """Stop accepting, and hang up on everybody: a sender without its confirmation sends again."""
    for association in entity.active_associations:
        _hang_up(association)
    entity.shutdown()


def deliver(files: Iterable[Path], settings: Settings, delivered: Callable[[Path], object]) -> None:
    """Send objects to the peer; `delivered` is called with each as soon as the peer has confirmed it.

    Raises
    ------
    Unreachable
        The rest is not sent.
    Declined
        The peer did not take one of them, or more; the others are delivered.
    """
    entity, peer = _entity(settings), settings.peer
    for kind in SENT:
        entity.add_requested_context(kind, [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
    association = entity.associate(
        peer.host, peer.port, ae_title=peer.title, evt_handlers=[(evt.EVT_CONN_OPEN, _limit_connection)]
    )
    if not association.is_established:
        rejected = "the peer rejects us; it must know our title, and accept Comprehensive SR and Secondary Capture"
        raise Unreachable(rejected if association.is_rejected else "no connection")
    declined = None
    try:
        for file in files:
            try:
                _send(association, file)
            except Declined as error:  # the report is no reason to keep the picture back
                declined = error
            else:
                delivered(file)
    finally:
        if association.is_established:
            association.release()
    if declined:
        raise declined


def _send(association: Association, file: Path) -> None:
    try:
        response = association.send_c_store(file)
    except ValueError as error:  # no presentation context for it
        raise Declined("it does not accept objects of this kind") from error
    except RuntimeError as error:
        raise Unreachable("the connection was lost") from error
    if "Status" not in response:
        raise Unreachable("no answer in time, or the connection was lost")
    if code_to_category(response.Status) not in ("Success", "Warning"):
        raise Declined(f"status 0x{response.Status:04X}")


def _entity(settings: Settings) -> AE:
    entity = AE(settings.title)
    entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = settings.timeout
    entity.connection_timeout = settings.timeout
    return entity


def _limit_connection(event: evt.Event) -> None:
    """When a connection opens: left alone, it waits for ever for the rest of a message, or for room to send one, and
    reads all of the 4 GB that a header may claim before anybody is asked."""
    stream = event.assoc.dul.socket
    stream.socket.settimeout(event.assoc.network_timeout)
    receive = stream.recv

    def bounded(count: int) -> bytes:
        if count > MAX_PDU:
            log.warning("hung up on a sender whose message claims %d MB", count >> 20)
            _hang_up(event.assoc)
            raise ConnectionAbortedError
        return receive(count)

    stream.recv = bounded


def _limit_size(event: evt.Event) -> None:
    """When data arrive: hang up on a sender whose object grows beyond all radiographs."""
    event.assoc.boneage_bytes = getattr(event.assoc, "boneage_bytes", 0) + len(event.data)
    if event.assoc.boneage_bytes > MAX_BYTES:
        log.warning("hung up on a sender whose object exceeds %d MB", MAX_BYTES >> 20)
        event.assoc.boneage_too_large = True  # its last bytes may be here before the closed connection is noticed
        _hang_up(event.assoc)


def _too_large(association: Association) -> bool:
    return getattr(association, "boneage_too_large", False)


def _hang_up(association: Association) -> None:
    with suppress(OSError, AttributeError):  # closed already
        association.dul.socket.socket.shutdown(socket.SHUT_RDWR)


def _message_ended(event: evt.Event) -> None:
    event.assoc.boneage_bytes = 0
