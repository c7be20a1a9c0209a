"""What a DICOM file says about sex and age, as the form shows it for confirmation."""

from dataclasses import dataclass
from datetime import date, datetime

from boneage.labels import MONTHS_PER_YEAR


@dataclass(frozen=True)
class Tags:
    """Values for the form's fields; None where the file says nothing.

    Attributes
    ----------
    male
        PatientSex.
    born, taken
        PatientBirthDate and StudyDate.
    years, months
        PatientAge, where the dates do not tell the age.
    """

    male: bool | None = None
    born: date | None = None
    taken: date | None = None
    years: int | None = None
    months: int | None = None

    @classmethod
    def of(cls, dicom: dict | None) -> "Tags":
        """From the tags that `boneage.serving` reads; empty for other kinds of file."""
        if not dicom:
            return cls()
        male = {"M": True, "F": False}.get(dicom.get("sex"))
        born, taken = (_day(dicom.get(name)) for name in ("birth_date", "study_date"))
        age = dicom.get("age_months")
        if (born and taken) or age is None:
            return cls(male, born, taken)
        years, months = divmod(round(age), MONTHS_PER_YEAR)
        return cls(male, None, taken, years, months)


def _day(text: str | None) -> date | None:
    try:
        return datetime.strptime(text or "", "%Y%m%d").date()
    except ValueError:
        return None
