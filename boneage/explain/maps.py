"""Maps as numbers: weights -> apply (Selvaraju et al. 2017, eq. 1 and 2), and the way to an image's size and frame.

NumPy and OpenCV only: what serves a model without Keras uses the same equations.
"""

import cv2
import numpy as np

BLUR = 0.1  # standard deviation of the neutral background's blur, as a share of the shorter side


def channel_weights(gradients: np.ndarray) -> np.ndarray:
    """Eq. 1: how much each channel matters; the spatial mean of (B, h, w, C) gradients, (B, C)."""
    return gradients.mean((1, 2))


def weighted_map(features: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Eq. 2: the positive part of the sum over channels of weights times features (B, h, w, C); (B, h, w).

    Weights are one a channel, (B, C), or one a cell and channel, (B, h, w, C).
    """
    where = "bc" if weights.ndim == 2 else "bhwc"
    return np.maximum(np.einsum(f"bhwc,{where}->bhw", features, weights), 0)


def enlarge(maps: np.ndarray, height: int, width: int) -> np.ndarray:
    """Maps (B, h, w) at image size, (B, height, width) float32, bilinear."""
    return np.stack([cv2.resize(m.astype("float32"), (width, height), interpolation=cv2.INTER_LINEAR) for m in maps])


def normalise(maps: np.ndarray) -> np.ndarray:
    """Each of (B, H, W) non-negative maps divided by its maximum; one that is zero everywhere stays zero."""
    highest = maps.max((1, 2), keepdims=True)
    return maps / np.where(highest > 0, highest, 1)


def background(images: np.ndarray) -> np.ndarray:
    """What hidden parts are replaced by: images (B, H, W) so blurred that no bone is left, but their brightness.

    Black would do worse: a network has seen no hands with black holes, and would be asked about the holes.
    """
    blurred = [cv2.GaussianBlur(i, (0, 0), BLUR * min(i.shape), borderType=cv2.BORDER_REPLICATE) for i in images]
    return np.stack(blurred)


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
