"""What a prediction is: one typed answer, or one refusal."""

from dataclasses import asdict, dataclass, fields

import cv2
import numpy as np

from boneage.errors import BoneageError
from boneage.labels import MONTHS_PER_YEAR
from boneage.texts import say

NOTICE = say("page.notice")
MAX_AGE = 19  # years: the last plates of Greulich and Pyle's atlas


class Refused(BoneageError):
    """The input is not answered; `code` is one word for programs, the message one line for people."""

    def __init__(self, code: str, text: str):
        super().__init__(text)
        self.code = code


@dataclass(frozen=True)
class Warning:
    """Something about the image that the reader of an answer should know; `code` for programs, `text` for people."""

    code: str
    text: str


def outside_ages(months: float | None) -> list[Warning]:
    """The warning that a patient's age, in months, deserves where bone age is not assessed; [] for None."""
    if months is None or 0 <= months <= MAX_AGE * MONTHS_PER_YEAR:
        return []
    if months < 0:
        return [Warning("outside_ages", say("warnings.born_later", most=MAX_AGE))]
    years = f"{months / MONTHS_PER_YEAR:.1f}"
    return [Warning("outside_ages", say("warnings.outside_ages", years=years, most=MAX_AGE))]


@dataclass(frozen=True)
class ImageFacts:
    """What came in and what was done to it.

    Attributes
    ----------
    width, height
        Pixels, upright.
    kind
        "PNG", "JPEG", "WEBP", "TIFF" or "DICOM".
    window
        Grey levels of the (bright-bone) image that became black and white; None before a prediction.
    inverted
        Whether the grey levels were turned about, because the bones were dark.
    hand
        `found`, `confidence` (0..1) and `angle` (degrees clockwise from up); None where no finder has looked.
    dicom
        `sex`, `birth_date`, `age_months`, `study_date`, `laterality`, `body_part`, `modality` as the file has them
        (dates YYYYMMDD, None where absent); None for other kinds.
    """

    width: int
    height: int
    kind: str
    window: tuple[float, float] | None = None
    inverted: bool = False
    hand: dict | None = None
    dicom: dict | None = None


@dataclass(frozen=True)
class Answer:
    """The bone age of one radiograph.

    Attributes
    ----------
    months, text
        Bone age, as a number and as "8 years 4 months".
    low, high
        Its 90 % split-conformal interval, months.
    groups
        Probability of each age group; empty where the model has no classification head.
    sex_effect
        Months that the given sex adds against the other.
    male
        The sex that was used.
    model
        "EfficientNetB0/joint".
    older, younger
        (H, W) float32, 0..1: Grad-CAM++ toward older and toward younger, in the frame of the image that came in, its
        longer side shrunk to `predictor.SHOWN` px at most; zeros where no maps were asked for.
    radiograph
        (H, W) uint8: the windowed picture in that same frame, bone bright.
    """

    months: float
    text: str
    low: float
    high: float
    groups: dict[str, float]
    sex_effect: float
    male: bool
    model: str
    warnings: tuple[Warning, ...]
    image: ImageFacts
    older: np.ndarray
    younger: np.ndarray
    radiograph: np.ndarray

    def to_dict(self) -> dict:
        """Plain JSON: everything but the arrays."""
        arrays = ("older", "younger", "radiograph")
        plain = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in arrays}
        plain["warnings"] = [asdict(warning) for warning in self.warnings]
        image = asdict(self.image)
        plain["image"] = image | {"window": image["window"] and list(image["window"])}
        return plain | {"notice": NOTICE}

    def overlay(self, direction: str = "older", opacity: float = 0.45) -> np.ndarray:
        """A map over the radiograph, the bone still to be seen through it.

        Parameters
        ----------
        direction
            "older" or "younger".
        opacity
            0..1: how thick the heat lies where it is highest.

        Returns
        -------
        array, shape (H, W, 3), uint8, RGB
        """
        if direction not in ("older", "younger"):
            raise BoneageError(f"direction must be older or younger. Received: {direction!r}")
        heat = getattr(self, direction)
        # The darkest quarter of the colours would read as film.
        levels = np.round(255 * (0.25 + 0.75 * np.clip(heat, 0, 1))).astype(np.uint8)
        colours = cv2.cvtColor(cv2.applyColorMap(levels, cv2.COLORMAP_INFERNO), cv2.COLOR_BGR2RGB)
        share = opacity * np.clip(heat, 0, 1)[..., None] ** 0.7
        return ((1 - share) * self.radiograph[..., None] + share * colours).round().astype(np.uint8)


def words(months: float) -> str:
    """`99.6` -> `"8 years 4 months"`, rounded to the nearest month."""
    years, rest = divmod(max(0, round(float(months))), MONTHS_PER_YEAR)
    parts = []
    if years:
        parts.append(say("age.year") if years == 1 else say("age.years", years=years))
    if rest or not years:
        parts.append(in_months(rest))
    return " ".join(parts)


def in_months(months: int) -> str:
    """`1` -> `"1 month"`."""
    return say("age.month") if months == 1 else say("age.months", months=months)


def sex_name(male: bool) -> str:
    """As it stands within a sentence."""
    return say("case.male" if male else "case.female").lower()
