"""One function builds every model: grey pixels and sex in, months and age-group probabilities out."""

from collections.abc import Iterator

import keras
from keras import layers

from boneage.config import TrainConfig
from boneage.labels import GROUPS
from boneage.models.backbones import get

FEATURE_MAP = "feature_map"  # (B, h, w, C): what Grad-CAM looks at, under this name in every model
HEAD_PREFIX = "head_"


def build(config: TrainConfig, months_mean: float, months_sd: float, size: int | None = None) -> keras.Model:
    """A flat model whose preprocessing and target scaling are part of the graph.

    Parameters
    ----------
    config
        Uses `backbone`, `head`, `input_scale`, `dense`, `dropout`, `use_sex`.
    months_mean, months_sd
        Of the training images' bone ages, in months.
    size
        Fixes the image side in pixels: a saved model then tells what it wants. None: any side, as training needs.

    Returns
    -------
    keras.Model
        Inputs `image` (B, H, W, 1), grey 0..255, and `sex` (B, 1), male = 1.
        Outputs, as a dict: `months` (B, 1) and, or, `groups` (B, 4), softmax over `boneage.labels.GROUPS`; float32.
        Weights are random; see `boneage.models.weights` for warm starts.
    """
    spec = get(config.backbone)
    image = keras.Input((size, size, 1), name="image")
    sex = keras.Input((1,), name="sex")

    x = layers.Concatenate(name="three_channels")([image, image, image])
    scale, offset = (spec.scale, spec.offset) if config.input_scale == "backbone" else (1 / 255, 0.0)
    if (scale, offset) != (1.0, 0.0):
        x = layers.Rescaling(scale, offset, name="backbone_range")(x)
    backbone = spec.builder(include_top=False, weights=None, input_tensor=x)
    features = layers.Identity(name=FEATURE_MAP)(backbone.output)

    # The head stays float32 under a mixed policy: at 128..256 months a bfloat16 step is one month.
    pooled = layers.GlobalAveragePooling2D(name=HEAD_PREFIX + "pool", dtype="float32")(features)
    coded = layers.Rescaling(2.0, -1.0, name=HEAD_PREFIX + "sex_range", dtype="float32")(sex)
    if not config.use_sex:
        coded = layers.Rescaling(0.0, name=HEAD_PREFIX + "sex_off", dtype="float32")(coded)
    coded = layers.Dense(32, "relu", name=HEAD_PREFIX + "sex", dtype="float32")(coded)
    x = layers.Concatenate(name=HEAD_PREFIX + "join", dtype="float32")([pooled, coded])
    # Without a seed of its own PyTorch would draw from a global state, which no checkpoint holds.
    x = layers.Dropout(config.dropout, seed=config.seed, name=HEAD_PREFIX + "dropout", dtype="float32")(x)
    x = layers.Dense(config.dense, "relu", name=HEAD_PREFIX + "dense", dtype="float32")(x)
    outputs = {}
    if config.head in ("joint", "regression"):
        z = layers.Dense(1, name=HEAD_PREFIX + "z", dtype="float32")(x)
        outputs["months"] = layers.Rescaling(months_sd, months_mean, name="months", dtype="float32")(z)
    if config.head in ("joint", "classification"):
        outputs["groups"] = layers.Dense(len(GROUPS), "softmax", name="groups", dtype="float32")(x)
    return keras.Model({"image": image, "sex": sex}, outputs, name=f"{config.backbone}_{config.head}")


def backbone_layers(model: keras.Model) -> Iterator[keras.layers.Layer]:
    """The layers between the inputs and `feature_map`: what is frozen while the head warms up."""
    for layer in model.layers:
        if layer.name == FEATURE_MAP:
            return
        if not layer.name.startswith(HEAD_PREFIX) and not isinstance(layer, layers.InputLayer):
            yield layer
