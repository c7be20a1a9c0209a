"""Methods that look at the image itself, by gradients or by hiding parts of it, and the list of all methods.

The field's library for these, xplique, cannot be used: 2.0.2 wants TensorFlow 2.20 or older, and fails on a model with
two inputs. Ours are thin: variants of every image go through the model in full batches, each with its own sex.

A pixel's attribution alone is noise. Those of a small neighbourhood are summed (a Gaussian window), before the
positive part is kept.
"""

from abc import abstractmethod
from collections.abc import Callable, Iterator

import cv2
import numpy as np

from boneage.explain.gradcam import GradCAM, GradCAMPlusPlus, HiResCAM, LayerCAM, Method
from boneage.explain.maps import background, enlarge, normalise
from boneage.models.probe import Probe

WINDOW = 1 / 56  # standard deviation of the neighbourhood, as a share of the image's side
ROUNDING = 2.0**-20  # changes of a score below this share of it are what float32 makes of nothing


def variant_answers(
    ask: Callable, images: np.ndarray, sex: np.ndarray, count: int, vary: Callable, batch_size: int
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Answers about `count` variants of each image, in full batches.

    Parameters
    ----------
    ask
        From pictures (n, H, W) and sexes to answers (n, ...).
    vary
        From images (n, H, W) and the numbers (n,) of the variants wanted of them, 0 .. count - 1, to pictures.

    Yields
    ------
    image, variant, answer
        Numbers (n,) of image and variant, and what `ask` said, (n, ...).
    """
    total = count * len(images)
    for start in range(0, total, min(batch_size, total)):
        # Beyond the end it begins anew, and what comes of it is cut: one shape, compiled once.
        image, variant = np.divmod(np.arange(start, start + min(batch_size, total)) % total, count)
        answer = ask(vary(images[image], variant), sex[image])
        kept = slice(total - start)
        yield image[kept], variant[kept], answer[kept]


def hidden_scores(
    probe: Probe, images: np.ndarray, sex: np.ndarray, target: str, masks: np.ndarray, batch_size: int
) -> np.ndarray:
    """Scores (B, n) of each image behind each of n masks (n, H, W), 0..1: 1 is wholly replaced by `background`."""
    blurred, found = background(images), np.zeros((len(images), len(masks)))
    both = np.stack([images, blurred - images], 1)

    def vary(pair: np.ndarray, variant: np.ndarray) -> np.ndarray:
        return pair[:, 0] + masks[variant] * pair[:, 1]

    def ask(pictures: np.ndarray, sexes: np.ndarray) -> np.ndarray:
        return probe.scores(pictures, sexes, target, batch_size)[0]

    for image, variant, scores in variant_answers(ask, both, sex, len(masks), vary, batch_size):
        found[image, variant] = scores
    return found


class OnImage(Method):
    """What the methods below share."""

    def __call__(self, images, sex, target: str, batch_size: int = 32) -> tuple[np.ndarray, dict]:
        scores, outputs = self.probe.scores(images, sex, target, batch_size)
        images, sex = np.asarray(images, "float32").reshape(np.shape(images)[:3]), np.asarray(sex, "float32")
        maps = self._attributions(images, sex, target, batch_size, scores)
        return normalise(np.maximum(maps, 0)).astype("float32"), outputs

    @abstractmethod
    def _attributions(self, images, sex, target: str, batch_size: int, scores: np.ndarray) -> np.ndarray:
        """Signed maps (B, H, W) of images (B, H, W) whose scores are `scores` (B,)."""

    def _mean_gradients(self, images, sex, target: str, batch_size: int, count: int, vary: Callable) -> np.ndarray:
        total = np.zeros(images.shape)

        def ask(pictures: np.ndarray, sexes: np.ndarray) -> np.ndarray:
            return self.probe.image_gradients(pictures, sexes, target, batch_size)[0]

        for image, _, gradients in variant_answers(ask, images, sex, count, vary, batch_size):
            np.add.at(total, image, gradients)
        return total / count


class SmoothGrad(OnImage):
    """Smilkov et al. 2017: the gradient by grey levels, averaged over noisy copies; its size.

    How strongly a place could move the score, not which way: the maps for older and for younger are the same.
    """

    title = "SmoothGrad"
    copies, noise = 24, 0.15  # noise: its standard deviation as a share of the image's range of grey levels

    def _attributions(self, images, sex, target, batch_size, scores):
        fields = np.random.default_rng(0).normal(0, self.noise, (self.copies // 2, *images.shape[1:]))
        fields = _with_mirrors(fields.astype("float32"))

        def vary(pictures: np.ndarray, copy: np.ndarray) -> np.ndarray:
            return pictures + fields[copy] * np.ptp(pictures, (1, 2))[:, None, None]

        return _neighbourhood(np.abs(self._mean_gradients(images, sex, target, batch_size, self.copies, vary)))


class IntegratedGradients(OnImage):
    """Sundararajan et al. 2017: the gradients along the straight way from a black image, times the way.

    They add up to the difference of the two scores (`attributions`). What is as black as the baseline gets nothing,
    whatever the model does there: that such a map avoids the black film is no evidence for the model.
    """

    title = "Integrated Gradients"
    steps = 32  # of the midpoint rule

    def attributions(self, images, sex, target: str, batch_size: int = 32) -> np.ndarray:
        """What each pixel adds to the score over that of a black image; (B, H, W), months or logits, signed."""
        images = np.asarray(images, "float32").reshape(np.shape(images)[:3])

        def vary(pictures: np.ndarray, step: np.ndarray) -> np.ndarray:
            return pictures * ((step + 0.5) / self.steps).astype("float32")[:, None, None]

        return images * self._mean_gradients(images, np.asarray(sex), target, batch_size, self.steps, vary)

    def _attributions(self, images, sex, target, batch_size, scores):
        return _neighbourhood(self.attributions(images, sex, target, batch_size))


class Occlusion(OnImage):
    """Zeiler and Fergus 2014: how far the score falls when a window of the image is hidden."""

    title = "Occlusion"
    cells = 14  # a side; a window covers 2 x 2 of them and moves by one

    def _attributions(self, images, sex, target, batch_size, scores):
        windows = np.zeros((self.cells - 1,) * 2 + (self.cells,) * 2, "float32")
        for y in range(self.cells - 1):
            for x in range(self.cells - 1):
                windows[y, x, y : y + 2, x : x + 2] = 1
        masks = enlarge(windows.reshape(-1, self.cells, self.cells), *images.shape[1:])
        fall = scores[:, None] - hidden_scores(self.probe, images, sex, target, masks, batch_size)
        return np.tensordot(_beyond_rounding(fall, scores), masks, 1) / masks.sum(0)


class RISE(OnImage):
    """Petsiuk et al. 2018: random halves of the image are hidden; which pixels, when shown, go with a high score?

    The paper weights masks by their scores. Ours is the slope of the score over what is shown of a pixel, which is the
    same up to a factor for endless masks, and does without the mean score: 120 months times the masks' own unevenness
    would drown a change of one.
    """

    title = "RISE"
    masks, cells = 256, 7  # cells a side of a mask before it is enlarged, as in the paper

    def _attributions(self, images, sex, target, batch_size, scores):
        height, width = images.shape[1:]
        rng, tall, wide = np.random.default_rng(0), -(-height // self.cells), -(-width // self.cells)
        coarse = (rng.random((self.masks // 2, self.cells + 1, self.cells + 1)) < 0.5).astype("float32")
        large = enlarge(coarse, (self.cells + 1) * tall, (self.cells + 1) * wide)
        corners = zip(rng.integers(0, tall, len(large)), rng.integers(0, wide, len(large)), strict=True)
        hidden = np.stack([m[y : y + height, x : x + width] for m, (y, x) in zip(large, corners, strict=True)])
        hidden = _with_mirrors(hidden)
        found = hidden_scores(self.probe, images, sex, target, hidden, batch_size)
        change = _beyond_rounding(found - found.mean(1, keepdims=True), scores)
        shown = hidden.mean(0) - hidden
        return np.tensordot(change, shown, 1) / (shown**2).sum(0)


def _neighbourhood(attributions: np.ndarray) -> np.ndarray:
    sigma = WINDOW * min(attributions.shape[1:])
    return np.stack([cv2.GaussianBlur(a, (0, 0), sigma, borderType=cv2.BORDER_REFLECT) for a in attributions])


def _with_mirrors(fields: np.ndarray) -> np.ndarray:
    """Random fields (n, H, W) and their mirror images: a mirrored hand then has the mirrored map."""
    return np.concatenate([fields, fields[:, :, ::-1]])


def _beyond_rounding(changes: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Changes (B, n) of scores (B,), those that rounding makes set to 0: a model that sees nothing has no map."""
    return np.where(np.abs(changes) > ROUNDING * np.maximum(np.abs(scores), 1)[:, None], changes, 0)


# By the name that `boneage explain --method` takes.
METHODS: dict[str, type[Method]] = {
    "gradcam": GradCAM, "gradcam++": GradCAMPlusPlus, "hirescam": HiResCAM, "layercam": LayerCAM,
    "smoothgrad": SmoothGrad, "integrated-gradients": IntegratedGradients, "rise": RISE, "occlusion": Occlusion,
}  # fmt: skip
