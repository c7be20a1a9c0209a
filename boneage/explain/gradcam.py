"""Grad-CAM and its kin in three steps, gradients -> weights -> apply: each method is a way from gradients to weights.

All look at the feature map A (B, h, w, C) and at dy/dA of a score y; `boneage.models.probe` says which scores there
are. The heads of `boneage.models.build` begin with the mean of A over its cells, so that dy/dA is one number a channel,
whatever layers follow: on them Grad-CAM and HiResCAM give one map, and Grad-CAM++ and Layer-CAM (positive gradients
only) give another. They part on heads that know where in A something is.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

import numpy as np

from boneage.explain.maps import channel_weights, enlarge, normalise, weighted_map
from boneage.models.probe import Probe

if TYPE_CHECKING:
    import keras


class Method(ABC):
    """A way to explain one trained model.

    Parameters
    ----------
    model
        A model, or a `Probe` of it that several methods share, so that it is compiled once for all.

    Attributes
    ----------
    targets
        What can be explained, by the model's heads.

    Examples
    --------
    >>> maps, outputs = GradCAM(model)(images, sex, "older")  # doctest: +SKIP
    """

    title: str  # as printed

    def __init__(self, model: keras.Model | Probe):
        self.probe = model if isinstance(model, Probe) else Probe(model)
        self.targets = self.probe.targets

    @abstractmethod
    def __call__(self, images, sex, target: str, batch_size: int = 32) -> tuple[np.ndarray, dict]:
        """Maps (B, H, W) float32, 0..1, at image size, and the outputs; see `boneage.models.probe.Probe`."""

    def sex_effect(self, images, sex, batch_size: int = 32) -> np.ndarray:
        """What the sex input, which no map shows, adds in months; (B,)."""
        return self.probe.sex_effect(images, sex, batch_size)


class CAM(Method):
    """What the methods on the feature map share."""

    @staticmethod
    @abstractmethod
    def weights(features: np.ndarray, gradients: np.ndarray) -> np.ndarray:
        """Weights of the features, (B, C) or (B, h, w, C), from the features and dy/dA, both (B, h, w, C)."""

    def gradients(self, images, sex, target: str, batch_size: int = 32) -> tuple[np.ndarray, np.ndarray, dict]:
        """The first step, in the open: features, dy/dA and outputs."""
        return self.probe.feature_gradients(images, sex, target, batch_size)

    def __call__(self, images, sex, target: str, batch_size: int = 32) -> tuple[np.ndarray, dict]:
        features, gradients, outputs = self.gradients(images, sex, target, batch_size)
        maps = weighted_map(features, self.weights(features, gradients))
        return normalise(enlarge(maps, *np.shape(images)[1:3])), outputs


class GradCAM(CAM):
    """Selvaraju et al. 2017: a channel's weight is its mean gradient."""

    title = "Grad-CAM"

    @staticmethod
    def weights(features: np.ndarray, gradients: np.ndarray) -> np.ndarray:
        return channel_weights(gradients)


class GradCAMPlusPlus(CAM):
    """Chattopadhay et al. 2018: the positive gradients' mean, weighted by alpha (eq. 19).

    With g = dy/dA, alpha = g^2 / (2 g^2 + g^3 sum(A)), divided by its sum over the cells as the authors' code does. The
    paper's score is exp(y). That factor is left out: it is the same in a whole map and cancels when a map is divided by
    its maximum, while exp(120 months) is larger than any float32. Alpha depends on the unit of y (here months or
    logits), and may be negative or very large where g sum(A) is near -2: a weakness of the method.
    """

    title = "Grad-CAM++"

    @staticmethod
    def weights(features: np.ndarray, gradients: np.ndarray) -> np.ndarray:
        g, total = gradients.astype(float), features.sum((1, 2), keepdims=True, dtype=float)
        alpha = _ratio(g**2, 2 * g**2 + g**3 * total)
        alpha = _ratio(alpha, alpha.sum((1, 2), keepdims=True))
        return (alpha * np.maximum(g, 0)).sum((1, 2)).astype("float32")


class HiResCAM(CAM):
    """Draelos and Carin 2020, eq. 3: every cell keeps its own gradient.

    Their map is signed; here its positive part is kept, as for the others.
    """

    title = "HiResCAM"

    @staticmethod
    def weights(features: np.ndarray, gradients: np.ndarray) -> np.ndarray:
        return gradients


class LayerCAM(CAM):
    """Jiang et al. 2021, eq. 5 to 7: every cell keeps its own gradient where that is positive."""

    title = "Layer-CAM"

    @staticmethod
    def weights(features: np.ndarray, gradients: np.ndarray) -> np.ndarray:
        return np.maximum(gradients, 0)


def _ratio(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    """Their quotient; 0 where `below` is."""
    return np.divide(above, below, out=np.zeros(np.broadcast(above, below).shape), where=below != 0)
