"""The HTTP API answers as its OpenAPI document says, and every bad input gets one clear problem."""

import io
import threading

import hypothesis
import pytest
import schemathesis
from fake_predictor import MONTHS, FakePredictor, dicom, png
from schemathesis.checks import CHECKS
from schemathesis.transport.serialization import Binary

from boneage.serving.answer import Refused, Warning
from boneage.web.app import create_app
from boneage.web.limits import Later, Rate, Turns
from boneage.web.settings import Settings

ADDRESS = "/api/v1/predictions"
OPEN = {"per_minute": 1e6, "burst": 1_000_000}


def client(predictor=None, **settings):
    return create_app(predictor or FakePredictor(), Settings(**OPEN | settings)).test_client()


def send(client, image=None, **fields):
    image = png() if image is None else image
    return client.post(ADDRESS, data={"image": (io.BytesIO(image), "hand.png"), **fields})


def test_answer_has_bone_age_interval_and_growth():
    answer = send(client(), sex="male", chronological_age_months="86").get_json()
    assert (answer["months"], answer["text"]) == (MONTHS[True], "8 years 4 months")
    assert (answer["low"], answer["high"]) == (89.4, 112.4)
    assert answer["growth"]["difference_months"] == 14.4
    assert answer["growth"]["sd_score"] == pytest.approx(1.61)  # 14.4 / 8.942
    assert answer["notice"] == "Research use only, not a medical device."


def test_maps_are_not_computed_for_an_answer_without_pictures():
    predictor = FakePredictor()
    send(client(predictor), sex="female")
    assert predictor.asked == [(False, False)]


def test_sex_may_come_from_the_dicom_file():
    answer = send(client(), dicom(PatientSex="F")).get_json()
    assert answer["male"] is False
    assert answer["growth"] is None


CASES = {
    "empty file": (b"", {"sex": "male"}, 422, "unreadable"),
    "not an image": (b"GIF89a and so on", {"sex": "male"}, 415, "unsupported_media_type"),
    "truncated image": (png()[:-200], {"sex": "male"}, 422, "unreadable"),
    "wrong body part": (dicom(PatientSex="M", BodyPartExamined="KNEE"), {}, 422, "body_part"),
    "no sex": (png(), {}, 422, "sex_missing"),
    "no sex in the DICOM file either": (dicom(PatientSex="O"), {}, 422, "sex_missing"),
    "empty sex": (png(), {"sex": " "}, 422, "unknown_sex"),
    "sex O": (png(), {"sex": "O"}, 422, "unknown_sex"),
    "age of 45 years": (png(), {"sex": "male", "chronological_age_months": "540"}, 422, "bad_input"),
    "age in words": (png(), {"sex": "male", "chronological_age_months": "eight"}, 422, "bad_input"),
    "age that Python alone would read": (png(), {"sex": "male", "chronological_age_months": "1_0"}, 422, "bad_input"),
    "age twice": (png(), {"sex": "male", "chronological_age_months": ["90", "91"]}, 422, "bad_input"),
    "misspelt field": (png(), {"sex": "male", "chronological_age": "86"}, 422, "bad_input"),
}


@pytest.mark.parametrize(("image", "fields", "status", "code"), CASES.values(), ids=CASES.keys())
def test_bad_input_gets_one_clear_problem(image, fields, status, code):
    response = send(client(), image, **fields)
    assert response.mimetype == "application/problem+json"
    problem = response.get_json()
    assert (response.status_code, problem["status"], problem["code"]) == (status, status, code)
    assert problem["detail"].count("\n") == 0
    assert problem["title"]


def test_two_images_in_one_request_are_refused():
    two = {"image": [(io.BytesIO(png()), "a.png"), (io.BytesIO(png()), "b.png")], "sex": "male"}
    assert client().post(ADDRESS, data=two).get_json()["detail"].endswith("Files received: 2.")


def test_an_image_under_another_name_is_refused():
    response = client().post(ADDRESS, data={"file": (io.BytesIO(png()), "a.png"), "sex": "male"})
    assert (response.status_code, response.get_json()["code"]) == (422, "one_image")


def test_a_form_of_another_type_is_415():
    assert client().post(ADDRESS, json={"sex": "male"}).status_code == 415


def test_a_file_above_the_limit_is_413():
    response = send(client(max_bytes=100_000), png() + bytes(300_000), sex="male")
    assert (response.status_code, response.get_json()["code"]) == (413, "too_large")


def test_what_the_model_refuses_keeps_its_code():
    refused = FakePredictor(error=Refused("not_a_hand", "this does not look like a hand radiograph"))
    problem = send(client(refused), sex="male").get_json()
    assert (problem["status"], problem["code"]) == (422, "not_a_hand")


def test_what_nobody_expected_is_told_without_its_message(caplog):
    broken = FakePredictor(error=RuntimeError("tensor of Jane Doe has the wrong shape"))
    response = send(client(broken), sex="male")
    assert response.status_code == 500
    assert "Jane" not in response.text + caplog.text
    assert "unexpected RuntimeError at" in caplog.text
    assert "fake_predictor.py:" in caplog.text


class Held(FakePredictor):
    """Answers only when let go."""

    def __init__(self):
        super().__init__()
        self.go, self.started = threading.Event(), threading.Event()

    def __call__(self, *arguments, **named):
        self.started.set()
        assert self.go.wait(20)
        return super().__call__(*arguments, **named)


def test_full_queue_says_503_and_when_to_come_back():
    held, first = Held(), []
    app = create_app(held, Settings(**OPEN, workers=1, queue=0))
    waiting = threading.Thread(target=lambda: first.append(send(app.test_client(), sex="male")))
    waiting.start()
    assert held.started.wait(20)
    full = send(app.test_client(), sex="male")
    held.go.set()
    waiting.join()
    assert (full.status_code, full.get_json()["code"], first[0].status_code) == (503, "busy", 200)
    assert int(full.headers["Retry-After"]) >= 1
    assert send(app.test_client(), sex="male").status_code == 200


def test_waiting_longer_than_patience_is_503_and_frees_the_place():
    turns = Turns(workers=1, queue=1, patience=0.01)
    with turns.take(), pytest.raises(Later, match="busy"), turns.take():
        raise AssertionError("came in past the other")
    assert turns._inside == 0


def test_rate_is_a_token_bucket_for_each_address():
    now = [0.0]
    rate = Rate(per_minute=60, burst=2, clock=lambda: now[0])
    rate.take("a")
    rate.take("a")
    with pytest.raises(Later) as stopped:
        rate.take("a")
    assert (stopped.value.status, stopped.value.retry_after) == (429, 1)
    rate.take("b")
    now[0] = 1.0  # one token a second
    rate.take("a")
    with pytest.raises(Later):
        rate.take("a")


def test_of_an_ipv6_address_only_the_network_counts():
    rate = Rate(per_minute=1, burst=1)
    rate.take("2001:db8:0:1::1")
    with pytest.raises(Later):
        rate.take("2001:db8:0:1:ffff::2")
    rate.take("2001:db8:0:2::1")


@pytest.mark.parametrize(("months", "warned"), [("228", False), ("229", True)])
def test_an_age_given_beyond_the_atlas_is_warned_of(months, warned):
    answer = send(client(), sex="male", chronological_age_months=months).get_json()
    assert ([w["code"] for w in answer["warnings"]] == ["outside_ages"]) is warned


def test_an_age_given_counts_for_more_than_the_file_s():
    predictor = FakePredictor(warnings=(Warning("outside_ages", "45 years"), Warning("turned", "turned")))
    answer = send(client(predictor), sex="male", chronological_age_months="100").get_json()
    assert [w["code"] for w in answer["warnings"]] == ["turned"]


def test_too_many_requests_are_429():
    eager = create_app(FakePredictor(), Settings(per_minute=1, burst=1)).test_client()
    assert send(eager, sex="male").status_code == 200
    response = send(eager, sex="male")
    assert response.status_code == 429
    assert int(response.headers["Retry-After"]) > 30


def test_health_says_nothing_about_anybody():
    assert set(client().get("/healthz").get_json()) == {"status", "version"}


def test_wrong_method_names_the_right_one():
    response = client().get(ADDRESS)
    assert response.status_code == 405
    assert "POST" in response.headers["Allow"]


# A form of very many fields is refused by its size, 413, before anything is asked of what they hold.
REFUSALS = {"checks": {"negative_data_rejection": {"expected-statuses": [400, 401, 404, 405, 413, 415, 422]}}}
schema = schemathesis.openapi.from_wsgi(
    "/api/v1/openapi.json",
    create_app(FakePredictor(), Settings(**OPEN)),
    config=schemathesis.Config.from_dict(REFUSALS),
)
# No schema can say which bytes are a radiograph, so that valid requests may be refused: see the test after this one.
GUESSES = CHECKS.get_by_names(["positive_data_acceptance"])


@schema.parametrize()
@hypothesis.settings(max_examples=25, deadline=None, suppress_health_check=list(hypothesis.HealthCheck))
def test_every_answer_is_as_the_openapi_document_says(case):
    case.call_and_validate(excluded_checks=GUESSES)


@schema.include(path=ADDRESS).parametrize()
@hypothesis.settings(max_examples=25, deadline=None, suppress_health_check=list(hypothesis.HealthCheck))
def test_with_a_radiograph_every_answer_is_as_the_openapi_document_says(case):
    if isinstance(case.body, dict) and isinstance(case.body.get("image"), Binary):
        case.body["image"] = Binary(dicom(32, 24, PatientSex="F"))
    case.call_and_validate()
