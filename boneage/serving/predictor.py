"""One radiograph, one answer: bytes in, bone age out. What command line, web page and DICOM node all stand on.

Nothing here imports Keras or TensorFlow.
"""

import json
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np

from boneage.config import TrainConfig
from boneage.data import hand as finder
from boneage.data.frame import to_square, whole_frame
from boneage.data.frames import FRAMES
from boneage.errors import BoneageError
from boneage.explain.maps import enlarge, normalise, to_original
from boneage.labels import GROUPS
from boneage.serving import door
from boneage.serving.answer import Answer, ImageFacts, Refused, Warning, outside_ages, sex_name, words
from boneage.serving.gate import Gate
from boneage.serving.interval import interval
from boneage.serving.runtime import Runtime
from boneage.serving.shelf import locate_run
from boneage.texts import say

SHOWN = 1024  # pixels: the longer side of maps and picture, at most
ENLARGED = 1.25  # a radiograph that the model sees enlarged by more has too few pixels
CONVINCING = 0.6  # share of the gate's threshold below which a second look has to stay
SETTINGS = "serving.json"  # in the run folder; see boneage.serving.calibrate


@dataclass(frozen=True)
class Look:
    """What the model saw of a picture and said, before it becomes an answer.

    Attributes
    ----------
    grey
        (H, W) as it was read: bone bright.
    inverted
        Whether that is the inversion of what came in.
    turns
        Quarter turns counter-clockwise after which the model saw it.
    hand
        What the hand finder says of it so turned, where there is one.
    matrix
        (2, 3), from pixels of `grey` to the square that the model read.
    window
        As `boneage.data.frame.to_square` gives it.
    outputs
        Of `boneage.serving.runtime.Runtime`.
    strangeness
        Above 1: no hand radiograph; see `boneage.serving.gate`.
    """

    grey: np.ndarray
    inverted: bool
    turns: int
    hand: finder.Hand | None
    matrix: np.ndarray
    window: tuple[float, float]
    outputs: dict[str, np.ndarray]
    strangeness: float


class Predictor:
    """Answers for one exported run.

    Parameters
    ----------
    run
        "EfficientNetB0", "EfficientNetB0/joint" or a run folder; None: the best exported model, by validation.
    threads
        Of one prediction.

    Examples
    --------
    >>> Predictor()(Path("hand.png").read_bytes(), male=False).text  # doctest: +SKIP
    '8 years 4 months'
    """

    def __init__(self, run: str | Path | None = None, threads: int = 1):
        self.run = locate_run(run)
        self.model = f"{self.run.parent.name}/{self.run.name}"
        self.runtime = Runtime(self.run, threads)
        facts, settings = _read(self.run / "run.json"), _read(self.run / SETTINGS)
        self.phantom, self._frame = bool(facts["phantom"]), FRAMES[TrainConfig.load(self.run / "config.json").frame]
        self._square, self._ages = settings["square"], settings["ages"]
        self._widths, self._gate = settings["half_widths"], Gate.from_dict(settings["gate"])

    def inspect(self, data: bytes) -> ImageFacts:
        """Decode and read the tags, without a prediction; raises `Refused` as a prediction does at this step."""
        return door.enter(data)[1]

    def __call__(self, data: bytes, male: bool | None, *, maps: bool = True) -> Answer:
        """Bone age of the hand in a file.

        Parameters
        ----------
        data
            The bytes of a PNG, JPEG, WebP, TIFF or DICOM file.
        male
            None: what a DICOM file says.
        maps
            Whether `older` and `younger` are wanted.

        Raises
        ------
        Refused
            With a `code`: "too_large", "unreadable", "empty", "body_part", "sex_missing", "not_a_hand".
        """
        grey, facts = door.enter(data)
        male, warnings = _sex(male, facts.dicom)
        look = self.look(grey, male)
        if not look.strangeness <= 1:  # true for NaN too
            raise Refused("not_a_hand", say("refusals.not_a_hand"))
        facts = replace(facts, window=look.window, inverted=look.inverted, hand=told_hand(look))
        return self._answer(look, facts, male, warnings + self._warnings(look, facts), maps)

    def look(self, grey: np.ndarray, male: bool) -> Look:
        """Run the model on a decoded picture; where it looks foreign as it is, also turned, and the other way about.

        More looks are more chances for what is no hand; so any but the first has to convince, see `CONVINCING`.

        Raises
        ------
        Refused
            "empty", for a picture of one grey level.
        """
        dark = door.bones_look_dark(grey)
        first = self._look(grey, male, dark)
        if first.strangeness <= 1 and not dark:
            return first
        others = [(not dark, 0)]
        if first.strangeness > 1:
            others += [(dark, turns) for turns in (1, 2, 3)]
        looks = [self._look(grey, male, *other) for other in others]
        judged = [replace(look, strangeness=look.strangeness / CONVINCING) for look in looks]
        return min(first, *judged, key=lambda look: look.strangeness)

    def _look(self, grey: np.ndarray, male: bool, invert: bool, turns: int = 0) -> Look:
        grey = door.inverted(grey) if invert else grey
        turned, turn = door.turned(grey, turns)
        try:
            hand = finder.find(turned) if finder.WEIGHTS.is_file() else None
            if hand and self._frame.finds_hand:  # found once, not twice
                place = finder.upright(hand, *turned.shape, self._square) if hand.sure else None
                locate = whole_frame if place is None else lambda *_: place
                square, matrix, window = to_square(turned, self._square, locate)
            else:
                square, matrix, window = self._frame.to_square(turned, self._square)
        except BoneageError as error:
            raise Refused("empty", str(error)) from error
        outputs = self.runtime(square, male)
        strangeness = float(self._gate.strangeness(outputs["pooled"]))
        return Look(grey, invert, turns, hand, matrix @ turn, window, outputs, strangeness)

    def _warnings(self, look: Look, facts: ImageFacts) -> list[Warning]:
        found = []
        if self.phantom:
            found.append(Warning("phantom_model", say("warnings.phantom_model")))
        if look.inverted:
            found.append(Warning("inverted", say("warnings.inverted")))
        if look.turns:
            found.append(Warning("turned", say("warnings.turned")))
        if look.hand and not look.hand.sure:
            if self._two_hands(look):
                found.append(Warning("two_hands", say("warnings.two_hands")))
            else:
                found.append(Warning("hand_not_found", say("warnings.hand_not_found")))
        scale = np.sqrt(abs(np.linalg.det(look.matrix[:, :2]))) * self.runtime.size / self._square
        if scale > ENLARGED:
            found.append(Warning("low_resolution", say("warnings.low_resolution", times=f"{scale:.1f}")))
        return found + outside_ages(facts.dicom and facts.dicom["age_months"])

    def _two_hands(self, look: Look) -> bool:
        """Whether each half of a picture passes for a hand of its own."""
        middle = look.grey.shape[1] // 2
        try:
            halves = [self._look(half, True, False) for half in (look.grey[:, :middle], look.grey[:, middle:])]
        except Refused:  # an empty half
            return False
        return all(half.hand.sure and half.strangeness <= 1 for half in halves)

    def _answer(self, look: Look, facts: ImageFacts, male: bool, warnings: list[Warning], maps: bool) -> Answer:
        outputs = look.outputs
        months = max(0.0, float(outputs["months"][0]))
        low, high = interval(months, self._widths)
        first, last = self._ages
        if not first <= months <= last:
            text = say("warnings.near_limits", first=words(first), last=words(last))
            warnings.append(Warning("near_limits", text))
        picture, to_grey = _shrunk(look.grey)
        height, width = picture.shape
        directions = {"older": np.zeros(picture.shape, "float32"), "younger": np.zeros(picture.shape, "float32")}
        if maps:
            heat = normalise(enlarge(np.stack([outputs[f"cam_{d}"] for d in directions]), *[self.runtime.size] * 2))
            whole = look.matrix @ to_grey
            directions = {
                d: np.clip(to_original(m, whole, height, width, self._square), 0, 1)
                for d, m in zip(directions, heat, strict=True)
            }
        return Answer(
            months=months,
            text=words(months),
            low=low,
            high=high,
            groups=dict(zip(GROUPS, map(float, outputs["groups"]), strict=True)) if "groups" in outputs else {},
            sex_effect=months - float(outputs["months_other"][0]),
            male=male,
            model=self.model,
            warnings=tuple(warnings),
            image=facts,
            radiograph=_windowed(picture, look.window),
            **directions,
        )


def _read(path: Path) -> dict:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BoneageError(
            f"no readable {path.name} in {path.parent}; export the run again: `boneage export`"
        ) from error


def _sex(male: bool | None, dicom: dict | None) -> tuple[bool, list[Warning]]:
    """The sex to use, and what there is to say about it."""
    tag = dicom and dicom["sex"]
    said = {"M": True, "F": False}.get(tag)
    if male is None and said is None:
        raise Refused("sex_missing", say("refusals.sex_other", said=repr(tag)) if tag else say("refusals.sex_missing"))
    if male is None or said in (None, bool(male)):
        return bool(said if male is None else male), []
    text = say("warnings.sex_differs", said=sex_name(said), used=sex_name(male))
    return bool(male), [Warning("sex_differs", text)]


def told_hand(look: Look) -> dict | None:
    """What an answer says of the hand finder; see `boneage.serving.answer.ImageFacts`."""
    if look.hand is None:
        return None
    angle = (look.hand.angle + 90 * look.turns + 180) % 360 - 180  # in the picture as it came in
    return {"found": look.hand.sure, "confidence": round(look.hand.confidence, 3), "angle": round(angle, 1)}


def _shrunk(grey: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The picture at the size shown, and the (3, 3) map from its pixels to those of `grey`."""
    height, width = grey.shape
    scale = min(1.0, SHOWN / max(height, width))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    fx, fy = width / size[0], height / size[1]
    picture = grey if scale == 1 else cv2.resize(grey, size, interpolation=cv2.INTER_AREA)
    return picture, np.array([[fx, 0, (fx - 1) / 2], [0, fy, (fy - 1) / 2], [0, 0, 1]])


def _windowed(grey: np.ndarray, window: tuple[float, float]) -> np.ndarray:
    low, high = window
    levels = np.arange(np.iinfo(grey.dtype).max + 1)
    return np.take((np.clip((levels - low) / (high - low), 0, 1) * 255).round().astype(np.uint8), grey)
