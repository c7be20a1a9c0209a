"""Is this a hand radiograph at all? A model's own features tell, without a second network.

The pooled features of hands lie near a space of few dimensions; what else comes in has most of its own outside of it.
The measure is the squared length of what is left of the standardised features once their part along the leading
principal components of training hands is taken away (as in ViM, Wang et al. 2022, without its logit).
"""

import base64
from dataclasses import dataclass

import numpy as np

COMPONENTS = 64  # at most half of the features there are
FALSE_REFUSALS = 0.01  # of the validation hands at first sight, before the slack
SLACK = 1.2  # for radiographs of other hospitals, which lie a little further off


@dataclass(frozen=True)
class Gate:
    """A fitted gate.

    Attributes
    ----------
    mean, sd
        (C,) of the training hands' pooled features.
    basis
        (up to 64, C) orthonormal: their leading principal components.
    threshold
        Squared length above which a picture is refused.
    """

    mean: np.ndarray
    sd: np.ndarray
    basis: np.ndarray
    threshold: float

    def strangeness(self, pooled: np.ndarray) -> np.ndarray:
        """Of pooled features (..., C): the share (...) of the threshold; above 1 is refused."""
        z = (pooled - self.mean) / self.sd
        along = z @ self.basis.T
        return ((z**2).sum(-1) - (along**2).sum(-1)) / self.threshold

    def to_dict(self) -> dict:
        """Plain JSON; arrays as base64 of half-precision floats."""
        table = np.vstack([self.mean, self.sd, self.basis]).astype("<f2")
        return {"threshold": self.threshold, "rows": len(table), "table": base64.b64encode(table.tobytes()).decode()}

    @classmethod
    def from_dict(cls, saved: dict) -> "Gate":
        table = np.frombuffer(base64.b64decode(saved["table"]), "<f2").reshape(saved["rows"], -1).astype("float32")
        return cls(table[0], table[1], table[2:], saved["threshold"])


def fit(training: np.ndarray, validation: np.ndarray) -> Gate:
    """A gate from pooled features (n, C) of training hands; its threshold from those of validation hands."""
    mean, sd = training.mean(0), training.std(0) + 1e-3 * training.std()
    _, _, axes = np.linalg.svd((training - mean) / sd, full_matrices=False)
    rounded = Gate.from_dict(
        Gate(mean, sd, axes[: min(COMPONENTS, axes.shape[1] // 2)], 1.0).to_dict()
    )  # as it will be read again
    return Gate(
        rounded.mean, rounded.sd, rounded.basis,
        SLACK * float(np.quantile(rounded.strangeness(validation), 1 - FALSE_REFUSALS)),
    )  # fmt: skip
