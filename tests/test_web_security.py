"""What a stranger may try, and what must never be stored or logged."""

import http.client
import io
import json
import logging
import re
import socket
import stat
import tempfile
import threading
import time
from pathlib import Path

import pytest
from fake_predictor import FakePredictor, dicom, png

from boneage.cli import cli
from boneage.errors import BoneageError
from boneage.web import serve
from boneage.web.app import create_app
from boneage.web.serve import open_server
from boneage.web.settings import Settings

ADDRESS = "/api/v1/predictions"
TOKEN = "a-token-that-is-long-enough"
JANE = {"PatientName": "Doe^Jane", "PatientID": "4711-0815", "PatientBirthDate": "20160504", "PatientSex": "F"}


def form(image=None, name="hand.png", **fields):
    return {"image": (io.BytesIO(png() if image is None else image), name), **fields}


@pytest.fixture
def client():
    return create_app(FakePredictor()).test_client()


@pytest.fixture
def guarded():
    return create_app(FakePredictor(), Settings(token=TOKEN, host="0.0.0.0")).test_client()


@pytest.mark.parametrize(
    "address", ["/", "/login", "/nowhere", "/healthz", "/static/boneage.js", "/api/v1/openapi.json"]
)
def test_every_answer_carries_the_security_headers(client, address):
    headers = client.get(address).headers
    policy = headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "script-src 'self';" in policy
    assert "unsafe" not in policy
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Referrer-Policy"] == "no-referrer"
    assert headers["Cache-Control"] == ("no-cache" if "static" in address else "no-store")


@pytest.mark.parametrize("address", ["/inspect", "/assess", "/login"])
def test_a_form_without_the_page_s_token_is_refused(client, address):
    client.get("/")
    assert client.post(address, data=form(sex="male")).status_code == 403
    assert client.post(address, data=form(sex="male"), headers={"X-CSRF-Token": "guess"}).status_code == 403


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_a_foreign_page_cannot_use_the_api_through_the_browser(client, site):
    assert client.post(ADDRESS, data=form(sex="male"), headers={"Sec-Fetch-Site": site}).status_code == 403
    assert client.post(ADDRESS, data=form(sex="male"), headers={"Sec-Fetch-Site": "same-origin"}).status_code == 200


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "localhost@evil.example", "[::2]", "a b"])
def test_a_local_server_answers_to_no_other_name(client, host):
    assert client.get("/", headers={"Host": host}).status_code == 400
    assert client.get("/", headers={"Host": "localhost:8000"}).status_code == 200


def test_page_and_api_ask_for_the_token(guarded):
    assert guarded.get("/").headers["Location"] == "/login"
    assert guarded.post("/assess").status_code == 401
    response = guarded.post(ADDRESS, data=form(sex="male"))
    assert response.status_code == 401
    assert response.headers["WWW-Authenticate"].startswith("Bearer")
    for wrong in ("Bearer wrong", "Bearer ", TOKEN[:-1], "Bearer é"):
        assert guarded.post(ADDRESS, data=form(sex="male"), headers={"Authorization": wrong}).status_code == 401
    right = {"Authorization": f"Bearer {TOKEN}"}
    assert guarded.post(ADDRESS, data=form(sex="male"), headers=right).status_code == 200


def test_the_token_opens_the_page_but_its_cookie_not_the_api(guarded):
    csrf = re.search('name="csrf" value="([^"]+)"', guarded.get("/login").text)[1]
    assert guarded.post("/login", data={"csrf": csrf, "token": "wrong"}).status_code == 401
    entered = guarded.post("/login", data={"csrf": csrf, "token": TOKEN})
    assert (entered.status_code, entered.headers["Location"]) == (303, "/")
    assert "HttpOnly" in entered.headers["Set-Cookie"]
    assert "SameSite=Strict" in entered.headers["Set-Cookie"]
    assert guarded.get("/").status_code == 200
    assert guarded.post(ADDRESS, data=form(sex="male")).status_code == 401


def test_guessing_the_token_is_slowed_down():
    slow = create_app(FakePredictor(), Settings(token=TOKEN, host="0.0.0.0", per_minute=1, burst=2)).test_client()
    csrf = re.search('name="csrf" value="([^"]+)"', slow.get("/login").text)[1]
    tried = [slow.post("/login", data={"csrf": csrf, "token": f"guess {i}"}).status_code for i in range(4)]
    assert tried == [401, 401, 429, 429]


def test_guessing_the_token_of_the_api_is_slowed_down():
    slow = create_app(FakePredictor(), Settings(token=TOKEN, host="0.0.0.0", per_minute=1, burst=2)).test_client()
    guesses = [{"Authorization": f"Bearer guess {i}"} for i in range(3)] + [{"Authorization": f"Bearer {TOKEN}"}]
    tried = [slow.post(ADDRESS, data=form(sex="male"), headers=guess).status_code for guess in guesses]
    assert tried == [401, 401, 429, 429]


def test_a_token_must_be_long_enough_to_protect():
    with pytest.raises(BoneageError, match="too short"):
        Settings(token="secret")


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2", "::1", "localhost"])
def test_this_machine_needs_no_token_and_is_answered_under_its_name(host):
    client = create_app(FakePredictor(), Settings(host=host)).test_client()
    named = f"[{host}]" if ":" in host else host
    assert client.get("/", headers={"Host": f"{named}:8000"}).status_code == 200


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.7", "hospital.example"])
def test_any_other_address_needs_a_token(host):
    with pytest.raises(BoneageError, match="needs a token"):
        Settings(host=host)


NASTY = ["../../etc/passwd", "a\r\nSet-Cookie: x=1", "{{ 7*7 }}", "<script>alert(1)</script>", "x" * 5000, "%00.png"]


@pytest.mark.parametrize("name", NASTY)
def test_file_names_and_fields_are_never_used_echoed_as_html_or_logged(client, name, caplog):
    caplog.set_level(logging.INFO)
    response = client.post(ADDRESS, data=form(name=name, sex="male"))
    assert response.status_code == (422 if "\n" in name else 200)  # a line break ends the part's own header
    refused = client.post(ADDRESS, data=form(sex=name))
    assert (refused.status_code, refused.mimetype) == (422, "application/problem+json")
    assert "Set-Cookie" not in response.headers
    assert "Set-Cookie" not in refused.headers
    assert name not in response.text + caplog.text
    assert "49" not in refused.get_json()["detail"]


@pytest.mark.parametrize(
    "path",
    ["/static/../serve.py", "/static/..%2f..%2fserve.py", "/static/%2e%2e/texts/en.toml", "/{{7*7}}"],
)
def test_paths_lead_nowhere_else(client, path, caplog):
    caplog.set_level(logging.INFO)
    response = client.get(path)
    assert response.status_code in (308, 404)
    assert path not in caplog.text
    assert "49" not in re.sub(r"\d{4,}", "", response.text)


def test_what_a_library_says_of_a_damaged_file_is_not_logged(client, caplog):
    """pydicom logs the value of a tag that it cannot make sense of."""
    sent = form(dicom(SpecificCharacterSet="Doe^Jane", PatientName="x"), sex="male")
    assert client.post(ADDRESS, data=sent).status_code == 200
    assert "Jane" not in caplog.text


def test_logs_hold_no_identifier(client, caplog):
    caplog.set_level(logging.DEBUG)
    client.post(ADDRESS, data=form(dicom(**JANE), name="Doe_Jane.dcm", chronological_age_months="97"))
    client.post(ADDRESS, data=form(dicom(**JANE)[:-100], name="Doe_Jane.dcm"))
    client.get("/Doe_Jane.dcm?id=4711-0815")
    lines = [re.sub(r" \d+ ms$", "", r.getMessage()) for r in caplog.records if r.name == "boneage.web"]
    assert lines == [f"POST {ADDRESS} 200", f"POST {ADDRESS} 422", "unknown address 404"]
    for secret in ("Doe", "4711", "2016", "97", "127.0.0.1"):
        assert secret not in caplog.text


def test_kept_are_image_and_answer_under_names_of_our_own(tmp_path):
    keeping = create_app(FakePredictor(), Settings(keep=tmp_path / "kept")).test_client()
    image = png()
    keeping.post(ADDRESS, data=form(image, name="../Doe_Jane.png", sex="male"))
    names = sorted(path.name for path in (tmp_path / "kept").iterdir())
    assert re.fullmatch(r"\d{8}T\d{6}Z-[0-9a-f]{8}\.json", names[0])
    assert names[1] == names[0].replace(".json", ".png")
    assert (tmp_path / "kept" / names[1]).read_bytes() == image
    assert json.loads((tmp_path / "kept" / names[0]).read_text())["months"] == 100.4
    assert {stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "kept").iterdir()} == {0o600}


@pytest.mark.parametrize("room", [0, 1], ids=["for nothing", "for the image only"])
def test_a_full_disk_is_told_without_where_and_nothing_stays(tmp_path, monkeypatch, room):
    left, write = [room], Path.write_bytes

    def full(path, data):
        if not left[0]:
            raise OSError(28, "No space left on device")
        left[0] -= 1
        return write(path, data)

    monkeypatch.setattr("pathlib.Path.write_bytes", full)
    keeping = create_app(FakePredictor(), Settings(keep=tmp_path / "kept")).test_client()
    response = keeping.post(ADDRESS, data=form(sex="male"))
    assert (response.status_code, response.get_json()["code"]) == (507, "not_kept")
    assert str(tmp_path) not in response.text
    assert list((tmp_path / "kept").iterdir()) == []


@pytest.fixture
def no_temporary_files(monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("an upload touched the disk")

    for name in ("TemporaryFile", "NamedTemporaryFile", "SpooledTemporaryFile", "mkstemp"):
        monkeypatch.setattr(tempfile, name, refuse)
    monkeypatch.setattr("werkzeug.formparser.SpooledTemporaryFile", refuse)


@pytest.fixture
def port():
    server = open_server(FakePredictor(), 0, Settings(max_bytes=8_000_000))
    threading.Thread(target=server.run, daemon=True).start()
    yield server.effective_port
    server.close()


def sent(port, image, **headers):
    edge = "edge"
    parts = f'--{edge}\r\nContent-Disposition: form-data; name="sex"\r\n\r\nmale\r\n--{edge}\r\n'
    parts += 'Content-Disposition: form-data; name="image"; filename="a.png"\r\n\r\n'
    body = parts.encode() + image + f"\r\n--{edge}--\r\n".encode()
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    connection.request("POST", ADDRESS, body, {"Content-Type": f"multipart/form-data; boundary={edge}", **headers})
    response = connection.getresponse()
    return response, json.loads(response.read())


def test_a_large_upload_stays_in_memory(no_temporary_files, port):
    response, answer = sent(port, png() + bytes(3_000_000))  # what follows a PNG's end is not read
    assert (response.status, answer["months"]) == (200, 100.4)
    response, answer = sent(port, png(1000, 800))
    assert (response.status, answer["months"]) == (200, 100.4)


def test_what_the_server_itself_refuses_is_a_problem_too(port):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    connection.putrequest("POST", ADDRESS)
    connection.putheader("Content-Length", "100000000")
    connection.endheaders()
    response = connection.getresponse()
    assert (response.status, response.headers["Content-Type"]) == (413, "application/problem+json")
    assert json.loads(response.read())["status"] == 413
    assert "Server" not in response.headers


def test_uploads_under_way_hold_a_part_of_the_memory_only(port, monkeypatch):
    monkeypatch.setattr(serve, "UPLOADS", 1_000_000)
    head = f"POST {ADDRESS} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2000000\r\n\r\n".encode()
    with socket.create_connection(("127.0.0.1", port)) as slow:  # nobody has asked it for a token yet
        slow.sendall(head + bytes(800_000))
        eventually(lambda: sum(r.body_bytes_received for r in serve._Request._alive) == 800_000)
        response, answer = sent(port, png() + bytes(300_000))
        assert (response.status, answer["code"], response.headers["Retry-After"]) == (503, "busy", "5")
    eventually(lambda: not sum(r.body_bytes_received for r in serve._Request._alive))
    assert sent(port, png() + bytes(300_000))[0].status == 200


def eventually(holds, seconds=20):
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_a_taken_port_is_told_in_one_line(port):
    with pytest.raises(BoneageError, match=f"port {port} of 127.0.0.1 is in use; choose another with --port"):
        open_server(FakePredictor(), port, Settings())


def test_the_command_tells_that_a_token_is_missing_before_it_loads_anything():
    with pytest.raises(BoneageError, match="needs a token; give --token or set BONEAGE_TOKEN"):
        cli.main(["serve", "--host", "0.0.0.0"], standalone_mode=False)
