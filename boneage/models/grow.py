"""A trained EfficientNet grown into a larger one that computes the same function: Net2Net for compound scaling.

Chen, Goodfellow, Shlens, "Net2Net: Accelerating learning via knowledge transfer", ICLR 2016. A repeated channel's
outgoing kernels are divided by its number of copies (wider); an added block is a copy of the block before it whose
last BatchNorm scales by zero, so that only the residual path speaks at first (deeper, as in progressive stacking).
"""

import re
from collections import defaultdict

import keras
import numpy as np
from keras import layers

from boneage.errors import BoneageError

NOISE = 0.01  # relative, on the copied kernels: two copies without it would stay equal for ever


def grow(model: keras.Model, source: keras.Model, noise: float = NOISE, seed: int = 0) -> None:
    """Give `model` the function of `source`.

    Parameters
    ----------
    model, source
        Models of `boneage.models.build` on two sizes of EfficientNet, `model` at least as wide and deep everywhere,
        with the same outputs and as many hidden units in the head.
    noise
        Standard deviation of the relative change of each copied kernel weight; 0 keeps the function to rounding.

    Raises
    ------
    BoneageError
        Either is no EfficientNet, or `model` is narrower or shallower somewhere, or has another head.
    """
    random = np.random.default_rng(seed)
    theirs, ours = _blocks(source), _blocks(model)
    if not theirs or theirs.keys() != ours.keys() or any(len(ours[s]) < len(theirs[s]) for s in ours):
        raise BoneageError(
            f"{source.name} does not fit {model.name}; start from a run of the same backbone and head, or, for an "
            "EfficientNet, from one of a smaller EfficientNet with that head"
        )

    def spread(name: str, origin: str) -> np.ndarray:
        """(wide,) which channel of `origin`'s output each channel of `name`'s repeats."""
        have, want = (m.get_layer(n).output.shape[-1] for m, n in ((source, origin), (model, name)))
        if want < have:
            raise BoneageError(f"{source.name} cannot be grown into {model.name}: {name} is narrower, {want} < {have}")
        return np.arange(want) % have

    def put(name: str, origin: str, rows: np.ndarray | None, columns: np.ndarray) -> None:
        """Fill a layer: input channels `rows` (None: it has none, or few and fixed), output channels `columns`."""
        layer, values = model.get_layer(name), source.get_layer(origin).get_weights()
        if isinstance(layer, layers.BatchNormalization):
            values = [v[columns] for v in values]
        else:
            kernel = values[0]
            if isinstance(layer, layers.DepthwiseConv2D):
                kernel = kernel[:, :, columns]
            else:
                if rows is not None:
                    copies = np.bincount(rows)[rows]
                    kernel = np.take(kernel, rows, -2) / copies[:, None]
                kernel = np.take(kernel, columns, -1)
            kernel = kernel * (1 + noise * random.standard_normal(kernel.shape))
            values = [kernel, *(bias[columns] for bias in values[1:])]
        layer.set_weights(values)

    channels = spread("stem_conv", "stem_conv")
    put("stem_conv", "stem_conv", None, channels)
    put("stem_bn", "stem_bn", None, channels)
    for stage in ours:
        outgoing = spread(ours[stage][0] + "project_conv", theirs[stage][0] + "project_conv")
        for i, name in enumerate(ours[stage]):
            added = i >= len(theirs[stage])
            origin = theirs[stage][min(i, len(theirs[stage]) - 1)]
            into = channels if i == 0 else outgoing
            if not added or len(theirs[stage]) > 1:  # the first block of a stage has no like: else all stays random
                wide = into
                if any(layer.name == name + "expand_conv" for layer in model.layers):
                    wide = spread(name + "expand_conv", origin + "expand_conv")
                    put(name + "expand_conv", origin + "expand_conv", into, wide)
                    put(name + "expand_bn", origin + "expand_bn", None, wide)
                put(name + "dwconv", origin + "dwconv", None, wide)
                put(name + "bn", origin + "bn", None, wide)
                reduced = spread(name + "se_reduce", origin + "se_reduce")
                put(name + "se_reduce", origin + "se_reduce", wide, reduced)
                put(name + "se_expand", origin + "se_expand", reduced, wide)
                put(name + "project_conv", origin + "project_conv", wide, outgoing)
                put(name + "project_bn", origin + "project_bn", None, outgoing)
            if added:
                last = model.get_layer(name + "project_bn")
                gamma, beta, *statistics = last.get_weights()
                last.set_weights([0 * gamma, 0 * beta, *statistics])
        channels = outgoing
    top = spread("top_conv", "top_conv")
    put("top_conv", "top_conv", channels, top)
    put("top_bn", "top_bn", None, top)
    _head(model, source, top)


def _blocks(model: keras.Model) -> dict[int, list[str]]:
    """Prefixes of the names of each stage's blocks, in order."""
    found = defaultdict(list)
    for layer in model.layers:
        if match := re.fullmatch(r"(block(\d)[a-z]_)project_conv", layer.name):
            found[int(match[2])].append(match[1])
    return dict(found)


def _head(model: keras.Model, source: keras.Model, top: np.ndarray) -> None:
    """All that does not belong to the convolutions: the same, but for the pooled channels in front."""
    for ours, theirs in zip(*([v for v in m.layers if _plain(v)] for m in (model, source)), strict=True):
        values = theirs.get_weights()
        if ours.name == "head_dense":
            counts = np.bincount(top)
            pooled, rest = np.split(values[0], [len(counts)])
            values = [np.concatenate([pooled[top] / counts[top][:, None], rest]), *values[1:]]
        if [v.shape for v in values] != [tuple(v.shape) for v in ours.weights]:
            raise BoneageError(f"{source.name} and {model.name} differ in {ours.name}; give both the same head")
        ours.set_weights(values)
        if isinstance(ours, layers.Normalization):
            ours.finalize_state()


def _plain(layer: layers.Layer) -> bool:
    return bool(layer.weights) and isinstance(layer, (layers.Normalization, layers.Dense))
