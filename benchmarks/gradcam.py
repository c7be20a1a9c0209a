"""What a Grad-CAM map costs beyond the prediction it explains: batched maps against batched forward passes."""

import numpy as np

from benchmarks.common import Result, compare, rate
from boneage.config import TrainConfig
from boneage.explain.gradcam import GradCAM
from boneage.models.build import build
from boneage.models.compiled import predictor

SIZE, BATCH, ROUNDS = 224, 32, 5


def run() -> list[Result]:
    model = build(TrainConfig(), 127.0, 41.0, size=SIZE)
    explain, forward = GradCAM(model), predictor(model)
    images = np.random.default_rng(0).integers(0, 256, (BATCH, SIZE, SIZE, 1)).astype("float32")
    sex = np.ones((BATCH, 1), "float32")

    def maps() -> int:
        explain(images, sex, "older", BATCH)
        return BATCH

    def predictions() -> int:
        forward({"image": images, "sex": sex})
        return BATCH

    maps()
    predictions()
    cost = compare(maps, predictions, ROUNDS)
    return [
        Result("A Grad-CAM map against a forward pass (EfficientNetB0, 224 px)", cost.wall, "x"),
        Result("Grad-CAM maps", rate(cost.first), "images/s"),
    ]
