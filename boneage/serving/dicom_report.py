"""The answer as DICOM objects of the patient's own study: a structured report, and a picture of what the model saw.

The report is a Comprehensive SR by template TID 1500 "Measurement Report" of DICOM PS3.16. What is coded, after what:

- bone age: LOINC 85151-9 "XR Bone age", a quantity of time, in UCUM "mo" (TID 300 "Measurement");
- its 90 % interval: SCT 371886008 and 371885007, CID 225 "Measurement Uncertainty Concept" (TID 310);
- the model: TID 4019 "Algorithm Identification", family DCM 123110 "Artificial Intelligence";
- the site: SCT 85562004 "Hand" with laterality of CID 244; the procedure: LOINC 37362-1 (CID 100 is extensible);
- the picture's derivation: DCM 130403 "Gradient-weighted class activation", CID 217 "Visual Explanation".

No public scheme that we know has the four age groups: they are private codes and say so (`99BONEAGE`).
"""

from copy import deepcopy
from uuid import NAMESPACE_OID, uuid5

import highdicom as hd
import numpy as np
from highdicom import sr
from highdicom.coding_schemes import CodingSchemeIdentificationItem
from PIL import Image, ImageDraw, ImageFont
from pydicom import Dataset
from pydicom.config import disable_value_validation
from pydicom.sr.codedict import codes
from pydicom.uid import UID, ExplicitVRLittleEndian

from boneage import __version__
from boneage.labels import SEX_NAMES
from boneage.serving.answer import NOTICE, Answer
from boneage.texts import say

BONE_AGE = sr.CodedConcept("85151-9", "LN", "XR Bone age")
PROCEDURE = sr.CodedConcept("37362-1", "LN", "XR Bones Views for bone age")
PRIVATE = "99BONEAGE"  # designators of private schemes begin with 99 (PS3.16 section 8)
MAKER = "Boneage"
LATERALITIES = {"L": codes.SCT.Left, "R": codes.SCT.Right}

# Whose study it is (modules Patient, General Study, Patient Study; PS3.3 C.7.1.1, C.7.2.1, C.7.2.2): copied as it came.
ALWAYS_PRESENT = (
    "PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime", "StudyID",
    "AccessionNumber", "ReferringPhysicianName",
)  # fmt: skip
PATIENT_AND_STUDY = (
    *ALWAYS_PRESENT, "SpecificCharacterSet", "IssuerOfPatientID", "PatientIdentityRemoved", "DeidentificationMethod",
    "PatientAge", "PatientSize", "PatientWeight", "StudyDescription",
)  # fmt: skip
OF_THE_IMAGE = (
    "BodyPartExamined", "BurnedInAnnotation", "Laterality", "ImageLaterality", "LossyImageCompression",
    "LossyImageCompressionRatio", "LossyImageCompressionMethod",
)  # fmt: skip

BAND, TEXT, DIM = (0, 0, 0), (255, 255, 255), (190, 190, 190)
MIN_PANEL = 640  # pixels of height, so that the text under a small picture stays readable


def build(source: Dataset, answer: Answer) -> tuple[sr.ComprehensiveSR, hd.sc.SCImage]:
    """The report and the picture that answer one radiograph.

    Their UIDs follow from the source's SOP Instance UID, the model, what it answered and this package's version:
    answered again, the same image gives the same objects, which a receiver that has them recognises; a model that was
    trained anew under its old name makes others.

    Parameters
    ----------
    source
        The radiograph as it was received; its pixels are not read.
    answer
        What the model said about it.
    """
    with disable_value_validation():  # what hospitals send goes back as it came, UIDs with leading zeros included
        return _report(source, answer), _picture(source, answer)


def derived_uid(kind: str, *parts: str) -> UID:
    """A UID under 2.25 that depends on its arguments alone (PS3.5 B.2, from a name-based UUID as in RFC 4122)."""
    return UID(f"2.25.{uuid5(NAMESPACE_OID, '/'.join(('boneage', __version__, kind, *parts))).int}")


def _common(kind: str, number: int, title: str, source: Dataset, answer: Answer) -> dict:
    """What both constructors of highdicom want to know."""
    told = f"{answer.months:.1f} {answer.low:.1f} {answer.high:.1f}"
    return {
        "series_instance_uid": derived_uid(kind, "series", source.SOPInstanceUID, answer.model, told),
        "sop_instance_uid": derived_uid(kind, "instance", source.SOPInstanceUID, answer.model, told),
        "series_number": number,
        "series_description": title,
        "instance_number": 1,
        "manufacturer": MAKER,
        "manufacturer_model_name": answer.model,
        "software_versions": __version__,
        "transfer_syntax_uid": ExplicitVRLittleEndian,
    }


def _nameless(source: Dataset) -> Dataset:
    """The source's place among studies and series, without its patient.

    highdicom quotes names it finds unusual in its warnings and refuses values that hospitals do send: it sees none.
    """
    place = Dataset()
    for keyword in ("SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID"):
        setattr(place, keyword, str(source[keyword].value))
    for keyword in ALWAYS_PRESENT:
        setattr(place, keyword, None)
    return place


def _copy(target: Dataset, source: Dataset, keywords: tuple[str, ...]) -> None:
    for keyword in keywords:
        if keyword in source:
            target.add(deepcopy(source[keyword]))


def _report(source: Dataset, answer: Answer) -> sr.ComprehensiveSR:
    place = _nameless(source)
    device = sr.DeviceObserverIdentifyingAttributes(
        derived_uid("device", answer.model), name=MAKER, manufacturer_name=MAKER, model_name=answer.model
    )
    algorithm = sr.AlgorithmIdentification(
        name=f"{MAKER} {answer.model}",
        version=__version__,
        parameters=[f"sex={SEX_NAMES[answer.male]}"],
        family=codes.DCM.ArtificialIntelligence,
        manufacturer=MAKER,
    )
    side = source.get("ImageLaterality") or source.get("Laterality")
    group = sr.MeasurementsAndQualitativeEvaluations(
        tracking_identifier=sr.TrackingIdentifier(
            derived_uid("tracking", source.SOPInstanceUID, answer.model), "bone age"
        ),
        algorithm_id=algorithm,
        finding_sites=[sr.FindingSite(codes.SCT.Hand, LATERALITIES.get(str(side)))],
        measurements=[_bone_age(answer), *_groups(answer)],
        source_images=[sr.SourceImageForMeasurementGroup(place.SOPClassUID, place.SOPInstanceUID)],
    )
    for text in _remarks(answer):
        group[0].ContentSequence.append(sr.TextContentItem(codes.DCM.Comment, text, sr.RelationshipTypeValues.CONTAINS))
    content = sr.MeasurementReport(
        sr.ObservationContext(sr.ObserverContext(codes.DCM.Device, device)), PROCEDURE, imaging_measurements=[group]
    )
    document = sr.ComprehensiveSR(
        evidence=[place],
        content=content[0],
        is_complete=True,  # as far as the model goes; but preliminary and unverified: no person has looked at it
        coding_schemes=[CodingSchemeIdentificationItem(PRIVATE, name=f"{MAKER} private codes", version=__version__)],
        **_common("SR", 9901, say("dicom.report"), source, answer),
    )
    _copy(document, source, PATIENT_AND_STUDY)
    return document


def _bone_age(answer: Answer) -> sr.Measurement:
    low, months, high = (round(value, 1) for value in (answer.low, answer.months, answer.high))
    month, properties = codes.UCUM.Month, sr.MeasurementProperties()
    for concept, distance in (
        (codes.SCT.RangeOfUpperMeasurementUncertainty, high - months),
        (codes.SCT.RangeOfLowerMeasurementUncertainty, months - low),
    ):  # not by the constructor's arguments, which would call months "no units"
        properties.append(
            sr.NumContentItem(concept, round(distance, 1), month, None, sr.RelationshipTypeValues.HAS_PROPERTIES)
        )
    return sr.Measurement(BONE_AGE, months, month, properties=properties)


def _groups(answer: Answer) -> list[sr.Measurement]:
    return [
        sr.Measurement(
            sr.CodedConcept(f"P_{name.replace('-', '_')}", PRIVATE, say("dicom.group", group=name)),
            round(probability, 4),
            codes.UCUM.NoUnits,
        )
        for name, probability in answer.groups.items()
    ]


def _remarks(answer: Answer) -> list[str]:
    return [
        NOTICE,
        say("dicom.interval", age=answer.text, low=f"{answer.low:.1f}", high=f"{answer.high:.1f}"),
        *(say("dicom.warning", warning=warning.text) for warning in answer.warnings),
    ]


def _picture(source: Dataset, answer: Answer) -> hd.sc.SCImage:
    place = _nameless(source)
    common = _common("SC", 9902, say("dicom.picture"), source, answer)
    picture = hd.sc.SCImage.from_ref_dataset(
        place,
        draw(answer),
        photometric_interpretation="RGB",
        bits_allocated=8,
        coordinate_system="PATIENT",
        patient_orientation=("R", "F"),
        **common,
    )
    picture.PatientOrientation = None  # two panels and text: no single orientation holds
    picture.ConversionType = "WSD"  # from a workstation
    picture.DerivationDescription = say("dicom.derivation", model=answer.model)
    picture.DerivationCodeSequence = [sr.CodedConcept.from_code(codes.DCM.GradientWeightedClassActivation)]
    origin = Dataset()
    origin.ReferencedSOPClassUID, origin.ReferencedSOPInstanceUID = place.SOPClassUID, place.SOPInstanceUID
    origin.PurposeOfReferenceCodeSequence = [
        sr.CodedConcept.from_code(codes.DCM.SourceImageForImageProcessingOperation)
    ]
    picture.SourceImageSequence = [origin]
    _copy(picture, source, (*PATIENT_AND_STUDY, *OF_THE_IMAGE))
    return picture


def draw(answer: Answer) -> np.ndarray:
    """The two overlays side by side, the answer above, the notice below.

    Returns
    -------
    array, shape (height, width, 3), uint8 RGB
        At least 640 px high; each panel has the radiograph's proportions.
    """
    panels = [Image.fromarray(answer.overlay(direction)) for direction in ("older", "younger")]
    if panels[0].height < MIN_PANEL:
        size = (round(panels[0].width * MIN_PANEL / panels[0].height), MIN_PANEL)
        panels = [panel.resize(size, Image.Resampling.BICUBIC) for panel in panels]
    (width, height), gap = panels[0].size, 8
    step = max(16, width // 30)
    top, bottom = 4 * step, step * (3 + 2 * len(answer.warnings))
    page = Image.new("RGB", (2 * width + gap, top + height + bottom), BAND)
    for panel, left in zip(panels, (0, width + gap), strict=True):
        page.paste(panel, (left, top))
    pen, middle = ImageDraw.Draw(page), page.width // 2

    def write(x: int, y: int, text: str, size: int, colour: tuple[int, int, int] = TEXT) -> None:
        while pen.textlength(text, font := ImageFont.load_default(size)) > page.width - step and size > 8:
            size -= 1
        pen.text((x, y), text, colour, font, anchor="mm")

    numbers = {name: f"{getattr(answer, name):.0f}" for name in ("months", "low", "high")}
    write(middle, step, say("dicom.heading", age=answer.text, **numbers), round(step * 1.1))
    older = say("dicom.older") if answer.older.any() else say("dicom.older_none")
    younger = say("dicom.younger") if answer.younger.any() else say("dicom.younger_none")
    write(width // 2, 3 * step, older, step, DIM)
    write(width + gap + width // 2, 3 * step, younger, step, DIM)
    lines = [say("dicom.warning", warning=warning.text) for warning in answer.warnings] + [
        f"{NOTICE} {MAKER} {__version__}, {answer.model}"
    ]
    for row, line in enumerate(lines):
        write(middle, top + height + round(step * (1.5 + 2 * row)), line, step)
    return np.asarray(page)
