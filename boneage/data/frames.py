"""What a square may show of a radiograph, by name: the whole frame, or the upright hand."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from boneage.data import frame, hand


@dataclass(frozen=True)
class Frame:
    """A way from a radiograph to a square."""

    locate: frame.Locate
    mark: Callable[[], str]  # tells one version of this frame from another: caches of an older one are made anew
    finds_hand: bool = False

    def to_square(self, grey: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray, tuple[float, float]]:
        """As `boneage.data.frame.to_square`."""
        return frame.to_square(grey, size, self.locate)


FRAMES = {
    "whole": Frame(frame.whole_frame, lambda: "whole frame"),
    "hand": Frame(
        hand.upright_hand,
        lambda: f"hand {hand.CROP_MARGIN} {hand.MIN_CONFIDENCE} {hashlib.sha256(hand.weights()).hexdigest()}",
        finds_hand=True,
    ),
}
