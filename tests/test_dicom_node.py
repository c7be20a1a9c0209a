"""The DICOM node among peers of this process: what goes in, what comes out, and what must never be lost or told."""

import logging
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress

import pydicom
import pytest
from dicom_hands import (
    IDENTIFIERS,
    ROOT,
    FakePredictor,
    FreezingProxy,
    Receiver,
    eventually,
    free_port,
    hand_dicom,
    node_process,
    send,
)
from pydicom.uid import DeflatedExplicitVRLittleEndian, JPEGLSLossless, RLELossless
from pynetdicom import AE
from pynetdicom.sop_class import ComprehensiveSRStorage, ComputedRadiographyImageStorage, Verification
from serving_run import exported  # noqa: F401

from boneage.errors import BoneageError
from boneage.serving import dicom_queue, dicom_wire
from boneage.serving.dicom_node import Node
from boneage.serving.dicom_settings import Peer, Settings, Wanted
from boneage.serving.predictor import Predictor


@pytest.fixture
def receiver():
    made = Receiver()
    yield made
    made.stop()


@pytest.fixture
def predictor() -> FakePredictor:
    return FakePredictor()


@pytest.fixture
def start(tmp_path, predictor):
    """`start(peer_port, **settings)`: a running node and its port; stopped at the end."""
    nodes = []

    def make(peer_port: int, predictor=predictor, **changes) -> tuple[Node, int]:
        settings = {"spool": tmp_path / "spool", "port": 0, "timeout": 30, "first_delay": 0.05, "longest_delay": 0.2}
        node = Node(Settings(peer=Peer("ARCHIVE", "127.0.0.1", peer_port), **(settings | changes)))
        nodes.append(node)
        port = node.listen()
        node.start(predictor)
        return node, port

    yield make
    for node in nodes:
        node.stop()


def finished(node: Node) -> list[str]:
    """How each case ended, without its time."""
    return [file.read_text().strip().partition(" ")[2] for file in (node.spool.folder / "done").glob("[!.]*.txt")]


# -- in


def test_echo_is_answered(start, receiver):
    _, port = start(receiver.port)
    entity = AE("MODALITY")
    entity.add_requested_context(Verification)
    association = entity.associate("127.0.0.1", port, ae_title="BONEAGE")
    assert association.send_c_echo().Status == 0x0000
    association.release()


def test_a_radiograph_comes_back_as_report_and_picture_of_its_study(start, receiver):
    node, port = start(receiver.port)
    assert send(port, hand_dicom()) == 0x0000
    eventually(lambda: finished(node) == ["answered and delivered"])
    report, picture = receiver.objects
    assert (report.Modality, picture.Modality) == ("SR", "OT")
    assert report.StudyInstanceUID == picture.StudyInstanceUID == f"{ROOT}.13"
    assert not list(node.spool.folder.rglob("*.dcm"))  # nothing is kept


@pytest.mark.parametrize("syntax", [RLELossless, JPEGLSLossless])
def test_compressed_images_are_read(start, receiver, syntax):
    node, port = start(receiver.port)
    assert send(port, hand_dicom(syntax=syntax)) == 0x0000
    eventually(lambda: finished(node) == ["answered and delivered"])


def test_what_cannot_be_decoded_is_not_even_negotiated(start, receiver):
    """PS3.8 section 9.3.3.2: result 3, abstract syntax not supported; 4, transfer syntaxes not supported."""
    _, port = start(receiver.port)
    entity = AE("MODALITY")
    entity.add_requested_context(ComputedRadiographyImageStorage, "1.2.840.10008.1.2.4.100")  # an MPEG2 film
    entity.add_requested_context(ComprehensiveSRStorage)
    entity.add_requested_context(ComputedRadiographyImageStorage, "1.2.840.10008.1.2.1")
    association = entity.associate("127.0.0.1", port, ae_title="BONEAGE")
    results = {context.abstract_syntax: context.result for context in association.rejected_contexts}
    association.release()
    assert results == {ComputedRadiographyImageStorage: 4, ComprehensiveSRStorage: 3}


@pytest.mark.parametrize(
    ("attributes", "wanted"),
    [
        ({}, True),
        ({"Modality": "DX"}, True),
        ({"Modality": "MR"}, False),
        ({"BodyPartExamined": "FOOT", "StudyDescription": "Foot ap"}, False),
        ({"BodyPartExamined": None, "StudyDescription": "Li. Hand dp"}, True),
        ({"BodyPartExamined": None, "StudyDescription": None, "SeriesDescription": "BONE AGE"}, True),
        ({"BodyPartExamined": None, "StudyDescription": None}, False),
    ],
)
def test_the_filter(attributes, wanted):
    header = pydicom.dcmread(pydicom.filebase.DicomBytesIO(hand_dicom(**attributes)))
    assert (Wanted().misses(header) is None) == wanted


def test_an_unwanted_image_is_confirmed_and_dropped(start, receiver, predictor):
    node, port = start(receiver.port, wanted=Wanted(("CR",), "hand", "hand"))
    assert send(port, hand_dicom(BodyPartExamined="CHEST", StudyDescription="Thorax")) == 0x0000
    assert (node.spool.waiting(), finished(node), predictor.asked) == ([], [], 0)


def test_a_data_set_without_its_uids_is_refused(start, receiver):
    node, port = start(receiver.port)
    assert send(port, hand_dicom(StudyInstanceUID=None)) == 0xA900
    assert node.spool.waiting() == []


def test_a_damaged_data_set_is_refused(start, receiver, monkeypatch):
    node, port = start(receiver.port)
    monkeypatch.setattr("pynetdicom.association.encode", lambda *_: b"\x08\x00\x05\x00CSnonsense" * 3)
    assert send(port, hand_dicom()) in (0xC000, 0xA900)
    assert node.spool.waiting() == []


def test_a_full_disk_refuses_the_image_and_takes_it_later(start, receiver, monkeypatch):
    node, port = start(receiver.port)

    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(dicom_queue, "_flush", full)
        assert send(port, hand_dicom()) == 0xA700
    assert node.spool.waiting() == []
    assert send(port, hand_dicom()) == 0x0000
    eventually(lambda: finished(node))


def test_only_named_senders_are_let_in_and_only_to_the_right_title(start, receiver):
    _, port = start(receiver.port, allow=("CRROOM1",), timeout=2)
    assert send(port, hand_dicom(), calling="CRROOM1") == 0x0000
    assert send(port, hand_dicom(), calling="STRANGER") is None
    assert send(port, hand_dicom(), calling="CRROOM1", called="OTHER") is None


def test_a_sender_that_hangs_or_floods_is_hung_up_on_and_others_are_served(start, receiver, monkeypatch):
    monkeypatch.setattr(dicom_wire, "MAX_BYTES", 20_000)
    node, port = start(receiver.port, timeout=1)
    with socket.create_connection(("127.0.0.1", port)) as silent, socket.create_connection(("127.0.0.1", port)) as half:
        half.sendall(b"\x01\x00\x00\x00\x10\x00" + b"\x00" * 100)  # an association request that never ends
        assert send(port, hand_dicom()) is None  # 29 kB
        assert node.spool.waiting() == []
        for connection in (silent, half):
            connection.settimeout(20)
            assert connection.recv(100) in (b"", b"\x07\x00\x00\x00\x00\x04\x00\x00\x00\x00")  # closed, or A-ABORT
    monkeypatch.setattr(dicom_wire, "MAX_BYTES", 200_000)
    assert send(port, hand_dicom()) == 0x0000


@pytest.mark.parametrize("kind", [b"\x01", b"\x04"], ids=["association request", "data"])
def test_a_header_that_claims_gigabytes_is_hung_up_on_before_they_are_read(start, receiver, kind):
    _, port = start(receiver.port)
    with socket.create_connection(("127.0.0.1", port)) as flood:
        flood.settimeout(20)
        flood.sendall(kind + b"\x00" + (0xFFFFFFF0).to_bytes(4))
        with suppress(ConnectionResetError):
            assert flood.recv(100) == b""  # closed, with not one of them sent
    assert send(port, hand_dicom()) == 0x0000


def test_an_object_too_large_is_not_kept_even_when_hanging_up_comes_too_late(start, receiver, monkeypatch):
    monkeypatch.setattr(dicom_wire, "MAX_BYTES", 20_000)
    monkeypatch.setattr(dicom_wire, "_hang_up", lambda association: None)
    node, port = start(receiver.port)
    assert send(port, hand_dicom()) == 0xA700  # 29 kB
    assert node.spool.waiting() == []


def test_what_the_door_refuses_is_turned_down_when_it_is_proposed():
    assert DeflatedExplicitVRLittleEndian not in dicom_wire.decodable()
    assert RLELossless in dicom_wire.decodable()


# -- answering


@pytest.mark.parametrize("sex", ["O", None])
def test_a_refused_image_sends_nothing_and_the_reason_stays_in_the_spool(start, receiver, caplog, sex):
    node, port = start(receiver.port)
    caplog.set_level(logging.INFO, "boneage.dicom")
    assert send(port, hand_dicom(PatientSex=sex)) == 0x0000
    eventually(lambda: finished(node))
    assert finished(node) == [f"refused (sex_missing): sex missing: found {sex!r}, expected M or F"]
    assert receiver.objects == []
    eventually(lambda: "refused (sex_missing); the reason is in done/" in caplog.text)
    assert "M or F" not in caplog.text  # a reason may quote the file; its code cannot


def test_a_program_error_is_tried_thrice_and_loses_nothing(start, receiver):
    def broken(data, male, **_):
        raise ZeroDivisionError

    node, port = start(receiver.port, predictor=broken)
    send(port, hand_dicom())
    (kept,) = eventually(lambda: list((node.spool.folder / "failed").glob("*.dcm")))
    assert pydicom.dcmread(kept).SOPInstanceUID == f"{ROOT}.11"
    assert (finished(node), receiver.objects) == ([], [])


def test_a_disk_that_is_full_for_the_answer_only_delays_it(start, receiver, predictor, monkeypatch):
    node, port = start(receiver.port)
    answer, refusals = node.spool.answer, []

    def full_for_a_while(key, objects):
        if len(refusals) < 5:
            refusals.append(key)
            raise BoneageError("could not write (No space left on device)")
        answer(key, objects)

    monkeypatch.setattr(node.spool, "answer", full_for_a_while)
    send(port, hand_dicom())
    eventually(lambda: finished(node) == ["answered and delivered"])
    assert predictor.asked == 6


# -- out


def test_the_same_image_sent_again_is_answered_once(start, receiver, predictor, tmp_path):
    node, port = start(receiver.port)
    for _ in range(3):
        assert send(port, hand_dicom()) == 0x0000
    eventually(lambda: finished(node))
    node.stop()
    _, port = start(receiver.port)  # and after a restart
    assert send(port, hand_dicom()) == 0x0000
    assert (predictor.asked, len(receiver.objects)) == (1, 2)


def test_an_unreachable_peer_gets_everything_once_it_is_back(start, predictor):
    peer_port = free_port()
    node, port = start(peer_port)
    for number in range(3):
        assert send(port, hand_dicom(uid=f"{ROOT}.{number}")) == 0x0000
    eventually(lambda: len(node.spool.answers()) == 3)
    receiver = Receiver(peer_port)
    eventually(lambda: len(finished(node)) == 3)
    receiver.stop()
    assert len(receiver.uids()) == len(set(receiver.uids())) == 6
    assert predictor.asked == 3


@pytest.mark.parametrize("after", [0, 1_000, 300_000])
def test_a_peer_that_freezes_at_any_point_loses_nothing_and_holds_up_nobody(start, receiver, after):
    """0: before the association; 1,000 bytes: in its first object; 300,000: in the picture, when no more is read."""
    with FreezingProxy(receiver.port, after) as proxy:
        node, port = start(proxy.port, timeout=1)
        assert send(port, hand_dicom()) == 0x0000
        eventually(lambda: proxy.frozen.is_set() and node._failures["peer"])
        assert send(port, hand_dicom(uid=f"{ROOT}.2")) == 0x0000
        eventually(lambda: len(node.spool.answers()) == 2)
        node.stop()
    node, _ = start(receiver.port)
    eventually(lambda: len(finished(node)) == 2)
    assert len(set(receiver.uids())) == 4


@pytest.mark.parametrize("status", [0xA700, 0x0122, 0xC123])
def test_what_the_peer_declines_is_offered_again_and_delays_no_other(start, status):
    receiver = Receiver(statuses=(status, 0x0000, status, 0x0000))
    node, port = start(receiver.port)
    send(port, hand_dicom())
    send(port, hand_dicom(uid=f"{ROOT}.2"))
    eventually(lambda: len(finished(node)) == 2)
    receiver.stop()
    assert len(receiver.uids()) == len(set(receiver.uids())) == 4


def test_a_report_that_is_declined_does_not_hold_back_the_picture(start):
    receiver = Receiver(statuses=(0xA700, 0x0000))
    node, port = start(receiver.port)
    send(port, hand_dicom())
    eventually(lambda: len(finished(node)) == 1)
    receiver.stop()
    assert [item.Modality for item in receiver.objects] == ["OT", "SR"]


def test_repetitions_grow_rarer_up_to_a_limit(tmp_path):
    node = Node(Settings(Peer("A", "127.0.0.1", 1), tmp_path, first_delay=2, longest_delay=20))
    assert [node._postpone("peer") for _ in range(6)] == [2, 4, 8, 16, 20, 20]
    node._forgive("peer")
    assert node._postpone("peer") == 2


def test_a_true_model_answers_through_the_node(start, receiver, exported):  # noqa: F811
    predictor = Predictor(exported)
    expected = predictor(hand_dicom(), None)
    _, port = start(receiver.port, predictor)
    assert send(port, hand_dicom()) == 0x0000
    eventually(lambda: len(receiver.objects) == 2)
    report = next(item for item in receiver.objects if item.Modality == "SR")
    told = [float(e.value) for e in report.iterall() if e.keyword == "NumericValue"]
    assert round(expected.months, 1) in told
    assert expected.model in str(report)


# -- settings


def test_other_machines_are_let_in_only_by_name(tmp_path):
    peer = Peer("A", "127.0.0.1", 104)
    with pytest.raises(BoneageError, match="--allow"):
        Settings(peer, tmp_path, host="0.0.0.0")
    assert Settings(peer, tmp_path, host="0.0.0.0", allow=("CRROOM1",)).allow == ("CRROOM1",)


@pytest.mark.parametrize("title", ["", " A", "X" * 17, "A\\B", "Ä"])
def test_titles_that_dicom_does_not_have_are_explained(tmp_path, title):
    peer = Peer("A", "127.0.0.1", 104)
    with pytest.raises(BoneageError, match="1 to 16 ASCII"):
        Settings(peer, tmp_path, title=title)
    with pytest.raises(BoneageError, match="1 to 16 ASCII"):
        Settings(peer, tmp_path, allow=(title,))


@pytest.mark.parametrize(
    ("text", "peer"),
    [("PACS@10.0.0.5:104", ("PACS", "10.0.0.5", 104)), ("A B@[::1]:11112", ("A B", "::1", 11112))],
)
def test_a_peer_is_written_title_host_port(text, peer):
    parsed = Peer.parse(text)
    assert (parsed.title, parsed.host, parsed.port) == peer


@pytest.mark.parametrize("text", ["PACS", "PACS@host", "@host:1", "PACS@host:0", "PACS@host:65536", "X" * 17 + "@h:1"])
def test_anything_else_is_explained(text):
    with pytest.raises(BoneageError, match="TITLE@HOST:PORT"):
        Peer.parse(text)


def test_a_bad_pattern_is_explained():
    with pytest.raises(BoneageError, match="regular expression"):
        Wanted(body_part="(hand")


# -- the process


@pytest.fixture
def process(tmp_path):
    """`process(peer=, port=, seconds=)`: a node in a process of its own that listens."""
    started = []

    def make(**asked) -> subprocess.Popen:
        started.append(node_process(tmp_path / "spool", **asked))
        return started[-1]

    yield make
    for child in started:
        child.kill()
        child.wait()


def test_the_log_of_a_process_has_no_identifiers(process, receiver, tmp_path):
    port = free_port()
    child = process(peer=receiver.port, port=port)
    with pydicom.config.disable_value_validation():
        odd = hand_dicom(uid=f"{ROOT}.2", PatientName="Zyxw", PatientBirthDate="20110203x", StudyID="S77" * 30)
        send(port, odd)
    send(port, hand_dicom())
    send(port, hand_dicom(uid=f"{ROOT}.3", PatientSex="O"))
    send(port, hand_dicom(uid=f"{ROOT}.4", BodyPartExamined="FOOT", StudyDescription="Zyxw"))
    send(port, hand_dicom(StudyInstanceUID=None))
    eventually(lambda: len(list((tmp_path / "spool" / "done").glob("*.txt"))) == 3)
    child.send_signal(signal.SIGTERM)
    said, _ = child.communicate(timeout=60)
    assert child.returncode == 0
    for event in ("listens on", "received", "ignored: body part", "refused", "answered", "delivered", "stopping"):
        assert event in said
    assert not [word for word in IDENTIFIERS if word in said]
    assert "Traceback" not in said


@pytest.mark.slow
def test_killed_again_and_again_it_answers_everything_once(process, receiver, tmp_path):
    port, sent = free_port(), [f"{ROOT}.{number}" for number in range(4)]
    for number, uid in enumerate(sent):
        child = process(peer=receiver.port, port=port, seconds=0.15)
        assert send(port, hand_dicom(uid=uid)) == 0x0000
        time.sleep(0.2 * number)  # before, during and after the answer
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
    process(peer=receiver.port, port=port)
    eventually(lambda: len(list((tmp_path / "spool" / "done").glob("*.txt"))) == len(sent))
    assert len(set(receiver.uids())) == 2 * len(sent)  # what went out twice did so as the same object


def test_a_second_node_says_so_in_one_line(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        command = ["dicom-node", "--peer", "ARCHIVE@127.0.0.1:104", "--port", str(port), "--spool", str(tmp_path / "s")]
        ended = subprocess.run([sys.executable, "-m", "boneage", *command], capture_output=True, text=True)
    assert ended.returncode == 2
    assert ended.stderr.count("\n") == 1
    assert f"cannot listen on 127.0.0.1:{port}" in ended.stderr
