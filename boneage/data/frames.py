"""What a square may show of a radiograph, by name: the whole frame, the upright hand, or the squashed frame."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from boneage.data import hand
from boneage.data.frame import to_square
from boneage.data.squash import to_squashed


@dataclass(frozen=True)
class Frame:
    """A way from a radiograph to a square."""

    to_square: Callable[[np.ndarray, int], tuple[np.ndarray, np.ndarray, tuple[float, float]]]  # as in `data.frame`
    mark: Callable[[], str]  # tells one version of this frame from another: caches of an older one are made anew
    finds_hand: bool = False


FRAMES = {
    "whole": Frame(to_square, lambda: "whole frame"),
    "hand": Frame(
        partial(to_square, locate=hand.upright_hand),
        lambda: f"hand {hand.CROP_MARGIN} {hand.MIN_CONFIDENCE} {hashlib.sha256(hand.weights()).hexdigest()}",
        finds_hand=True,
    ),
    "squash": Frame(to_squashed, lambda: "squashed frame"),
}
