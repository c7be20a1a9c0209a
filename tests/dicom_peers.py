"""The DICOM node among programs that others wrote: dcmtk, Orthanc and dciodvfy. Run by `make test-dicom`.

Not collected by `make test`, which must pass on a machine without them.
"""

import json
import shutil
import subprocess
import urllib.request
from pathlib import Path

import pytest
from dicom_hands import ROOT, STUDY_UID, eventually, free_port, hand_dicom, listens, node_process

pytestmark = pytest.mark.peers
RECEIVER = ("dcmrecv", "-xf", "/etc/dcmtk/storescp.cfg", "Default", "-od")  # by itself it accepts C-ECHO only
PROGRAMS = ("echoscu", "storescu", "dcmrecv", "dsrdump", "dcmcjpeg", "dcmcjpls", "dcmcrle", "dciodvfy", "Orthanc")


def run(*command: object) -> str:
    """Run a program that must succeed; all it says."""
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture(scope="module", autouse=True)
def programs():
    missing = [program for program in PROGRAMS if not shutil.which(program)]
    assert not missing, f"missing {missing}: apt-get install --no-install-recommends dcmtk orthanc dicom3tools"


@pytest.fixture
def background():
    """`background(port, *command)`: a program that listens; ended after the test."""
    started = []

    def make(port: int, *command: object) -> subprocess.Popen:
        started.append(
            subprocess.Popen([str(part) for part in command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        )
        eventually(lambda: listens(port), 180)
        return started[-1]

    yield make
    for child in started:
        child.kill()
        child.wait()


@pytest.fixture
def start(tmp_path):
    """`start(peer)`: a node of its own process whose answers go to port `peer`; its port."""
    started = []

    def make(peer: int) -> int:
        port = free_port()
        started.append(node_process(tmp_path / "spool", peer, port))
        return port

    yield make
    for child in started:
        child.kill()
        child.wait()


@pytest.fixture
def image(tmp_path) -> Path:
    file = tmp_path / "hand.dcm"
    file.write_bytes(hand_dicom())
    return file


def store(port: int, *what: object) -> str:
    return run("storescu", "-v", "-aec", "BONEAGE", "127.0.0.1", port, *what)


def received(tmp_path: Path) -> dict[str, Path]:
    """What dcmrecv got, by the first letters that it gives a kind of object, once the node has finished."""
    eventually(lambda: list((tmp_path / "spool" / "done").iterdir()), 180)
    return {file.name.partition(".")[0]: file for file in (tmp_path / "inbox").iterdir()}


def test_dcmtk_sends_to_it_and_receives_from_it_and_finds_the_bone_age(tmp_path, background, start, image):
    inbox, peer = tmp_path / "inbox", free_port()
    inbox.mkdir()
    background(peer, *RECEIVER, inbox, peer)
    port = start(peer)
    run("echoscu", "-aec", "BONEAGE", "127.0.0.1", port)
    assert "Success" in store(port, image)
    files = received(tmp_path)
    report = run("dsrdump", files["SRc"])
    assert '(,,"XR Bone age")="100.3" (mo,UCUM,"month")' in report
    assert '(,,"+, range of upper measurement uncertainty")="12.2" (mo,UCUM,"month")' in report
    assert "Zyxw^Quirin (M, 2011-02-03, #PID-7731)" in report


def test_dciodvfy_finds_no_error(tmp_path, background, start, image):
    inbox, peer = tmp_path / "inbox", free_port()
    inbox.mkdir()
    background(peer, *RECEIVER, inbox, peer)
    store(start(peer), image)
    for file in received(tmp_path).values():
        said = subprocess.run(["dciodvfy", "-new", file], capture_output=True, text=True)
        assert "Error" not in said.stdout + said.stderr
        assert said.returncode == 0


@pytest.mark.parametrize(
    ("compress", "proposed"),
    [(("dcmcjpeg", "+e1"), "-xs"), (("dcmcjpeg", "+eb"), "-xy"), (("dcmcjpls",), "-xt"), (("dcmcrle",), "-xr")],
    ids=["JPEG lossless", "JPEG baseline", "JPEG-LS", "RLE"],
)
def test_it_reads_what_dcmtk_compresses(tmp_path, background, start, image, compress, proposed):
    inbox, peer, small = tmp_path / "inbox", free_port(), tmp_path / "small.dcm"
    inbox.mkdir()
    background(peer, *RECEIVER, inbox, peer)
    run(*compress, image, small)
    assert "Success" in store(start(peer), proposed, small)
    assert len(received(tmp_path)) == 2


def test_orthanc_files_the_answers_with_the_study_and_a_repetition_changes_nothing(tmp_path, background, start, image):
    dicom, http = free_port(), free_port()
    settings = {
        "Name": "test", "StorageDirectory": str(tmp_path / "db"), "IndexDirectory": str(tmp_path / "db"),
        "DicomAet": "ARCHIVE", "DicomPort": dicom, "HttpPort": http, "RemoteAccessAllowed": False,
        "AuthenticationEnabled": False,
    }  # fmt: skip
    (tmp_path / "orthanc.json").write_text(json.dumps(settings))
    background(http, shutil.which("Orthanc"), tmp_path / "orthanc.json")
    eventually(lambda: listens(dicom), 180)

    def ask(path: str):
        with urllib.request.urlopen(f"http://127.0.0.1:{http}{path}", timeout=30) as answer:
            return json.load(answer)

    run("storescu", "-aec", "ARCHIVE", "127.0.0.1", dicom, image)
    port = start(dicom)
    store(port, image)
    eventually(lambda: ask("/statistics")["CountInstances"] == 3, 180)
    assert [ask("/statistics")[f"Count{what}"] for what in ("Patients", "Studies", "Series")] == [1, 1, 3]
    (study,) = ask("/studies?expand")
    assert study["MainDicomTags"]["StudyInstanceUID"] == STUDY_UID
    assert sorted(ask(f"/series/{series}")["MainDicomTags"]["Modality"] for series in study["Series"]) == [
        "CR",
        "OT",
        "SR",
    ]

    done = tmp_path / "spool" / "done"
    eventually(lambda: list(done.iterdir()), 180)  # the archive may count the last object before the node notes it
    next(done.iterdir()).unlink()  # forget that it was answered: the same objects go out again
    store(port, image)
    eventually(lambda: list(done.iterdir()), 180)
    assert ask("/statistics")["CountInstances"] == 3


def test_what_an_absent_dcmrecv_misses_comes_when_it_is_there(tmp_path, background, start, image):
    inbox, peer = tmp_path / "inbox", free_port()
    inbox.mkdir()
    port = start(peer)
    second = tmp_path / "second.dcm"
    second.write_bytes(hand_dicom(uid=f"{ROOT}.99"))
    store(port, image, second)
    eventually(lambda: len(list((tmp_path / "spool" / "answers").iterdir())) == 2, 180)
    background(peer, *RECEIVER, inbox, peer)
    eventually(lambda: len(list(inbox.iterdir())) == 4, 180)
