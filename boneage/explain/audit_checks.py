"""The checks of an audit: each takes maps, or what makes them, and gives a tidy table with one row a measurement."""

from collections.abc import Callable, Iterator
from itertools import pairwise

import cv2
import keras
import numpy as np
import pandas as pd

from boneage.data.cache import Cache
from boneage.data.phantom_anatomy import REGIONS
from boneage.explain import audit_metrics as measure
from boneage.explain.audit_metrics import DEPTHS, DISTURBANCES, HEAD
from boneage.explain.audit_regions import Hands, moved
from boneage.explain.maps import background
from boneage.models.batchnorm import BatchNormEstimator
from boneage.models.build import FEATURE_MAP, HEAD_PREFIX, backbone_layers
from boneage.models.weights import assign

Maps = dict[str, np.ndarray]  # method -> (B, S, S), 0..1
Explain = Callable[[np.ndarray, np.ndarray], Maps]  # of images (B, S, S) and sex (B,)
Predict = Callable[[np.ndarray, np.ndarray], np.ndarray]  # of the same, months (B,)

FRACTIONS = np.array([0, 0.05, 0.15, 0.3, 0.6, 1])  # of the pixels
ROAD_FRACTIONS = np.array([0, 0.1, 0.3, 0.5])
TURN = 8.0  # degrees
NOISE = 6.0  # grey levels, standard deviation


def localisation(maps: np.ndarray, hands: Hands, method: str) -> pd.DataFrame:
    """Energy and peak of each map in each region that the image is known to have.

    Returns
    -------
    DataFrame
        `id`, `set`, `months`, `male`, `method`, `region`, `energy` (share of the map, 0..1, NaN of a zero map), `area`
        (share of the radiograph that the region covers: what a map spread evenly over the radiograph would score),
        `peak` (1 where the map's maximum lies inside). Energy on the padding counts as outside of everything.
    """
    parts = []
    for region, mask in hands.regions.items():
        there = (mask & hands.film).sum((1, 2)) / hands.film.sum((1, 2))
        table = hands.table[["id", "set", "months", "male"]].assign(
            method=method, region=region, energy=measure.energy(maps, mask), area=there,
            peak=measure.peak_inside(maps, mask),
        )  # fmt: skip
        parts.append(table[there > 0])
    return pd.concat(parts, ignore_index=True)


def cascade(model: keras.Model) -> Iterator[tuple[str, list[keras.layers.Layer]]]:
    """Steps of `DEPTHS` from the head down to the first convolution, each with the layers that it adds."""
    body = [x for x in backbone_layers(model) if x.weights and not isinstance(x, keras.layers.Normalization)]
    above = model.layers[[x.name for x in model.layers].index(FEATURE_MAP) :]
    yield HEAD, [x for x in model.layers if x.weights and (x in above or x.name.startswith(HEAD_PREFIX))]
    kernels = [i for i, x in enumerate(body) if any(len(w.shape) >= 2 for w in x.weights)]
    n = len(body)
    starts = [n, kernels[-1], *(min(kernels[-1], round(n * share)) for share in (0.75, 0.5, 0.25)), 0]
    for name, (end, start) in zip(DEPTHS[2:], pairwise(starts), strict=True):
        yield name, body[start:end]


def forget(layer: keras.layers.Layer, rng: np.random.Generator) -> None:
    """Take from a layer what it has learnt, but not the range of its answers.

    A kernel's weights are shuffled and get signs at random: their mean, times a sum of features that are all positive,
    would otherwise drive every unit behind it to one side, and a network of dead units has no map at all. Vectors
    (biases, a BatchNorm's scale and offset) move by one order, for they fit each other.
    """
    order = None
    for weight in layer.weights:
        values = np.array(keras.ops.convert_to_numpy(weight))
        if values.dtype.kind != "f":  # a Dropout's seed is no weight
            continue
        if values.ndim > 1:
            signs = rng.choice(np.array([-1, 1], values.dtype), values.shape)
            weight.assign(rng.permutation(values.ravel()).reshape(values.shape) * signs)
        else:
            order = rng.permutation(len(values)) if order is None else order
            weight.assign(values[order])


def randomisation(
    model: keras.Model, explain: Explain, hands: Hands, draws: int, last: str, rng: np.random.Generator
) -> pd.DataFrame:
    """Maps of a model that forgets, from the head down (Adebayo et al. 2018, cascading randomisation).

    See `forget` for how a layer forgets. The statistics of a BatchNorm that has forgotten are taken from these images
    anew, as in a network that has never learnt: by the old ones, its answers would all fall on one side.

    Parameters
    ----------
    explain
        Reads the model's weights at every call.
    draws
        How many shufflings.
    last
        Of `DEPTHS`: where to stop.

    Returns
    -------
    DataFrame
        `id`, `method`, `draw`, `depth` (of `DEPTHS`), `zero` (1 where the trained model's map or this one has no heat),
        `rank_correlation` and `ssim` with the trained model's map: NaN where there is no heat to compare.
    """
    kept = [np.array(keras.ops.convert_to_numpy(w)) for w in model.weights]
    before = _coarse(explain(hands.images, hands.sex))
    steps = [(DEPTHS[0], []), *cascade(model)][: DEPTHS.index(last) + 1]
    statistics = BatchNormEstimator(model)
    batches = [({"image": hands.images[..., None], "sex": hands.sex[:, None]},)]
    parts = []
    try:
        for draw in range(draws):
            assign(model, model.weights, kept)
            intact = list(statistics.layers)
            for depth, layers in steps:
                for layer in layers:
                    forget(layer, rng)
                intact = [layer for layer in intact if layer not in layers]
                if len(intact) < len(statistics.layers):
                    learnt = [v for layer in intact for v in (layer.moving_mean, layer.moving_variance)]
                    values = [np.array(keras.ops.convert_to_numpy(v)) for v in learnt]
                    statistics.run(batches, len(batches))
                    assign(model, learnt, values)
                after = before if depth == DEPTHS[0] else _coarse(explain(hands.images, hands.sex))
                for name, now in after.items():
                    warm = before[name].any((1, 2)) & now.any((1, 2))
                    parts.append(
                        pd.DataFrame({
                            "id": hands.table["id"], "method": name, "draw": draw, "depth": depth,
                            "rank_correlation": np.where(warm, measure.rank_correlation(before[name], now), np.nan),
                            "ssim": np.where(warm, measure.ssim(before[name], now), np.nan), "zero": ~warm,
                        })
                    )  # fmt: skip
    finally:
        assign(model, model.weights, kept)
    return pd.concat(parts, ignore_index=True).assign(zero=lambda t: t["zero"].astype(int))


def removal(predict: Predict, maps: Maps, hands: Hands, rng: np.random.Generator) -> pd.DataFrame:
    """What the prediction does as pixels go, or come, in the order of a map.

    Deletion replaces the highest pixels first by a blurred ground (RISE, Petsiuk et al. 2018); insertion puts them into
    the blurred image; ROAD fills the removed from their surroundings instead, so that the hole does not show.

    Returns
    -------
    DataFrame
        `id`, `method`, `curve` ("deletion", "insertion", "road"), `fraction` of the pixels, `months` predicted,
        `change`: months away, either way, from the prediction of the whole image.
    """
    images, sex = hands.images, hands.sex
    ground, whole = background(images), predict(images, sex)
    bare, pixels = predict(ground, sex), images[0].size
    parts = []

    def note(method: str, curve: str, fraction: float, months: np.ndarray) -> None:
        row = {"id": hands.table["id"], "method": method, "curve": curve, "fraction": fraction}
        parts.append(pd.DataFrame(row | {"months": months, "change": np.abs(months - whole)}))

    for method, of_method in maps.items():
        rank = measure.order(of_method, rng)
        for fraction in FRACTIONS:
            first = rank < round(fraction * pixels)
            if fraction in (0, 1):
                without, only = (whole, bare) if fraction == 0 else (bare, whole)
            else:
                without = predict(np.where(first, ground, images), sex)
                only = predict(np.where(first, images, ground), sex)
            note(method, "deletion", fraction, without)
            note(method, "insertion", fraction, only)
        for fraction in ROAD_FRACTIONS:
            first = rank < round(fraction * pixels)
            filled = [measure.impute(image, gone, rng) for image, gone in zip(images, first, strict=True)]
            note(method, "road", fraction, predict(np.stack(filled), sex) if fraction else whole)
    return pd.concat(parts, ignore_index=True)


def stability(explain: Explain, hands: Hands, rng: np.random.Generator) -> pd.DataFrame:
    """Likeness of a map and of that of the disturbed image, the disturbance undone.

    Returns
    -------
    DataFrame
        `id`, `method`, `disturbance` (of `DISTURBANCES`), `rank_correlation`, and `another`: that with the map of
        another hand, which is what the common place of hands in the frame alone would give.
    """
    images, sex, size = hands.images, hands.sex, hands.images.shape[1]
    middle = ((size - 1) / 2, (size - 1) / 2)
    turn, back = (cv2.getRotationMatrix2D(middle, degrees, 1.0) for degrees in (TURN, -TURN))
    seen = np.ones((size, size), "float32")
    for matrix in (turn, back):
        seen = cv2.warpAffine(seen, matrix, (size, size))

    def warped(stack: np.ndarray, matrix: np.ndarray) -> np.ndarray:
        return np.stack([cv2.warpAffine(x, matrix, (size, size)) for x in stack])

    changed = {
        "flip": images[:, :, ::-1],
        "rotation": warped(images, turn),
        "noise": np.clip(images + rng.normal(0, NOISE, images.shape), 0, 255),
    }
    undo = {"flip": lambda m: m[:, :, ::-1], "rotation": lambda m: warped(m, back), "noise": lambda m: m}
    inside = {"rotation": measure.coarse(seen[None])[0] > 0.99}
    plain = _coarse(explain(images, sex))
    parts = []
    for name in DISTURBANCES:
        again = explain(changed[name].astype("float32"), sex)
        for method, maps in again.items():
            found = likeness(plain[method], measure.coarse(undo[name](maps)), inside.get(name))
            parts.append(found.assign(id=hands.table["id"], method=method, disturbance=name))
    return pd.concat(parts, ignore_index=True)


def likeness(a: np.ndarray, b: np.ndarray, inside: np.ndarray | None = None) -> pd.DataFrame:
    """Of coarse maps (B, 28, 28) of the same hands: `rank_correlation`, and `another`, that with another hand's."""
    return pd.DataFrame({
        "rank_correlation": measure.rank_correlation(a, b, inside),
        "another": measure.rank_correlation(np.roll(a, 1, 0), b, inside),
    })  # fmt: skip


def moved_regions(explain: Explain, predict: Predict, hands: Hands, cache: Cache) -> pd.DataFrame:
    """The experiment that only a phantom allows: one region alone matures by two years. Does the map change there?

    Returns
    -------
    DataFrame
        `id`, `method`, `region` ("all regions" for all four together), `map_energy` (share of the map's absolute change
        that lies in the region), `image_energy` (share of the image's own: how well the mask holds what was
        redrawn), `area` (of the region, as a share of the radiograph), `months_change` of the prediction.
    """
    before, months, parts = explain(hands.images, hands.sex), predict(hands.images, hands.sex), []
    for region in (*REGIONS, None):
        older = moved(hands, region, cache)
        mask = older.regions[region or "ossification"]
        row = {
            "id": hands.table["id"], "region": region or "all regions",
            "image_energy": measure.energy(np.abs(older.images - hands.images), mask),
            "area": (mask & hands.film).sum((1, 2)) / hands.film.sum((1, 2)),
            "months_change": predict(older.images, hands.sex) - months,
        }  # fmt: skip
        for name, after in explain(older.images, hands.sex).items():
            shifted = measure.energy(np.abs(after - before[name]), mask)
            parts.append(pd.DataFrame(row | {"method": name, "map_energy": shifted}))
    return pd.concat(parts, ignore_index=True)


def _coarse(maps: Maps) -> Maps:
    return {name: measure.coarse(of_one) for name, of_one in maps.items()}
