"""`make test-web`: the page as a reader meets it, in a real Chromium. `make test` does not collect this file."""

import io
import json

import pytest
from axe_playwright_python.sync_playwright import Axe
from fake_predictor import FakePredictor, dicom, png
from playwright.sync_api import expect
from pypdf import PdfReader
from web_live import chromium, served

from boneage.serving.answer import NOTICE, Refused, Warning

pytestmark = pytest.mark.browser
AXE = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]}
WARNED = (Warning("low_resolution", "The image has few pixels."),)


@pytest.fixture(scope="session")
def browser():
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="session")
def address():
    with served(FakePredictor(warnings=WARNED)) as address:
        yield address


@pytest.fixture
def page(browser, address):
    page = browser.new_page()
    faults = []  # of the script or against the content security policy
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("console", lambda message: faults.append(message.text) if message.type == "error" else None)
    page.goto(address)
    yield page
    page.close()
    assert faults == []


def choose(page, *files):
    page.set_input_files("#files", [{"name": n, "mimeType": "image/png", "buffer": data} for n, data in files])
    expect(page.locator(".case")).to_have_count(len(files))


def answered(page):
    choose(page, ("left hand.png", png()))
    page.get_by_role("radio", name="Male", exact=True).check()
    page.get_by_label("Years").fill("7")
    page.get_by_role("button", name="Estimate bone age").click()
    expect(page.locator(".big")).to_have_text("8 years 4 months")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_no_accessibility_fault_at_any_step(browser, address, scheme, width):
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme, reduced_motion="reduce")
    page.goto(address)
    for step in (lambda: None, lambda: choose(page, ("a.png", png())), lambda: page.reload() and answered(page)):
        step()
        found = Axe().run(page, options=AXE).response["violations"]
        assert [(v["id"], [n["html"][:120] for n in v["nodes"]]) for v in found] == []
        assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.close()


def test_keyboard_alone_is_enough(page):
    choose(page, ("hand.png", png()))
    expect(page.get_by_role("radio", name="Female")).to_be_focused()
    page.keyboard.press("ArrowRight")  # chooses Male
    page.keyboard.press("Enter")  # sends the form
    expect(page.locator(".big")).to_have_text("8 years 4 months")
    expect(page.get_by_role("heading", name="hand.png")).to_be_focused()
    expect(page.get_by_role("status")).to_have_text("hand.png: bone age 8 years 4 months")


def test_files_can_be_dropped_anywhere(page):
    transfer = page.evaluate_handle(
        "bytes => { const dropped = new DataTransfer();"
        " dropped.items.add(new File([new Uint8Array(bytes)], 'dropped.png')); return dropped; }",
        list(png(64, 48)),
    )
    page.dispatch_event("footer", "drop", {"dataTransfer": transfer})
    expect(page.get_by_role("heading", name="dropped.png")).to_be_visible()
    expect(page.locator(".facts")).to_have_text("PNG, 48 × 64 px")


def test_several_images_have_a_form_each(page):
    choose(page, ("a.png", png()), ("b.dcm", dicom(PatientSex="F", PatientAge="101M")))
    second = page.locator(".card").nth(1)
    expect(second.get_by_role("radio", name="Female")).to_be_checked()
    expect(second.get_by_label("Years")).to_have_value("8")
    second.get_by_role("button", name="Estimate bone age").click()
    expect(second.locator(".big")).to_have_text("7 years 10 months")
    page.locator(".card").nth(0).get_by_role("button", name="Remove").click()
    expect(page.locator(".card")).to_have_count(1)
    expect(page.get_by_role("heading", name="b.dcm")).to_be_focused()


def test_slider_and_switch_change_the_overlay(page):
    answered(page)
    older, younger = (page.locator(f".heat[data-direction={d}]") for d in ("older", "younger"))
    expect(older).to_be_visible()
    page.get_by_label("Overlay").fill("20")
    expect(older).to_have_css("opacity", "0.2")
    page.get_by_role("radio", name="younger").check()
    expect(older).to_be_hidden()
    expect(younger).to_have_css("opacity", "0.2")
    expect(page.locator(".film")).to_have_attribute(
        "alt", "The radiograph, with a heat map of what speaks for a younger hand."
    )


def test_answer_can_be_changed(page):
    answered(page)
    page.get_by_role("button", name="Change sex or age").click()
    page.get_by_role("radio", name="Female").check()
    page.get_by_role("button", name="Estimate bone age").click()
    expect(page.locator(".big")).to_have_text("7 years 10 months")


def test_json_is_downloaded_under_the_name_of_the_image(page):
    answered(page)
    with page.expect_download() as download:
        page.get_by_role("link", name="Download JSON").click()
    assert download.value.suggested_filename == "left hand.bone-age.json"
    with open(download.value.path(), encoding="utf-8") as file:
        assert json.load(file)["months"] == 100.4


def test_file_names_do_not_leave_the_browser(page):
    sent = []
    page.on("request", lambda request: sent.append(request.post_data_buffer or b""))
    answered(page)
    assert len(sent) >= 2
    assert not any(b"left hand" in body for body in sent)


def test_print_is_one_sheet_an_answer_with_the_notice_on_each(browser, address):
    page = browser.new_page()
    page.goto(address)
    choose(page, ("a.png", png()), ("b.png", png()), ("c.png", png()))
    for i in range(2):  # the third is not answered, so not printed
        card = page.locator(".card").nth(i)
        card.get_by_role("radio", name="Male", exact=True).check()
        card.get_by_role("button", name="Estimate bone age").click()
        expect(card.locator(".big")).to_be_visible()
    sheets = [sheet.extract_text() for sheet in PdfReader(io.BytesIO(page.pdf(format="A4"))).pages]
    page.close()
    assert len(sheets) == 2
    for sheet, name in zip(sheets, ("a.png", "b.png"), strict=True):
        for text in (NOTICE, name, "8 years 4 months", "Fake/joint", "The image has few pixels."):
            assert text in " ".join(sheet.split())


def test_a_refusal_is_told_aloud_and_the_form_stays(browser):
    refused = FakePredictor(error=Refused("not_a_hand", "the picture does not look like a hand <b>radiograph</b>"))
    with served(refused) as address:
        page = browser.new_page()
        page.goto(address)
        choose(page, ("cat.png", png()))
        page.get_by_role("radio", name="Female").check()
        page.get_by_role("button", name="Estimate bone age").click()
        expect(page.get_by_role("alert")).to_have_text("the picture does not look like a hand <b>radiograph</b>")
        expect(page.get_by_role("button", name="Estimate bone age")).to_be_enabled()
        page.close()


def test_too_large_a_file_is_not_even_sent(browser):
    with served(FakePredictor(), max_bytes=1000) as address:
        page = browser.new_page()
        page.goto(address)
        page.set_input_files("#files", {"name": "big.png", "mimeType": "image/png", "buffer": png()})
        expect(page.get_by_role("alert")).to_have_text("The file is larger than this server accepts.")
        page.close()


def test_what_the_server_library_refuses_is_told_in_words(browser, address):
    page = browser.new_page()
    page.goto(address)
    told = json.dumps({"status": 413, "detail": "<b>too large</b>"})
    page.route(
        "**/inspect", lambda route: route.fulfill(status=413, content_type="application/problem+json", body=told)
    )
    page.set_input_files("#files", {"name": "hand.png", "mimeType": "image/png", "buffer": png()})
    expect(page.get_by_role("alert")).to_have_text("<b>too large</b>")
    page.close()


def test_names_of_files_are_announced_as_they_are(page):
    choose(page, ("$& {age}.png", png()))
    page.get_by_role("radio", name="Male", exact=True).check()
    page.get_by_role("button", name="Estimate bone age").click()
    expect(page.locator("#status")).to_have_text("$& {age}.png: bone age 8 years 4 months")


def test_a_busy_server_is_asked_again(browser):
    with served(FakePredictor(), per_minute=60, burst=1) as address:  # the form takes the only token
        page = browser.new_page()
        page.goto(address)
        choose(page, ("hand.png", png()))
        page.get_by_role("radio", name="Male", exact=True).check()
        page.get_by_role("button", name="Estimate bone age").click()
        expect(page.locator(".big")).to_have_text("8 years 4 months")
        page.close()


def test_token_opens_the_page(browser):
    token = "a-token-that-is-long-enough"
    with served(FakePredictor(), token=token) as address:
        page = browser.new_page()
        page.goto(address)
        assert [v["id"] for v in Axe().run(page, options=AXE).response["violations"]] == []
        page.get_by_label("Token").fill("wrong")
        page.get_by_role("button", name="Enter").click()
        expect(page.get_by_role("alert")).to_have_text("That is not the token of this server.")
        page.get_by_label("Token").fill(token)
        page.keyboard.press("Enter")
        answered(page)
        page.close()
