"""A trained model as something to be asked: its outputs, the score of a target, and what that score's gradients are.

Which score y is explained is a target:

    "older", "younger"        +months and -months. What pushes the estimate up, and what pushes it down.
    "0-5", "5-10", ...        the age group's logit, that is, its score before the softmax.

The logit is what Selvaraju et al. (2017) call y^c. A probability would not do: its gradient is scaled by p (1 - p), so
that it fades for exactly the images that the model is sure of, and it mixes in, with a minus sign, what speaks for the
other groups.
"""

from functools import cached_property

import keras
import numpy as np

from boneage.errors import BoneageError
from boneage.labels import GROUPS
from boneage.models.build import FEATURE_MAP
from boneage.models.compiled import predictor, score_gradients

DIRECTIONS = ("older", "younger")


class Probe:
    """One model, compiled once a kind of question, for batches of any number of images.

    Parameters
    ----------
    model
        From `boneage.models.build` or a run's `model.keras`; flat, with a layer `feature_map`. Its weights are read at
        every call: they may change in between.

    Attributes
    ----------
    targets
        What can be asked about, by the model's heads.

    Notes
    -----
    All questions take `images` (B, H, W, 1) or (B, H, W), grey 0..255; `sex` (B,) or (B, 1), male = 1; one of
    `targets`; and `batch_size`, the images at a time. All raise a `BoneageError` for a target that the model has not
    and for no image. `outputs` is a dict of `months` (B, 1) and, or, `groups` (B, 4).
    """

    def __init__(self, model: keras.Model):
        self._inputs = {i.name: i for i in model.inputs}
        self._features = model.get_layer(FEATURE_MAP).output
        names = {layer.name for layer in model.layers}
        self._outputs = {name: model.get_layer(name).output for name in ("months", "groups") if name in names}
        self.targets, scores = (), []
        if "months" in names:
            self.targets += DIRECTIONS
            scores += [self._outputs["months"], -self._outputs["months"]]
        if "groups" in names:
            groups = model.get_layer("groups")
            self.targets += GROUPS
            scores += [_BeforeSoftmax(groups)(groups.input)]
        self._outputs["scores"] = keras.ops.concatenate(scores, axis=-1)  # one column a target

    @cached_property
    def _forward(self):
        model = predictor(keras.Model(self._inputs, self._outputs))
        return lambda image, sex, direction: (model({"image": image, "sex": sex}),)

    @cached_property
    def _by_features(self):
        return self._gradients(self._features)

    @cached_property
    def _by_image(self):
        return self._gradients(self._inputs["image"])

    def _gradients(self, at: keras.KerasTensor):
        image, sex = self._inputs["image"], self._inputs["sex"]
        return score_gradients(keras.Model(image, at), keras.Model([at, sex], self._outputs))

    def scores(self, images, sex, target: str, batch_size: int = 32) -> tuple[np.ndarray, dict]:
        """The target's scores (B,), float64, months or logits, and the outputs."""
        (outputs,) = self._ask("_forward", images, sex, target, batch_size)
        scores = outputs.pop("scores")[:, self.targets.index(target)]
        return scores.astype(float), outputs

    def feature_gradients(self, images, sex, target: str, batch_size: int = 32) -> tuple[np.ndarray, np.ndarray, dict]:
        """The feature map A and dy/dA, both (B, h, w, C) float32, and the outputs."""
        features, gradients, outputs = self._ask("_by_features", images, sex, target, batch_size)
        del outputs["scores"]
        return features.astype("float32"), gradients.astype("float32"), outputs

    def image_gradients(self, images, sex, target: str, batch_size: int = 32) -> tuple[np.ndarray, dict]:
        """dy/dx by the image's grey levels, (B, H, W) float32, and the outputs."""
        _, gradients, outputs = self._ask("_by_image", images, sex, target, batch_size)
        del outputs["scores"]
        return gradients[..., 0].astype("float32"), outputs

    def sex_effect(self, images, sex, batch_size: int = 32) -> np.ndarray:
        """What the sex input adds in months: the prediction as given minus the one with the other sex; (B,)."""
        if "older" not in self.targets:
            raise BoneageError("the effect of sex in months needs a model with a months output")
        # Asked with the gradients, which cost little: whoever wants the effect has had a map, and it is compiled.
        given, other = (
            self.feature_gradients(images, s, "older", batch_size)[2]["months"] for s in (sex, 1 - np.asarray(sex))
        )
        return (given - other)[:, 0]

    def _ask(self, question: str, images, sex, target: str, batch_size: int) -> tuple:
        if target not in self.targets:
            raise BoneageError(f"this model can explain {', '.join(self.targets)}. Received: {target!r}")
        images = np.asarray(images, "float32").reshape(*np.shape(images)[:3], 1)
        sex = np.asarray(sex, "float32").reshape(-1, 1)
        if len(images) == 0 or len(images) != len(sex):
            raise BoneageError(
                f"expected images and as many sexes, at least one. Received: {len(images)} and {len(sex)}"
            )
        direction = np.eye(len(self.targets), dtype="float32")[self.targets.index(target)]
        run = getattr(self, question)
        batch_size = min(batch_size, len(images))
        parts = []
        for start in range(0, len(images), batch_size):
            # A last, smaller batch is filled up and cut again: another shape would be compiled anew.
            rows = np.arange(start, start + batch_size) % len(images)
            parts.append(run(images[rows], sex[rows], direction))
        return keras.tree.map_structure(lambda *v: np.concatenate(v)[: len(images)], *parts)


class _BeforeSoftmax(keras.layers.Layer):
    """The scores (B, n) of a Dense layer without its activation; it shares that layer's weights."""

    def __init__(self, dense: keras.layers.Dense):
        super().__init__(name="logits", dtype="float32")
        self.dense = dense

    def call(self, inputs):
        return keras.ops.matmul(inputs, self.dense.kernel) + self.dense.bias
