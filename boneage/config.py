"""The settings of a run: plain values with a comment beside each, saved as JSON, read back strictly."""

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path

from boneage.errors import BoneageError
from boneage.paths import write_text

CHOICES = {
    "head": ("joint", "regression", "classification"),
    "frame": ("whole", "hand", "squash"),
    "input_scale": ("backbone", "unit"),
    "loss": ("huber", "mse"),
    "schedule": ("cosine", "plateau"),
    "precision": ("auto", "float32", "mixed_bfloat16", "dense_bfloat16"),
}


@dataclass(frozen=True)
class Augmentation:
    """How a training radiograph is varied; every range is drawn uniformly unless said otherwise."""

    rotation: float = 20.0  # degrees, either way
    scale: float = 0.15  # zoom 1 - s .. 1 + s
    shift: float = 0.08  # of the image's side, either way, in x and y
    flip: float = 0.5  # chance of a left-right mirror
    brightness: float = 0.12  # added, of the full range, either way
    contrast: float = 0.25  # factor 1 - c .. 1 + c about mid-grey
    gamma: float = 2.0  # exponent 1/g .. g, log-uniform
    equalise: float = 0.1  # chance of a histogram equalisation
    curve: float = 0.0  # chance of a random rising tone curve in place of gamma
    local_contrast: float = 0.0  # chance of a contrast-limited adaptive equalisation
    background: float = 0.0  # black raised by up to this share of the full range, in half of the samples
    quantise: float = 0.0  # chance of few grey levels, 8..128
    erase: float = 0.0  # chance that a random rectangle at the border is blanked


@dataclass(frozen=True)
class Stage:
    """Some epochs at one image size: the steps of progressive resizing."""

    size: int  # pixels a side
    epochs: int


@dataclass(frozen=True)
class TrainConfig:
    """All that decides a run, beside the data."""

    backbone: str = "EfficientNetB0"  # a name of boneage.models.backbones
    head: str = "joint"  # joint | regression | classification
    name: str = ""  # folder under outputs/<backbone>/; empty: the head's name
    frame: str = "whole"  # what the model sees: whole | hand | squash, see boneage.data.frames
    initial_weights: str = "imagenet"  # imagenet | none | .weights.h5 of the backbone without top | a run's model.keras
    seed: int = 0

    stages: tuple[Stage, ...] = (Stage(128, 8), Stage(160, 4), Stage(224, 4))
    batch_size: int = 32
    warmup_epochs: float = 0.5  # head only, backbone frozen, at the first stage's size
    warmup_learning_rate: float = 2e-3
    learning_rate: float = 1e-3  # of AdamW, at its highest
    schedule: str = "cosine"  # one cosine over all stages | plateau: halved after epochs without a better validation
    ramp_steps: int = 200  # linear rise of the learning rate before the cosine, once the backbone is free
    weight_decay: float = 0.02  # decoupled; not on biases and normalisation; 0: plain Adam
    clip_norm: float = 1.0  # of the whole gradient; 0: as it is
    average: float = 0.997  # momentum of the weight average; 0: none
    batchnorm_batches: int = 40  # training batches that re-estimate BatchNorm statistics; 0: none
    patience: int = 5  # epochs of the last stage without a better validation score before stopping
    loss: str = "huber"  # of the months: huber | mse (of the age in standard deviations)
    huber_months: float = 12.0  # error at which the regression loss turns from squared to absolute
    classification_weight: float = 0.5  # of the cross-entropy in the joint loss
    teacher: str = ""  # a finished run's model.keras whose answers are mixed into the months to learn; empty: none
    teacher_weight: float = 0.5  # share of the teacher's answer in that mixture

    input_scale: str = "backbone"  # the range its weights expect | unit: 0..1 for all, a classic mistake (an ablation)
    dense: int = 256  # units of the shared hidden layer of the head
    dropout: float = 0.3
    use_sex: bool = True  # False: the sex input is there but multiplied by nothing (an ablation)
    precision: str = "auto"  # auto: measured choice of boneage.training.precision
    workers: int = 2  # threads that prepare batches
    deterministic: bool = False  # bit-identical repeats on one machine; costs speed (see benchmarks/)
    augmentation: Augmentation = field(default_factory=Augmentation)

    def __post_init__(self):
        for name, choices in CHOICES.items():
            if getattr(self, name) not in choices:
                raise BoneageError(f"{name} must be one of {', '.join(choices)}. Received: {getattr(self, name)!r}")
        if not self.stages or any(s.size < 16 or s.epochs < 1 for s in self.stages):
            raise BoneageError(
                f"stages need a size of at least 16 px and at least one epoch. Received: {self.stages!r}"
            )
        if min(self.batch_size, self.patience) < 1:
            raise BoneageError(
                f"batch_size and patience must be at least 1. Received: {self.batch_size!r} and {self.patience!r}"
            )
        if not 0 <= self.teacher_weight <= 1:
            raise BoneageError(f"teacher_weight must lie in [0, 1]. Received: {self.teacher_weight!r}")
        if not 0 <= self.average < 1:
            raise BoneageError(f"average must lie in [0, 1). Received: {self.average!r}")

    @property
    def run_name(self) -> str:
        """Folder of the run under `outputs/<backbone>/`."""
        return self.name or self.head

    @property
    def size(self) -> int:
        """Image side in pixels of the last stage: what the trained model is meant for."""
        return self.stages[-1].size

    @property
    def epochs(self) -> int:
        """Epochs over all stages, the head's warm-up not counted."""
        return sum(s.epochs for s in self.stages)

    def stage_of(self, epoch: int) -> Stage:
        """The stage that holds epoch number `epoch`, counted from 0."""
        for stage in self.stages:
            if epoch < stage.epochs:
                return stage
            epoch -= stage.epochs
        raise IndexError(epoch)

    def to_dict(self) -> dict:
        """Plain JSON types; `from_dict` gives the same config back."""
        return dataclasses.asdict(self) | {"stages": format_stages(self.stages)}

    @classmethod
    def from_dict(cls, values: dict) -> "TrainConfig":
        """Raises BoneageError for a key that does not exist or a value of the wrong type."""
        return _build(cls, values, "config")

    def save(self, path: Path) -> None:
        write_text(path, json.dumps(self.to_dict(), indent=2) + "\n")

    @classmethod
    def load(cls, path: Path) -> "TrainConfig":
        try:
            return cls.from_dict(json.loads(Path(path).read_text(encoding="utf-8")))
        except FileNotFoundError as error:
            raise BoneageError(f"no config file at {path}") from error
        except json.JSONDecodeError as error:
            raise BoneageError(f"{path} is not valid JSON: {error}") from error

    def with_settings(self, settings: list[str]) -> "TrainConfig":
        """A copy with `key=value` settings applied; `augmentation.rotation=0` reaches inside."""
        values = self.to_dict()
        for setting in settings:
            key, equals, text = setting.partition("=")
            if not equals:
                raise BoneageError(f"a setting is written key=value. Received: {setting!r}")
            inner, _, leaf = key.rpartition(".")
            place = values[inner] if isinstance(values.get(inner), dict) else values
            place[leaf if place is not values else key] = _parse(text)
        return type(self).from_dict(values)


def format_stages(stages: tuple[Stage, ...]) -> str:
    """`(Stage(128, 8), Stage(224, 4))` -> `"128x8,224x4"`."""
    return ",".join(f"{s.size}x{s.epochs}" for s in stages)


def parse_stages(text: str) -> tuple[Stage, ...]:
    """`"128x8,224x4"`: eight epochs at 128 px, then four at 224 px."""
    try:
        return tuple(Stage(*(int(n) for n in part.split("x"))) for part in text.split(","))
    except (ValueError, TypeError, AttributeError) as error:
        raise BoneageError(
            f'stages are written SIZExEPOCHS, comma between, as in "128x8,224x4". Received: {text!r}'
        ) from error


def _parse(text: str):
    try:
        return json.loads(text.lower() if text in ("True", "False") else text)
    except json.JSONDecodeError:
        return text


def _build(cls, values: dict, where: str):
    fields = {f.name: f for f in dataclasses.fields(cls)}
    if not isinstance(values, dict):
        raise BoneageError(f"{where} takes keys and values. Received: {values!r}")
    unknown = sorted(set(values) - set(fields))
    if unknown:
        raise BoneageError(f"unknown {where} key {', '.join(unknown)}; known keys: {', '.join(fields)}")
    made = {}
    for key, value in values.items():
        if key == "stages":
            value = parse_stages(value)
        elif key == "augmentation":
            value = _build(Augmentation, value, "augmentation")
        else:
            kind = fields[key].type
            if kind is float and isinstance(value, int) and not isinstance(value, bool):
                value = float(value)
            if type(value) is not kind:
                raise BoneageError(f"{where} key {key} takes a {kind.__name__}. Received: {value!r}")
        made[key] = value
    return cls(**made)
