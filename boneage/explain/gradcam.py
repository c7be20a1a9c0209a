"""Grad-CAM in three steps: gradients -> weights -> apply (Selvaraju et al. 2017, eq. 1 and 2).

Which score y is explained is a target:

    "older", "younger"        +months and -months. What pushes the estimate up, and what pushes it down.
    "0-5", "5-10", ...        the age group's logit, that is, its score before the softmax.

The logit is the paper's y^c. A probability would not do: its gradient is scaled by p (1 - p), so that it fades for
exactly the images that the model is sure of, and it mixes in, with a minus sign, what speaks for the other groups.
"""

import cv2
import keras
import numpy as np

from boneage.errors import BoneageError
from boneage.labels import GROUPS
from boneage.models.build import FEATURE_MAP
from boneage.models.compiled import feature_gradients

DIRECTIONS = ("older", "younger")


def channel_weights(gradients: np.ndarray) -> np.ndarray:
    """Eq. 1: how much each channel matters; the spatial mean of (B, h, w, C) gradients, (B, C)."""
    return gradients.mean((1, 2))


def weighted_map(features: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Eq. 2: the positive part of the sum over channels of weights (B, C) times features (B, h, w, C); (B, h, w)."""
    return np.maximum(np.einsum("bhwc,bc->bhw", features, weights), 0)


def enlarge(maps: np.ndarray, height: int, width: int) -> np.ndarray:
    """Maps (B, h, w) at image size, (B, height, width) float32, bilinear."""
    return np.stack([cv2.resize(m.astype("float32"), (width, height), interpolation=cv2.INTER_LINEAR) for m in maps])


def normalise(maps: np.ndarray) -> np.ndarray:
    """Each of (B, H, W) non-negative maps divided by its maximum; one that is zero everywhere stays zero."""
    highest = maps.max((1, 2), keepdims=True)
    return maps / np.where(highest > 0, highest, 1)


def to_original(cam: np.ndarray, matrix: np.ndarray, height: int, width: int, square: int | None = None) -> np.ndarray:
    """A map in the frame of the original radiograph.

    Parameters
    ----------
    cam
        (S, S) map at the model's image size.
    matrix
        (2, 3) affine map from the radiograph's pixels to a square's, as in `boneage.data.frame` and a cache's index.
    height, width
        Of the radiograph, in pixels.
    square
        Side in pixels of the square that `matrix` leads to, where it is not S: the cache's size.

    Returns
    -------
    array, shape (height, width), float32
        Zero where the radiograph lies outside of the square.
    """
    scale = len(cam) / (square or len(cam))
    border = 1  # the edge goes on for half a pixel, up to where the square really ends
    padded = cv2.copyMakeBorder(cam.astype("float32"), *[border] * 4, cv2.BORDER_REPLICATE)
    into = np.array([[scale, 0, scale / 2 - 0.5 + border], [0, scale, scale / 2 - 0.5 + border]])
    into = into @ np.vstack([matrix, [0, 0, 1]])
    return cv2.warpAffine(padded, into, (width, height), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)


class GradCAM:
    """Grad-CAM of one trained model, compiled once, for batches of any number of images.

    Parameters
    ----------
    model
        From `boneage.models.build` or a run's `model.keras`; flat, with a layer `feature_map`. It is read as it is now:
        train it further, and a new `GradCAM` is wanted.

    Attributes
    ----------
    targets
        What can be explained, by the model's heads.

    Examples
    --------
    >>> maps, outputs = GradCAM(model)(images, sex, "older")  # doctest: +SKIP
    """

    def __init__(self, model: keras.Model):
        features = model.get_layer(FEATURE_MAP).output
        inputs = {i.name: i for i in model.inputs}
        names = {layer.name for layer in model.layers}
        outputs = {name: model.get_layer(name).output for name in ("months", "groups") if name in names}
        self.targets, scores = (), []
        if "months" in outputs:
            self.targets += DIRECTIONS
            scores += [outputs["months"], -outputs["months"]]
        if "groups" in outputs:
            self.targets += GROUPS
            scores += [_logits(model.get_layer("groups"))]
        outputs["scores"] = keras.ops.concatenate(scores, axis=-1)  # one column a target
        self._compiled = feature_gradients(
            keras.Model(inputs["image"], features), keras.Model([features, inputs["sex"]], outputs)
        )

    def gradients(self, images, sex, target: str, batch_size: int = 32) -> tuple[np.ndarray, np.ndarray, dict]:
        """The first step, in the open.

        Parameters
        ----------
        images
            (B, H, W, 1) or (B, H, W), grey 0..255.
        sex
            (B,) or (B, 1), male = 1.
        target
            One of `targets`.
        batch_size
            Images at a time.

        Returns
        -------
        features, gradients : (B, h, w, C) float32, the feature map and dy/dA
        outputs : dict of `months` (B, 1) and, or, `groups` (B, 4)

        Raises
        ------
        BoneageError
            For a target that the model has not, or for no image.
        """
        if target not in self.targets:
            raise BoneageError(f"this model can explain {', '.join(self.targets)}. Received: {target!r}")
        images = np.asarray(images, "float32").reshape(*np.shape(images)[:3], 1)
        sex = np.asarray(sex, "float32").reshape(-1, 1)
        if len(images) == 0 or len(images) != len(sex):
            raise BoneageError(
                f"expected images and as many sexes, at least one. Received: {len(images)} and {len(sex)}"
            )
        direction = np.eye(len(self.targets), dtype="float32")[self.targets.index(target)]
        batch_size = min(batch_size, len(images))
        parts = []
        for start in range(0, len(images), batch_size):
            # A last, smaller batch is filled up and cut again: another shape would be compiled anew.
            rows = np.arange(start, start + batch_size) % len(images)
            parts.append(self._compiled(images[rows], sex[rows], direction))
        joined = keras.tree.map_structure(lambda *v: np.concatenate(v)[: len(images)], *parts)
        features, gradients, outputs = joined
        del outputs["scores"]
        return features.astype("float32"), gradients.astype("float32"), outputs

    def __call__(self, images, sex, target: str, batch_size: int = 32) -> tuple[np.ndarray, dict]:
        """Maps (B, H, W) float32, 0..1, at image size, and the model's outputs; parameters as in `gradients`."""
        features, gradients, outputs = self.gradients(images, sex, target, batch_size)
        maps = weighted_map(features, channel_weights(gradients))
        return normalise(enlarge(maps, *np.shape(images)[1:3])), outputs

    def sex_effect(self, images, sex, batch_size: int = 32) -> np.ndarray:
        """What the sex input adds in months: the prediction as given minus the one with the other sex; (B,)."""
        if "older" not in self.targets:
            raise BoneageError("the effect of sex in months needs a model with a months output")
        given, other = (self.gradients(images, s, "older", batch_size)[2]["months"] for s in (sex, 1 - np.asarray(sex)))
        return (given - other)[:, 0]


def _logits(groups: keras.layers.Dense) -> keras.KerasTensor:
    """The scores before the softmax of the output layer, (B, 4), from a copy of it."""
    linear = keras.layers.Dense(groups.units, name="logits", dtype="float32")
    logits = linear(groups.input)
    linear.set_weights(groups.get_weights())
    return logits
