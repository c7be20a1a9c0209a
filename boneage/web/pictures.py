"""The pictures of a result as data: URIs, so that a result is one whole and nothing waits on the server."""

import base64

import cv2
import numpy as np

JPEG_QUALITY = 88
HEAT_SIDE = 384  # px; a heat map comes from a grid of some 7 x 7 cells and holds nothing finer


def radiograph(grey: np.ndarray) -> str:
    """(H, W) uint8 as JPEG."""
    return _uri("jpeg", cv2.imencode(".jpg", grey, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])[1])


def heat(heatmap: np.ndarray) -> str:
    """(H, W) float 0..1 as transparent PNG, coloured and weighed as `boneage.serving.Answer.overlay` does."""
    height, width = heatmap.shape
    scale = min(1.0, HEAT_SIDE / max(height, width))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    heatmap = np.clip(cv2.resize(heatmap, size, interpolation=cv2.INTER_AREA), 0, 1)
    levels, alpha = ((255 * part).round().astype(np.uint8) for part in (0.25 + 0.75 * heatmap, heatmap**0.7))
    return _uri("png", cv2.imencode(".png", np.dstack([cv2.applyColorMap(levels, cv2.COLORMAP_INFERNO), alpha]))[1])


def _uri(kind: str, data) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
