"""The job: do the heat maps of a run mean anything? Measurements, evidence against stated goals, and figures.

How many images each check takes weighs intervals against minutes: an audit of one EfficientNetB0 at 224 px costs about
four CPU minutes. The methods that ask a model hundreds of questions an image (`every_method`) get few images, and the
costly checks fewer still.
"""

import json
from pathlib import Path

import keras
import numpy as np
import pandas as pd
from tqdm import tqdm

from boneage.config import TrainConfig
from boneage.data import boxes as box
from boneage.data.cache import Cache, open_or_prepare
from boneage.errors import BoneageError
from boneage.explain import audit_checks as checks
from boneage.explain import audit_evidence, audit_figures, audit_metrics, audit_pictures, audit_regions, audit_tables
from boneage.explain.audit_average import average_by_age
from boneage.explain.audit_regions import Hands
from boneage.explain.figures import save
from boneage.explain.gradcam import CAM
from boneage.explain.maps import enlarge, normalise, weighted_map
from boneage.explain.methods import METHODS
from boneage.models.build import FEATURE_MAP
from boneage.models.probe import Probe
from boneage.models.weights import load_model
from boneage.paths import write_csv, write_text

TARGET = "older"
BATCH = 8  # no check has fewer images than that, or another shape would be compiled anew
CHUNK = 64  # images whose feature maps are held at a time
PHANTOMS = 48  # freshly drawn hands
REMOVED = 24  # images whose pixels are removed: the dearest check
STABLE = 24
SHUFFLED, DRAWS = 16, 4  # images, and shufflings of the weights
MOVED = 12  # phantoms, each once a region
SLOW, SLOW_SHUFFLED = 12, 8  # images of a slow method, down to the last convolution only
ALIKE = 1e-3  # maps that differ by less everywhere are one map


def audit(
    runs: list[Path],
    data: str | Path,
    boxes: str | Path | None,
    images: Path,
    set_name: str = "holdout",
    every_method: bool = False,
) -> list[Path]:
    """Audit the heat maps of runs.

    Parameters
    ----------
    runs
        Finished run folders of models that predict months and see the same frame. Several are compared with each other.
    data
        A folder of radiographs or a cache. Of the phantom, fresh hands are drawn instead, which no run has seen.
    boxes
        A folder that `boneage.data.boxes.read` understands; the phantom, which knows its truth, needs none.
    images
        Folder for the figures.
    set_name
        Set of the runs' splits that the headline is about.
    every_method
        Also the slow methods: some ten times as long.

    Returns
    -------
    list of Path
        One `<run>/audit/audit.json` a run, beside the tables that it is made from.

    Raises
    ------
    BoneageError
        No run, one without a months head, runs of different frames, real radiographs without boxes, no boxed image in
        the set.
    """
    configs = [TrainConfig.load(Path(run) / "config.json") for run in runs]
    if not configs:
        raise BoneageError("no run to audit; give at least one run folder, such as outputs/EfficientNetB0/joint")
    for run, config in zip(runs, configs, strict=True):
        if config.head == "classification":
            raise BoneageError(f"{run} predicts no months; an audit measures in months and needs such a head")
        if config.frame != configs[0].frame:
            raise BoneageError(f"{run} sees another frame than {runs[0]}; audit runs of one frame at a time")
    cache = open_or_prepare(data, max(config.size for config in configs), configs[0].frame)
    if not cache.phantom and boxes is None:
        raise BoneageError(f"real radiographs need --boxes, a folder with {box.BONES} and {box.OSSIFICATION}")
    marked = None if cache.phantom else box.read(boxes)
    done, seen = [], {}
    for run, config in zip(tqdm(runs, desc="auditing", unit="run"), configs, strict=True):
        hands, rest = _hands(Path(run), cache, marked, config.size, set_name)
        one = _Audit(Path(run), config, cache, hands, every_method)
        done.append(one.finish(rest, seen, Path(images), set_name))
    return done


def _hands(run: Path, cache: Cache, boxes: box.Boxes | None, size: int, set_name: str) -> tuple[Hands, Hands | None]:
    """Hands for the headline, and all other boxed ones, if any."""
    if boxes is None:
        return audit_regions.of_phantom(PHANTOMS, cache, size), None
    split = pd.read_csv(run / "split.csv", dtype=str, keep_default_na=False).set_index("id")["set"]
    known = set(cache.index["id"]) & set(split.index)
    table = pd.DataFrame({"id": [i for i in boxes.ids if i in known]})
    headline = (split.reindex(table["id"]) == set_name).to_numpy()
    if not headline.any():
        raise BoneageError(f"no image of the set {set_name} of {run} has boxes; name another with --set")
    table["set"] = np.where(headline, audit_metrics.HEADLINE, "other")
    parts = [audit_regions.of_boxes(cache, boxes, table[part], size) for part in (headline, ~headline) if part.any()]
    return parts[0], parts[1] if len(parts) > 1 else None


def _on_features(probe: Probe) -> checks.Explain:
    """All methods on the feature map, by one pass through the model for all."""
    methods = [method for method in METHODS.values() if issubclass(method, CAM)]

    def explain(images: np.ndarray, sex: np.ndarray) -> checks.Maps:
        parts: dict[str, list] = {method.title: [] for method in methods}
        for start in range(0, len(images), CHUNK):
            some = slice(start, start + CHUNK)
            features, gradients, _ = probe.feature_gradients(images[some], sex[some], TARGET, BATCH)
            for method in methods:
                maps = weighted_map(features, method.weights(features, gradients))
                parts[method.title].append(normalise(enlarge(maps, *images.shape[1:])))
        return {name: np.concatenate(part) for name, part in parts.items()}

    return explain


def _on_image(probe: Probe) -> checks.Explain:
    """All other methods, which ask many questions an image."""
    methods = [method(probe) for method in METHODS.values() if not issubclass(method, CAM)]
    return lambda images, sex: {method.title: method(images, sex, TARGET, BATCH)[0] for method in methods}


def without_twins(explain: checks.Explain, maps: checks.Maps) -> tuple[checks.Explain, checks.Maps]:
    """Methods that give the same maps of this model as one, named after all: `Grad-CAM = HiResCAM`.

    On a head that begins with the mean over the feature map's cells some methods cannot differ.
    """
    groups: list[list[str]] = []
    for name, of_one in maps.items():
        twin = next((g for g in groups if np.abs(maps[g[0]] - of_one).max() < ALIKE), None)
        twin.append(name) if twin else groups.append([name])
    named = {group[0]: " = ".join(group) for group in groups}

    def renamed(found: checks.Maps) -> checks.Maps:
        return {named[name]: of_one for name, of_one in found.items() if name in named}

    return lambda images, sex: renamed(explain(images, sex)), renamed(maps)


class _Audit:
    """One run's audit: its measurements as `tables`, and what follows from them."""

    def __init__(self, run: Path, config: TrainConfig, cache: Cache, hands: Hands, every_method: bool):
        self.run, self.config, self.cache, self.hands = run, config, cache, hands
        self.label = f"{config.backbone}/{config.run_name}"
        self.rng = np.random.default_rng(0)
        model = load_model(run / "model.keras")
        self.probe = Probe(model)
        explain = _on_features(self.probe)
        self.explain, self.maps = without_twins(explain, explain(hands.images, hands.sex))
        few = hands.spread(REMOVED)
        control = self._controls(model)
        seen = self.maps | control
        self.tables = {"localisation": [checks.localisation(m, hands, name) for name, m in seen.items()]}
        of_few = {name: self._of(few, m) for name, m in seen.items()}
        self.tables["curves"] = [checks.removal(self._predict, of_few, few, self.rng)]
        self.tables["stability"] = [checks.stability(self.explain, hands.spread(STABLE), self.rng)]
        last = audit_metrics.DEPTHS[-1]
        shuffled = checks.randomisation(model, self.explain, hands.spread(SHUFFLED), DRAWS, last, self.rng)
        self.tables["randomisation"] = [shuffled]
        if cache.phantom:
            growing = hands.take(np.flatnonzero(hands.table["months"].between(36, 168))).spread(MOVED)
            self.tables["moved"] = [checks.moved_regions(self.explain, self._predict, growing, cache)]
        if every_method:
            self._slow(model, few.spread(SLOW))

    def _slow(self, model: keras.Model, few: Hands) -> None:
        explain = _on_image(self.probe)
        maps = explain(few.images, few.sex)
        self.tables["localisation"] += [checks.localisation(m, few, name) for name, m in maps.items()]
        self.tables["curves"].append(checks.removal(self._predict, maps, few, self.rng))
        fewest = few.spread(SLOW_SHUFFLED)
        self.tables["stability"].append(checks.stability(explain, fewest, self.rng))
        self.tables["randomisation"].append(
            checks.randomisation(model, explain, fewest, 1, audit_metrics.TOP, self.rng)
        )

    def _predict(self, images: np.ndarray, sex: np.ndarray) -> np.ndarray:
        # The question that the maps ask: it is compiled already, and its gradients stop at the feature map.
        parts = [
            self.probe.feature_gradients(images[start : start + CHUNK], sex[start : start + CHUNK], TARGET, BATCH)[2]
            for start in range(0, len(images), CHUNK)
        ]
        return np.concatenate([part["months"][:, 0] for part in parts]).astype(float)

    def _controls(self, model: keras.Model) -> checks.Maps:
        size, count = self.config.size, len(self.hands)
        self.cells = model.get_layer(FEATURE_MAP).output.shape[1] or size // 32  # a side: what a map can tell apart
        random = audit_metrics.random_maps(count, self.cells, size, self.rng)
        return {audit_metrics.RANDOM: random, audit_metrics.CENTRE: audit_metrics.centre_blob(count, size)}

    def _rows(self, ids) -> np.ndarray:
        return pd.Index(self.hands.table["id"]).get_indexer(ids)

    def _of(self, few: Hands, maps: np.ndarray) -> np.ndarray:
        return maps[self._rows(few.table["id"])]

    def finish(self, rest: Hands | None, seen: dict, images: Path, set_name: str) -> Path:
        """Compare with the runs `seen` before (and join them), judge, write tables and figures."""
        self.tables["agreement"] = self._agreement(seen)
        self._judge()
        if rest is not None and self.chosen in self.maps:
            further = self.explain(rest.images, rest.sex)[self.chosen]
            self.tables["localisation"].append(checks.localisation(further, rest, self.chosen))
            self._judge()
        folder = self.run / audit_tables.FOLDER
        tables = {name: pd.concat(parts, ignore_index=True) for name, parts in self.tables.items() if parts}
        tables |= {"by_age": audit_evidence.by_age(tables["localisation"]), "evidence": self.evidence}
        for name, table in tables.items():
            write_csv(folder / f"{name}.csv", table)
        said = {
            "run": self.label, "phantom": self.cache.phantom, "set": set_name, "target": TARGET,
            "images": len(self.hands), "images_all": len(self.hands) + (len(rest) if rest is not None else 0),
            "hand_margin": audit_regions.HAND_MARGIN, "draws": DRAWS, "cells": self.cells,
        } | audit_evidence.summary(self.evidence)  # fmt: skip
        write_text(folder / audit_tables.SUMMARY, json.dumps(said, indent=1, ensure_ascii=False) + "\n")
        self._draw(images, tables)
        return folder / audit_tables.SUMMARY

    def _agreement(self, seen: dict) -> list[pd.DataFrame]:
        ids = list(self.hands.table["id"])
        ours, parts = {name: audit_metrics.coarse(m) for name, m in self.maps.items()}, []
        for other, (their_ids, theirs) in seen.items():
            common = [i for i in ids if i in set(their_ids)]
            for method in [m for m in ours if m in theirs and len(common) > 1]:
                a, b = (
                    ours[method][[ids.index(i) for i in common]],
                    theirs[method][[their_ids.index(i) for i in common]],
                )
                parts.append(checks.likeness(a, b).assign(id=common, method=method, other=other))
        seen[self.label] = (ids, ours)
        return parts

    def _judge(self) -> None:
        self.evidence = audit_evidence.evidence({n: pd.concat(parts) for n, parts in self.tables.items() if parts})
        self.chosen = audit_evidence.recommended(self.evidence)

    def _draw(self, images: Path, tables: dict[str, pd.DataFrame]) -> None:
        name, phantom = self.label.replace("/", "_"), self.cache.phantom
        label = f"{self.label} ({self.cells} × {self.cells} cells)"
        figure = audit_figures.audit_figure(self.evidence, tables, self.chosen, label, phantom)
        for suffix in (".png", ".pdf"):
            save(figure, images / f"audit_{name}{suffix}")
        shown = self.chosen if self.chosen in self.maps else next(iter(self.maps))
        located, maps = tables["localisation"], self.maps[shown]
        worst = audit_pictures.worst(located, shown)
        if len(worst):
            failed = self.hands.take(self._rows(worst["id"]))
            answers = self._predict(failed.images, failed.sex)
            figure = audit_pictures.failures(failed, self._of(failed, maps), worst, answers, shown, self.label, phantom)
            save(figure, images / f"audit_failures_{name}.png")
        if averages := average_by_age(self.hands, maps):
            figure = audit_pictures.averages(averages, tables["by_age"], shown, self.label, phantom)
            save(figure, images / f"audit_by_age_{name}.png")
