"""The DICOM report and picture: what they say, whose they are, and that the same image gives the same objects."""

import io

import numpy as np
import pydicom
import pytest
from dicom_hands import IDENTIFIERS, SERIES_UID, SOP_UID, STUDY_UID, FakeAnswer, FakeWarning, hand_dicom
from highdicom.sr import MeasurementReport, srread
from pydicom.uid import UID

from boneage.serving.dicom_report import build, derived_uid, draw


def read(data: bytes) -> pydicom.Dataset:
    return pydicom.dcmread(io.BytesIO(data))


def written(dicom: pydicom.Dataset) -> pydicom.Dataset:
    """What a receiver reads: through the bytes of a file."""
    stream = io.BytesIO()
    dicom.save_as(stream, enforce_file_format=True)
    stream.seek(0)
    return pydicom.dcmread(stream)


def objects(answer: FakeAnswer | None = None, **attributes) -> tuple[pydicom.Dataset, pydicom.Dataset]:
    report, picture = build(read(hand_dicom(**attributes)), answer or FakeAnswer())
    return written(report), written(picture)


def items(dicom: pydicom.Dataset, value_type: str) -> list[pydicom.Dataset]:
    """All content items of one value type, depth first."""
    found = []
    for item in dicom.get("ContentSequence", []):
        found += [item] if item.ValueType == value_type else []
        found += items(item, value_type)
    return found


def numbers(dicom: pydicom.Dataset) -> dict[tuple[str, str], tuple[float, str]]:
    """(scheme, code) of each number -> (value, unit)."""
    return {
        (item.ConceptNameCodeSequence[0].CodingSchemeDesignator, item.ConceptNameCodeSequence[0].CodeValue): (
            float(item.MeasuredValueSequence[0].NumericValue),
            item.MeasuredValueSequence[0].MeasurementUnitsCodeSequence[0].CodeValue,
        )
        for item in items(dicom, "NUM")
    }


def test_bone_age_is_coded_by_loinc_in_months_with_its_interval():
    report, _ = objects(FakeAnswer(months=100.26, low=88.04, high=112.5))
    found = numbers(report)
    assert found["LN", "85151-9"] == (100.3, "mo")
    assert found["SCT", "371886008"] == (12.2, "mo")  # 112.5 - 100.3
    assert found["SCT", "371885007"] == (12.3, "mo")  # 100.3 - 88.0
    assert found["99BONEAGE", "P_5_10"] == (0.9, "1")


def test_it_is_a_measurement_report_that_nobody_has_verified():
    report, _ = objects()
    assert report.SOPClassUID.name == "Comprehensive SR Storage"
    assert report.ContentTemplateSequence[0].TemplateIdentifier == "1500"
    assert (report.CompletionFlag, report.PreliminaryFlag, report.VerificationFlag) == (
        "COMPLETE",
        "PRELIMINARY",
        "UNVERIFIED",
    )


def test_highdicom_reads_it_back(tmp_path):
    report, _ = build(read(hand_dicom()), FakeAnswer())
    report.save_as(tmp_path / "report.dcm")
    content = srread(tmp_path / "report.dcm").content
    assert isinstance(content, MeasurementReport)
    (group,) = content.get_image_measurement_groups()
    assert group.get_measurements()[0].value == 100.3
    assert group.source_images[0].referenced_sop_instance_uid == SOP_UID


def test_it_names_the_model_and_says_research_use_and_every_warning():
    warned = FakeAnswer(warnings=(FakeWarning("two_hands", "two hands were found"),))
    report, picture = objects(warned)
    texts = [item.TextValue for item in items(report, "TEXT")]
    assert "Research use only, not a medical device." in texts
    assert "Bone age 8 years 4 months. 90 % split-conformal interval: 88.0 to 112.5 months." in texts
    assert "Warning: two hands were found" in texts
    assert "Boneage Fake/joint" in texts
    assert "research use only" in report.SeriesDescription
    assert "research use only" in picture.SeriesDescription


@pytest.mark.parametrize(
    ("attributes", "code"),
    [({"Laterality": "L"}, "7771000"), ({"Laterality": None, "ImageLaterality": "R"}, "24028007")],
)
def test_the_side_of_the_hand_is_the_source_s(attributes, code):
    report, _ = objects(**attributes)
    codes = {item.ConceptCodeSequence[0].CodeValue for item in items(report, "CODE")}
    assert {"85562004", code} <= codes


def test_a_file_that_names_both_sides_names_none():
    report, _ = objects(Laterality=["L", "R"])
    codes = {item.ConceptCodeSequence[0].CodeValue for item in items(report, "CODE")}
    assert "85562004" in codes
    assert not codes & {"7771000", "24028007"}


def test_both_belong_to_the_patient_s_study_in_series_of_their_own():
    for made in objects():
        assert (made.StudyInstanceUID, made.StudyDate, made.AccessionNumber) == (STUDY_UID, "20200301", "ACC-5512")
        assert (made.PatientName, made.PatientID, made.PatientSex) == ("Zyxw^Quirin", "PID-7731", "M")
        assert made.PatientBirthDate == "20110203"
    report, picture = objects()
    assert len({report.SeriesInstanceUID, picture.SeriesInstanceUID, SERIES_UID}) == 3


def test_the_same_image_gives_the_same_objects_and_another_model_gives_others():
    def uids(**changes):
        return [uid for made in objects(FakeAnswer(**changes)) for uid in (made.SOPInstanceUID, made.SeriesInstanceUID)]

    assert uids() == uids()
    assert not set(uids()) & set(uids(model="Other/joint"))
    assert not set(uids()) & set(uids(months=77.7)), "the same model trained anew"
    assert len(set(uids())) == 4
    assert all(UID(uid).is_valid for uid in uids())


def test_derived_uids_are_uuids_under_2_25():
    uid = derived_uid("SR", "1.2.3")
    assert uid.startswith("2.25.")
    assert 0 < int(uid[5:]) < 2**128
    assert derived_uid("SR", "1.2.3") == uid != derived_uid("SC", "1.2.3")


@pytest.mark.parametrize(
    ("charset", "name"),
    [
        (["", "ISO 2022 IR 87"], "Yamada^Tarou=山田^太郎=やまだ^たろう"),
        ("ISO_IR 100", "Müller^Jörg"),
        ("ISO_IR 144", "Люксембург"),
        ("ISO_IR 192", "王^小東"),
    ],
)
def test_names_come_back_in_the_character_set_they_came_in(charset, name):
    source = hand_dicom(SpecificCharacterSet=charset, PatientName=name)
    for made in build(read(source), FakeAnswer()):
        assert written(made).PatientName == name == read(source).PatientName
        assert written(made).SpecificCharacterSet == read(source).SpecificCharacterSet


def test_what_the_source_lacks_is_empty_and_what_is_odd_stays_odd():
    report, picture = objects(PatientID=None, AccessionNumber=None, StudyDate=None, StudyID=None, Laterality=None)
    for made in (report, picture):
        assert (made.PatientID, made.AccessionNumber, made.StudyDate, made.StudyID) == ("", "", "", "")
    with pydicom.config.disable_value_validation():
        odd = hand_dicom(PatientBirthDate="19990231", PatientSex="X", StudyInstanceUID="1.2.03.4", StudyTime="99")
        report, picture = map(written, build(read(odd), FakeAnswer()))
        assert (report.PatientBirthDate, report.PatientSex, report.StudyInstanceUID) == ("19990231", "X", "1.2.03.4")
        assert picture.StudyTime == "99"


def test_nothing_of_the_patient_is_quoted_in_warnings_or_by_loggers(caplog, recwarn):
    caplog.set_level("DEBUG")
    data = hand_dicom(PatientName="Zyxw")  # one word alone: highdicom would warn of it
    recwarn.clear()
    build(read(data), FakeAnswer())
    said = caplog.text + " ".join(str(warning.message) for warning in recwarn)
    assert not [word for word in IDENTIFIERS if word != IDENTIFIERS[-1] and word in said]


def test_the_picture_shows_both_directions_and_says_where_it_is_from():
    _, picture = objects()
    assert picture.pixel_array.shape == (picture.Rows, picture.Columns, 3)
    assert picture.SourceImageSequence[0].ReferencedSOPInstanceUID == SOP_UID
    assert picture.DerivationCodeSequence[0].CodeValue == "130403"
    assert (picture.Modality, picture.BodyPartExamined, "BurnedInAnnotation" in picture) == ("OT", "HAND", False)
    assert picture.ImageType[:2] == ["DERIVED", "SECONDARY"]
    page = picture.pixel_array.astype(int)
    older, younger = page[:, : page.shape[1] // 2], page[:, page.shape[1] // 2 :]
    assert (older[..., 0] - older[..., 2]).max() > 50  # red on the left only, blue on the right only
    assert (older[..., 2] - older[..., 0]).max() < 30
    assert (younger[..., 2] - younger[..., 0]).max() > 50


def test_lossy_compression_and_burned_in_names_stay_on_record():
    _, picture = objects(LossyImageCompression="01", LossyImageCompressionRatio="12.5", BurnedInAnnotation="YES")
    assert (picture.LossyImageCompression, picture.LossyImageCompressionRatio) == ("01", 12.5)
    assert picture.BurnedInAnnotation == "YES"


def test_the_page_says_when_nothing_speaks_for_a_direction():
    some, none = FakeAnswer(), FakeAnswer(younger=np.zeros((192, 152), np.float32))
    apart = np.abs(draw(some).astype(int) - draw(none)).max(axis=(0, 2)) > 0
    assert not apart[: apart.size // 2].any()  # only the caption of the right panel differs
    assert apart[apart.size // 2 :].any()


def test_the_page_has_room_for_every_warning():
    plain = draw(FakeAnswer())
    warned = draw(FakeAnswer(warnings=(FakeWarning("a", "first " * 60), FakeWarning("b", "second"))))
    assert plain.shape[0] >= 640
    assert warned.shape[0] > plain.shape[0]
    assert warned.shape[1] == plain.shape[1]
