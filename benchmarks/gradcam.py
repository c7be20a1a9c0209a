"""What a Grad-CAM map costs: against tf-keras-vis on the same flat model, and against the passes that it is made of.

Forward and backward means one compiled pass to the score and back to the image, which a map needs less than: its
gradient ends at the feature map. tf-keras-vis is given the same batch; it works eagerly and rebuilds its model each
time.
"""

from collections.abc import Callable

import numpy as np

from benchmarks.common import Result, compare, rate
from boneage.config import TrainConfig
from boneage.explain.gradcam import GradCAM
from boneage.models.build import build
from boneage.models.probe import Probe

SIZE, BATCH, ROUNDS = 224, 16, 3


def run() -> list[Result]:
    model = build(TrainConfig(), 127.0, 41.0, size=SIZE)
    probe = Probe(model)
    images = np.random.default_rng(0).integers(0, 256, (BATCH, SIZE, SIZE, 1)).astype("float32")
    sex = np.ones((BATCH, 1), "float32")
    explain = GradCAM(probe)

    def maps(n: int = BATCH) -> int:
        explain(images[:n], sex[:n], "older", n)
        return n

    def forward(n: int = BATCH) -> int:
        probe.scores(images[:n], sex[:n], "older", n)
        return n

    def forward_and_backward(n: int = BATCH) -> int:
        probe.image_gradients(images[:n], sex[:n], "older", n)
        return n

    others = _tf_keras_vis(model, images, sex)
    for job in (maps, forward, forward_and_backward):  # compiled, for both shapes
        job()
        job(1)
    others()
    faster, passes = compare(others, maps, ROUNDS), compare(maps, forward_and_backward, ROUNDS)
    one = compare(lambda: maps(1), lambda: forward_and_backward(1), 4 * ROUNDS)
    plain = compare(maps, forward, ROUNDS)
    return [
        Result(
            "Grad-CAM maps, times as fast as tf-keras-vis (EfficientNetB0, 224 px)", faster.wall, "x", 5, "at least"
        ),
        Result("the same in CPU-seconds", faster.cpu, "x"),
        Result("A batch of maps against one forward and backward pass", passes.wall, "x", 1.3, "at most"),
        Result("the same in CPU-seconds", passes.cpu, "x", 1.3, "at most"),
        Result("One map, warm, against one forward and backward pass", one.wall, "x", 2, "at most"),
        Result("the same in CPU-seconds", one.cpu, "x", 2, "at most"),
        Result("A batch of maps against one forward pass", plain.wall, "x"),
        Result("Grad-CAM maps", rate(plain.first), "images/s"),
    ]


def _tf_keras_vis(model, images: np.ndarray, sex: np.ndarray) -> Callable[[], int]:
    import keras
    from tf_keras_vis.gradcam import Gradcam

    single = keras.Model([model.input["image"], model.input["sex"]], model.get_layer("months").output)
    explain = Gradcam(single, clone=False)

    def maps() -> int:
        explain(
            lambda months: months[:, 0], [images, sex], penultimate_layer="feature_map",
            seek_penultimate_conv_layer=False, expand_cam=False,
        )  # fmt: skip
        return len(images)

    return maps
