"""The page: pieces of HTML that hold the answer, in texts from one catalogue, with the notice on all of them."""

import base64
import io
import json
import re
from importlib.resources import files

import cv2
import numpy as np
import pytest
from fake_predictor import FakePredictor, dicom, png

from boneage.serving.answer import NOTICE, Warning
from boneage.texts import catalogue
from boneage.web import pictures
from boneage.web.app import create_app
from boneage.web.settings import Settings

WEB = files("boneage.web")
TEMPLATES = {path.name: path.read_text(encoding="utf-8") for path in WEB.joinpath("templates").iterdir()}


class Browser:
    """A test client that has opened the page and so knows its CSRF token."""

    def __init__(self, predictor=None, **settings):
        self.client = create_app(predictor or FakePredictor(), Settings(**settings)).test_client()
        self.page = self.client.get("/").text
        self.headers = {"X-CSRF-Token": re.search('data-csrf="([^"]+)"', self.page)[1]}

    def post(self, address, image=None, **fields):
        form = {"image": (io.BytesIO(png() if image is None else image), "image"), **fields}
        return self.client.post(address, data=form, headers=self.headers)


def test_form_asks_for_sex_and_does_not_guess_it():
    form = Browser().post("/inspect").text
    assert "PNG, 300 × 400 px" in form
    assert form.count('name="sex"') == 2
    assert "checked" not in form


def test_form_shows_what_the_dicom_file_says():
    image = dicom(PatientSex="M", PatientBirthDate="20160504", StudyDate="20240910", PatientName="Doe^Jane")
    form = Browser().post("/inspect", image).text
    assert catalogue()["case"]["from_dicom"] in form
    assert re.search(r'value="male"[^>]* checked', form)
    assert re.search(r'name="born"[^>]* value="2016-05-04"', form)
    assert re.search(r'name="taken"[^>]* value="2024-09-10"', form)
    assert "Doe" not in form


def test_form_shows_the_age_of_a_dicom_file_without_date_of_birth():
    form = Browser().post("/inspect", dicom(PatientSex="O", PatientAge="101M")).text
    assert catalogue()["case"]["no_sex_in_dicom"] in form
    assert re.search(r'name="years"[^>]* value="8"', form)
    assert re.search(r'name="months"[^>]* value="5"', form)


def test_answer_reads_in_years_and_months_with_interval_and_groups():
    answer = Browser().post("/assess", sex="male").text
    assert '<p class="big">8 years 4 months</p>' in answer
    assert "7 y 5 mo to 9 y 4 mo" in answer.replace("\N{NO-BREAK SPACE}", " ")
    assert re.findall(r"<span>(\d+) %</span>", answer) == ["1", "86", "12", "1"]
    assert catalogue()["result"]["growth_none"] in answer


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"years": "7", "months": "2"}, "14 months ahead of chronological age, +1.6 SD"),  # 100.4 - 86
        ({"years": "9"}, "8 months behind chronological age, -0.8 SD"),  # 100.4 - 108, SD 9.0
        ({"months": "100.5"}, "agree to the month, +0.0 SD"),  # nor is there a -0.0
        ({"years": "8", "months": "3"}, "1 month ahead of"),  # 100.4 - 99
        ({"born": "2016-03-01", "taken": "2024-03-01"}, "4 months ahead"),
        ({"years": "19"}, "128 months behind chronological age."),  # beyond the table: no SD
    ],
)
def test_growth_is_said_in_months_and_standard_deviations(fields, said):
    assert said in Browser().post("/assess", sex="male", **fields).text


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({}, "Choose the sex first"),
        ({"sex": "male", "years": "45"}, "between 0 and 240 months"),
        ({"sex": "male", "born": "2030-01-01", "taken": "2024-01-01"}, "between 0 and 240 months"),
        ({"sex": "male", "born": "2016-01-01"}, "Give the date of the radiograph too"),
        ({"sex": "male", "born": "01.02.2016"}, "YYYY-MM-DD"),
        ({"sex": "male", "born": "2016-01-01", "years": "8"}, "not both"),
    ],
)
def test_what_is_wrong_is_said_in_one_paragraph(fields, why):
    response = Browser().post("/assess", **fields)
    assert response.status_code == 422
    assert re.fullmatch(r'<p class="problem" role="alert">.*</p>', response.text.strip())
    assert why in response.text


def test_warnings_are_shown_as_text_not_as_html():
    answer = (
        Browser(FakePredictor(warnings=(Warning("x", "<b>two</b> hands {{ 7*7 }}"),))).post("/assess", sex="male").text
    )
    assert "&lt;b&gt;two&lt;/b&gt; hands {{ 7*7 }}" in answer


def test_download_holds_what_the_api_would_answer():
    answer = Browser().post("/assess", sex="male", years="7").text
    held = json.loads(base64.b64decode(re.search(r"application/json;base64,([^\"]+)", answer)[1]))
    assert (held["months"], held["growth"]["chronological_age_months"], held["notice"]) == (100.4, 84, NOTICE)


def decoded(uri):
    data = np.frombuffer(base64.b64decode(uri.partition(",")[2]), np.uint8)
    return cv2.imdecode(data, cv2.IMREAD_UNCHANGED)


def test_heat_is_transparent_where_there_is_none_and_opaque_where_it_is_highest():
    heatmap = np.zeros((40, 30), "float32")
    heatmap[10, 20] = 1
    picture = decoded(pictures.heat(heatmap))
    assert picture.shape == (40, 30, 4)
    assert picture[10, 20, 3] == 255
    assert picture[..., 3].sum() == 255


def test_a_large_heat_map_is_sent_small():
    assert max(decoded(pictures.heat(np.ones((1024, 700), "float32"))).shape) == pictures.HEAT_SIDE


@pytest.mark.parametrize("address", ["/", "/login", "/no-such-page"])
def test_notice_stands_on_every_page(address):
    assert Browser().client.get(address).text.count(NOTICE) >= 2


def test_notice_stands_on_every_printed_answer():
    card = re.search(r'<template id="card">.*?</template>', Browser().page, re.DOTALL)[0]
    assert f'<p class="print-notice">{NOTICE}' in card


def test_page_says_whether_images_are_kept(tmp_path):
    assert catalogue()["page"]["privacy"].replace("'", "&#39;") in Browser().page
    assert catalogue()["page"]["kept"] in Browser(keep=tmp_path).page


def test_page_needs_nothing_from_elsewhere_and_has_nothing_inline():
    browser = Browser()
    html = browser.page + browser.post("/inspect").text + browser.post("/assess", sex="male", years="7").text
    assert not re.search(r"https?://", html)
    assert not re.search(r"<script(?![^>]*\bsrc=)|<style|\bstyle=|\bon\w+=", html)
    for kind in ("boneage.css", "boneage.js"):
        assert not re.search(r"https?://|@import", WEB.joinpath("static", kind).read_text(encoding="utf-8"))


def test_templates_ask_for_no_text_that_is_missing():
    sources = "".join(TEMPLATES.values())
    for section, name in re.findall(r"\bt\.(\w+)\.(\w+)", sources):
        assert name in catalogue()[section]
    for name in re.findall(r"\bwords\.(\w+)", sources):
        assert name in catalogue()["result"]
