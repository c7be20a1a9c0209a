"""A short `make fuzz`: spoilt files through the door and the HTTP API are answered or refused."""

import pytest
from fuzz import FORMS, GOOD_FORM, application, outcome
from fuzz_files import files, spoilt
from hypothesis import HealthCheck, given, settings
from serving_run import exported  # noqa: F401

from boneage.serving import Predictor

KINDS = sorted(files())
pytestmark = pytest.mark.filterwarnings("ignore")  # of libraries, about what was spoilt


@pytest.fixture(scope="module")
def client(exported):  # noqa: F811
    return application(Predictor(exported))


@pytest.mark.parametrize("kind", KINDS)
def test_the_files_are_sound_before_they_are_spoilt(client, kind):
    assert outcome(client, files()[kind], GOOD_FORM) == "answered"


@settings(max_examples=200, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=spoilt(), form=FORMS)
def test_spoilt_files_are_answered_or_refused(client, data, form):
    assert outcome(client, data, form)
