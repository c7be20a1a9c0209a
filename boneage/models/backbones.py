"""The backbones, one row each. Adding one is one `register` call and no other edit."""

from collections.abc import Callable
from dataclasses import dataclass

import keras

from boneage.errors import BoneageError


@dataclass(frozen=True)
class BackboneSpec:
    """What the rest of the house needs to know of a backbone.

    Attributes
    ----------
    name
        As in tables and folders.
    builder
        A `keras.applications`-like function taking `include_top`, `weights` and `input_tensor` or `input_shape`.
    size
        Image side in pixels that its paper trained at.
    scale, offset
        The backbone expects `pixel * scale + offset` of grey pixels 0..255; offset may be one per channel.
    feature_layer
        Name, in the builder's own model, of the last layer with spatial extent: what Grad-CAM looks at.
    stride
        Pixels of the input per cell of that layer.
    features
        Channels of that layer.
    parameters
        Weights without any head.
    paper
        Key in `research papers/references.bib`.
    """

    name: str
    builder: Callable[..., keras.Model]
    size: int
    scale: float
    offset: float | tuple[float, float, float]
    feature_layer: str
    stride: int
    features: int
    parameters: int
    paper: str


_REGISTRY: dict[str, BackboneSpec] = {}


def register(spec: BackboneSpec) -> BackboneSpec:
    """Make a backbone known by its name; a second one of the same name is refused."""
    if spec.name in _REGISTRY:
        raise BoneageError(f"a backbone named {spec.name} is registered already")
    _REGISTRY[spec.name] = spec
    return spec


def get(name: str) -> BackboneSpec:
    """Raises BoneageError, naming the known ones, for an unknown name."""
    if name not in _REGISTRY:
        raise BoneageError(f"unknown backbone; known: {', '.join(_REGISTRY)}. Received: {name!r}")
    return _REGISTRY[name]


def names() -> tuple[str, ...]:
    """Registered names, in the order of registration: the order of tables and colours."""
    return tuple(_REGISTRY)


# EfficientNet's builder rescales inside its own graph: it wants 0..255. To divide by 255 first is the classic mistake.
register(
    BackboneSpec(
        "EfficientNetB0", keras.applications.EfficientNetB0, 224, 1.0, 0.0, "top_activation", 32, 1280, 4_049_571,
        "tan2019efficientnet",
    )
)  # fmt: skip
register(
    BackboneSpec(
        "EfficientNetB5", keras.applications.EfficientNetB5, 456, 1.0, 0.0, "top_activation", 32, 2048, 28_513_527,
        "tan2019efficientnet",
    )
)  # fmt: skip
# ResNet in Keras follows the Caffe convention: ImageNet's mean removed per channel (B, G, R), no scaling.
register(
    BackboneSpec(
        "ResNet101", keras.applications.ResNet101, 224, 1.0, (-103.939, -116.779, -123.68), "conv5_block3_out", 32,
        2048, 42_658_176, "he2016deep",
    )
)  # fmt: skip
register(
    BackboneSpec(
        "Xception", keras.applications.Xception, 299, 1 / 127.5, -1.0, "block14_sepconv2_act", 32, 2048, 20_861_480,
        "chollet2017xception",
    )
)  # fmt: skip
