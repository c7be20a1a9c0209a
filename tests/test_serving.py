"""One file, one answer: what the predictor says, about what it did to the image, and what it refuses."""

import json
import struct
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from PIL import Image
from pydicom.uid import DeflatedExplicitVRLittleEndian
from serving_run import dicom, encoded, exported  # noqa: F401

from boneage.data import sources
from boneage.data.decode import decode_grey
from boneage.data.hand import Hand
from boneage.data.phantom import render
from boneage.errors import BoneageError
from boneage.explain import DEFAULT_METHOD
from boneage.explain.maps import to_original
from boneage.explain.methods import METHODS
from boneage.models.weights import load_model
from boneage.serving import Answer, ImageFacts, Predictor, Refused, door
from boneage.serving.answer import words
from boneage.serving.predictor import Look, told_hand


@pytest.fixture(scope="session")
def predictor(exported) -> Predictor:  # noqa: F811
    return Predictor(exported)


@pytest.fixture(scope="session")
def holdout(exported, phantom_dir) -> pd.DataFrame:  # noqa: F811
    """The holdout as evaluated from the cache, with the file of each image."""
    table = pd.read_csv(exported / "predictions_holdout.csv", dtype={"id": str})
    return table.merge(sources.find(phantom_dir).table[["id", "path"]], on="id")


@pytest.fixture(scope="session")
def film(holdout) -> tuple[bytes, bool]:
    """A holdout radiograph and its sex."""
    row = holdout.iloc[0]
    return Path(row.path).read_bytes(), bool(row.male)


def codes(answer: Answer) -> set[str]:
    return {warning.code for warning in answer.warnings} - {"phantom_model", "hand_not_found"}


# -- what is said


def test_a_file_gets_the_answer_that_the_evaluation_gave_to_it(predictor, holdout):
    """From bytes to months on another way than through cache and Keras, with the same result."""
    for row in holdout.itertuples():
        answer = predictor(Path(row.path).read_bytes(), bool(row.male), maps=False)
        assert answer.months == pytest.approx(row.predicted_months, abs=0.1)
        assert answer.groups["0-5"] == pytest.approx(row.p_0_5, abs=0.01)


def test_an_answer_is_whole(predictor, film):
    answer = predictor(*film)
    assert answer.low < answer.months < answer.high
    assert answer.text == words(answer.months)
    assert sum(answer.groups.values()) == pytest.approx(1, abs=1e-5)
    assert answer.male is film[1]
    assert answer.model == "Tiny/joint"
    assert answer.image.kind == "PNG"
    assert (answer.image.width, answer.image.height) == answer.radiograph.shape[::-1]


def test_the_sex_effect_is_the_answer_minus_that_for_the_other_sex(predictor, film):
    as_male, as_female = (predictor(film[0], male, maps=False) for male in (True, False))
    assert as_male.sex_effect == pytest.approx(as_male.months - as_female.months, abs=1e-3)
    assert as_female.sex_effect == pytest.approx(-as_male.sex_effect, abs=1e-3)


@pytest.mark.parametrize(
    ("months", "text"),
    [(99.6, "8 years 4 months"), (12.2, "1 year"), (13, "1 year 1 month"), (0.3, "0 months"), (7.5, "8 months")],
)
def test_months_in_words(months, text):
    assert words(months) == text


def test_an_answer_is_plain_json_without_its_arrays(predictor, film):
    said = json.loads(json.dumps(predictor(*film).to_dict()))
    assert said["image"]["inverted"] is False
    assert len(said["image"]["window"]) == 2
    assert not {"older", "younger", "radiograph"} & set(said)
    assert said["notice"] == "Research use only, not a medical device."


def test_two_threads_get_what_one_gets(predictor, film):
    alone = predictor(*film, maps=False).months
    with ThreadPoolExecutor(2) as pool:
        assert {a.months for a in pool.map(lambda _: predictor(*film, maps=False), range(6))} == {alone}


# -- maps


def test_maps_lie_on_the_image_as_the_default_method_lays_them(predictor, film, exported, holdout, phantom_cache):  # noqa: F811
    answer = predictor(*film)
    row = phantom_cache.rows([holdout["id"].iloc[0]]).iloc[0]
    square = phantom_cache.images[row["row"]]
    image = cv2.resize(square, (32, 32), interpolation=cv2.INTER_AREA)[None]
    matrix = row[["m00", "m01", "m02", "m10", "m11", "m12"]].to_numpy(float).reshape(2, 3)
    method = METHODS[DEFAULT_METHOD](load_model(exported / "model.keras"))
    for direction in ("older", "younger"):
        cam = method(image, [[film[1]]], direction)[0][0]
        expected = to_original(cam, matrix, *answer.radiograph.shape, square=64)
        np.testing.assert_allclose(getattr(answer, direction), expected, atol=0.02)


def test_a_large_image_is_shown_at_1024_pixels_with_its_map_in_place(predictor, film):
    small = decode_grey(film[0])
    large = cv2.resize(small, None, fx=16, fy=16, interpolation=cv2.INTER_CUBIC)
    answer, expected = predictor(encoded(large), film[1]), predictor(*film)
    assert max(answer.radiograph.shape) == 1024
    assert answer.older.shape == answer.radiograph.shape
    shrunk = cv2.resize(answer.older, expected.older.shape[::-1], interpolation=cv2.INTER_AREA)
    assert np.corrcoef(shrunk.ravel(), expected.older.ravel())[0, 1] > 0.95


def test_without_maps_there_are_none(predictor, film):
    answer = predictor(*film, maps=False)
    assert not answer.older.any()
    assert not answer.younger.any()
    assert answer.radiograph.any()


def test_an_overlay_shows_the_radiograph_where_there_is_no_heat():
    radiograph, heat = np.full((2, 2), 90, np.uint8), np.array([[0, 1], [0, 0]], "float32")
    facts = ImageFacts(2, 2, "PNG")
    answer = Answer(100, "", 90, 110, {}, 0, True, "", (), facts, older=heat, younger=0 * heat, radiograph=radiograph)
    overlay = answer.overlay("older", opacity=1.0)
    assert (overlay[1] == 90).all()
    assert overlay[0, 1].tolist() == [252, 255, 164]  # the brightest colour of inferno
    assert (answer.overlay("younger") == 90).all()
    with pytest.raises(BoneageError, match="older or younger"):
        answer.overlay("sideways")


# -- what was done to the image


def test_dark_bones_are_turned_bright_and_it_is_said(predictor, film):
    straight, inverted = predictor(*film), predictor(encoded(255 - decode_grey(film[0])), film[1])
    assert inverted.image.inverted
    assert codes(inverted) == codes(straight) | {"inverted"}
    assert inverted.months == pytest.approx(straight.months, abs=0.1)
    np.testing.assert_allclose(inverted.radiograph, straight.radiograph, atol=2)


def test_a_few_pixels_are_answered_with_a_warning(predictor, film):
    tiny = cv2.resize(decode_grey(film[0]), (18, 22), interpolation=cv2.INTER_AREA)
    look = predictor.look(tiny, True)
    assert "low_resolution" in {w.code for w in predictor._warnings(look, ImageFacts(18, 22, "PNG"))}


@pytest.mark.parametrize("turns", range(4))
def test_a_turned_picture_maps_its_pixels_where_they_come_from(turns):
    grey = np.arange(12, dtype=np.uint8).reshape(3, 4)
    seen, matrix = door.turned(grey, turns)
    for (y, x), value in np.ndenumerate(grey):
        u, v, _ = matrix @ (x, y, 1)
        assert seen[int(v), int(u)] == value


@pytest.mark.parametrize("seed", range(6))
def test_polarity_is_told_from_the_picture(seed):
    grey = render(60 + 20 * seed, seed % 2, seed, 192).image
    assert not door.bones_look_dark(grey)
    assert door.bones_look_dark(255 - grey)


def test_polarity_of_a_picture_of_one_grey_level_is_left_alone():
    assert not door.bones_look_dark(np.full((40, 40), 7, np.uint8))
    assert not door.bones_look_dark(np.arange(16 * 4000, dtype=np.uint16).reshape(16, 4000))  # under a pixel high at 96


class Stub(Predictor):
    """A predictor whose model finds strange what `strangeness[inverted, turns]` says; 2 where it says nothing."""

    def __init__(self, strangeness):
        self.strangeness, self.tried = strangeness, []

    def _look(self, grey, male, invert, turns=0):
        self.tried.append((invert, turns))
        hand = Hand(0.5, 0.5, 0.8, 10.0, 0.99)
        return Look(grey, invert, turns, hand, None, (0, 255), {}, self.strangeness.get((invert, turns), 2))


def test_a_hand_that_looks_like_one_is_read_once():
    stub = Stub({(False, 0): 0.3})
    assert stub.look(hand(), True).strangeness == 0.3
    assert stub.tried == [(False, 0)]


def test_dark_bones_are_read_both_ways_and_the_less_strange_wins():
    stub = Stub({(True, 0): 0.9, (False, 0): 0.4})
    assert not stub.look(255 - hand(), True).inverted
    assert stub.tried == [(True, 0), (False, 0)]


def test_what_is_strange_either_way_is_turned_until_it_is_a_hand():
    stub = Stub({(False, 0): 1.4, (True, 0): 1.9, (False, 3): 0.2})
    look = stub.look(hand(), True)
    assert (look.inverted, look.turns) == (False, 3)
    assert stub.tried == [(False, 0), (True, 0), (False, 1), (False, 2), (False, 3)]


def test_a_second_look_has_to_convince():
    """What is just short of the threshold at one of five looks is no hand."""
    assert Stub({(False, 0): 1.4, (False, 1): 0.7}).look(hand(), True).strangeness > 1
    assert Stub({(False, 0): 0.9}).look(hand(), True).strangeness == 0.9


@pytest.mark.parametrize(("turns", "angle"), [(0, 10), (1, 100), (2, -170), (3, -80)])
def test_the_angle_that_is_told_is_that_of_the_picture_as_it_came_in(turns, angle):
    """A hand that points 10 degrees right of up after a quarter turn to the left pointed 100 degrees right before."""
    look = Stub({})._look(hand(), True, False, turns)
    assert told_hand(look) == {"found": True, "confidence": 0.99, "angle": angle}


# -- DICOM


def test_dicom_tells_sex_age_and_part(predictor, film):
    tags = {
        "PatientSex": "M", "PatientBirthDate": "20110301", "StudyDate": "20200301", "BodyPartExamined": "HAND",
        "Laterality": "L", "Modality": "CR",
    }  # fmt: skip
    data = dicom(decode_grey(film[0]), **tags)
    assert predictor.inspect(data).dicom == {
        "sex": "M", "birth_date": "20110301", "age_months": 108.0, "study_date": "20200301", "laterality": "L",
        "body_part": "HAND", "modality": "CR",
    }  # fmt: skip
    answer = predictor(data, None)
    assert answer.male is True
    assert answer.image.kind == "DICOM"
    assert answer.months == pytest.approx(predictor(film[0], True, maps=False).months, abs=0.3)


@pytest.mark.parametrize(("age", "months"), [("008Y", 96), ("101M", 101), ("052W", 11.95), ("8", None), ("", None)])
def test_dicom_age_strings(film, age, months):
    found = door.enter(dicom(decode_grey(film[0]), PatientAge=age))[1].dicom["age_months"]
    assert found == (None if months is None else pytest.approx(months, abs=0.1))


def test_the_sex_that_was_asked_for_wins_over_the_tag_and_it_is_said(predictor, film):
    answer = predictor(dicom(decode_grey(film[0]), PatientSex="M"), False, maps=False)
    assert answer.male is False
    assert "sex_differs" in codes(answer)


def test_a_patient_of_45_years_is_answered_with_a_warning(predictor, film):
    data = dicom(decode_grey(film[0]), PatientSex="F", PatientAge="045Y")
    (text,) = (w.text for w in predictor(data, None, maps=False).warnings if w.code == "outside_ages")
    assert "45.0 years old" in text


@pytest.mark.parametrize(("age", "warned"), [("018Y", False), ("228M", False), ("229M", True)])
def test_bone_age_is_assessed_up_to_19_years(predictor, film, age, warned):
    data = dicom(decode_grey(film[0]), PatientSex="F", PatientAge=age)
    assert ("outside_ages" in codes(predictor(data, None, maps=False))) is warned


def test_a_birth_date_after_the_study_is_told(predictor, film):
    data = dicom(decode_grey(film[0]), PatientSex="F", PatientBirthDate="20200101", StudyDate="20190101")
    (text,) = (w.text for w in predictor(data, None, maps=False).warnings if w.code == "outside_ages")
    assert "birth date" in text


# -- what is refused: one line, and a code for programs


def png_header(width: int, height: int) -> bytes:
    """A PNG that announces a size and holds almost nothing."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    parts = (chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(bytes(1000))), chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def saved(kind: str, pictures: list[Image.Image], **options) -> bytes:
    import io

    file = io.BytesIO()
    pictures[0].save(file, kind, append_images=pictures[1:], save_all=len(pictures) > 1, **options)
    return file.getvalue()


def hand() -> np.ndarray:
    return render(120, 1, 1, 192).image


BAD = {
    "not an image": (lambda: b"%PDF-1.7 and so on", "unreadable", "not an image of a known kind"),
    "0 bytes": (lambda: b"", "unreadable", "empty"),
    "truncated PNG": (lambda: encoded(hand())[:-2000], "unreadable", "truncated"),
    "truncated JPEG": (lambda: encoded(hand(), ".jpg")[:2000], "unreadable", "truncated"),
    "100 MB": (lambda: encoded(hand()) + bytes(100_000_000), "too_large", "MB"),
    "40,000 px": (lambda: png_header(40_000, 40_000), "too_large", "40000 x 40000 pixels"),
    "40,000 px on one side": (lambda: png_header(40_000, 20), "unreadable", "16384 px"),
    "many pixels": (lambda: png_header(8_000, 8_000), "too_large", "at most 16 million"),
    "animated": (lambda: saved("WEBP", [Image.fromarray(g) for g in (hand(), 255 - hand())]), "unreadable", "frames"),
    "one grey level": (lambda: encoded(np.full((64, 64), 9, np.uint8)), "empty", "one grey level"),
    "DICOM of two frames": (lambda: dicom(hand(), frames=2), "unreadable", "several frames"),
    "DICOM without pixels": (lambda: dicom(None), "unreadable", "no pixels"),
    "DICOM cut in its header": (lambda: dicom(hand())[:150], "unreadable", "DICOM"),
    "DICOM deflated as a whole": (
        lambda: dicom(hand(), syntax=DeflatedExplicitVRLittleEndian), "unreadable", "deflated as a whole",
    ),
    "DICOM of an unknown syntax": (
        lambda: dicom(hand()).replace(b"1.2.840.10008.1.2.1", b"1.2.840.10008.9.9.9"), "unreadable", "DICOM",
    ),
    "DICOM of a chest": (lambda: dicom(hand(), BodyPartExamined="CHEST"), "body_part", "'CHEST'"),
    "DICOM that announces 40,000 px": (lambda: dicom(hand(), Rows=40_000, Columns=40_000), "too_large", "40000"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_bad_files_are_refused_in_one_line(predictor, case):
    make, code, said = BAD[case]
    with pytest.raises(Refused) as refusal:
        predictor(make(), True)
    assert refusal.value.code == code
    assert said in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_a_cmyk_jpeg_is_answered(predictor, film):
    data = saved("JPEG", [Image.fromarray(decode_grey(film[0])).convert("CMYK")], quality=95)
    assert predictor(data, film[1], maps=False).months == pytest.approx(predictor(*film, maps=False).months, abs=5)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (lambda: encoded(hand()), "the file does not tell it"),
        (lambda: dicom(hand(), PatientSex="O"), "says 'O'"),
        (lambda: dicom(hand()), "the file does not tell it"),
    ],
)
def test_without_a_sex_there_is_no_answer(predictor, data, said):
    with pytest.raises(Refused, match=f"sex missing: .*{said}") as refusal:
        predictor(data(), None)
    assert refusal.value.code == "sex_missing"


def test_noise_is_no_hand(predictor):
    noise = np.random.default_rng(0).integers(0, 256, (128, 128), np.uint8)
    with pytest.raises(Refused, match="does not look like a hand radiograph") as refusal:
        predictor(encoded(noise), True)
    assert refusal.value.code == "not_a_hand"
