"""One radiograph answered by the serving core against Keras' `model.predict` of the same network, both on one core."""

import json
import os
import tempfile
from pathlib import Path

import cv2
import keras
import numpy as np

from benchmarks.common import Comparison, Result, compare
from boneage.config import TrainConfig
from boneage.data.frame import to_square
from boneage.data.phantom import render
from boneage.models.build import build
from boneage.serving.export import shrink, to_onnx
from boneage.serving.gate import fit
from boneage.serving.predictor import SETTINGS, Predictor

SIZE, ROUNDS, CALLS = 224, 7, 10


def run() -> list[Result]:
    if hasattr(os, "sched_setaffinity"):  # threads that TensorFlow starts from here on inherit it
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    cv2.setNumThreads(1)
    model = build(TrainConfig(), 127.0, 41.0, size=SIZE)
    grey = render(120, 1, 0, 768).image
    square, _, _ = to_square(grey, SIZE)
    inputs = {"image": square[None, :, :, None].astype("float32"), "sex": np.ones((1, 1), "float32")}
    data = cv2.imencode(".png", grey)[1].tobytes()
    with tempfile.TemporaryDirectory() as folder:
        predictor = Predictor(_run_folder(model, Path(folder) / "EfficientNetB0" / "bench"))
    jobs = {
        "keras": lambda: model.predict(inputs, verbose=0),
        "look": lambda: predictor.look(grey, True),
        "runtime": lambda: predictor.runtime(square, True),
        "with maps": lambda: predictor(data, True),
        "without": lambda: predictor(data, True, maps=False),
    }
    for job in jobs.values():
        job()

    def versus(first: str, second: str) -> Comparison:
        return compare(_repeated(jobs[first]), _repeated(jobs[second]), ROUNDS)

    computed, looked, mapped = versus("keras", "runtime"), versus("keras", "look"), versus("with maps", "without")
    network = "EfficientNetB0, 224 px, one image, one core"
    return [
        Result(f"`model.predict` against the export with maps ({network})", computed.cpu, "x", 5, "at least"),
        Result("CPU of the export with maps", 1000 * float(np.median(computed.second[:, 1])), "ms", 25, "at most"),
        Result("`model.predict` against hand finder, square, network and gate", looked.cpu, "x"),
        Result("A whole answer with maps against one without (768 px PNG)", mapped.cpu, "x", 2, "at most"),
        Result("CPU of a whole answer with maps (768 px PNG)", 1000 * float(np.median(mapped.first[:, 1])), "ms"),
    ]  # fmt: skip


def _repeated(job):
    def calls() -> int:
        for _ in range(CALLS):
            job()
        return CALLS

    return calls


def _run_folder(model: keras.Model, folder: Path) -> Path:
    """An exported run of a network that has learned nothing, its gate always open: neither changes the time."""
    folder.mkdir(parents=True)
    (folder / "model.onnx").write_bytes(shrink(to_onnx(model, SIZE)).SerializeToString())
    (folder / "run.json").write_text(json.dumps({"phantom": True}))
    TrainConfig().save(folder / "config.json")
    features = np.random.default_rng(0).normal(size=(64, 1280)).astype("float32")
    gate = fit(features, 1e6 * features)
    settings = {"square": 256, "ages": [0, 240], "half_widths": [20.0] * 4, "gate": gate.to_dict()}
    (folder / SETTINGS).write_text(json.dumps(settings))
    return folder
