"""Initial weights in, finished models out: small, whole, and loadable with plain `keras.saving.load_model`."""

import hashlib
import io
import tempfile
import zipfile
from pathlib import Path

import h5py
import keras
import numpy as np

from boneage.errors import BoneageError
from boneage.models.backbones import get
from boneage.models.build import FEATURE_MAP, backbone_layers
from boneage.models.grow import grow
from boneage.paths import atomic


def load_initial(model: keras.Model, backbone: str, weights: str) -> dict:
    """Put initial weights into the backbone part of a model of `boneage.models.build`.

    Parameters
    ----------
    weights
        "imagenet" (Keras downloads them), "none", a `.weights.h5` file of the backbone with `include_top=False`, or the
        `model.keras` of a finished run with this head: of this backbone, whose training then goes on, or of a smaller
        EfficientNet, which is grown (`boneage.models.grow`).

    Returns
    -------
    dict
        `name` and, for a file, `sha256`: what config and model card say of the run's start.

    Raises
    ------
    BoneageError
        No such file, or one that does not fit the backbone.
    """
    if weights == "none":
        return {"name": "none (random)"}
    if weights.endswith(".keras"):
        return _load_run(model, Path(weights))
    spec = get(backbone)
    if weights == "imagenet":
        try:
            source = spec.builder(include_top=False, weights="imagenet", input_shape=(None, None, 3))
        except Exception as error:  # urllib, sockets and Keras each raise their own kind when there is no internet
            raise BoneageError(
                f"the ImageNet weights of {backbone} could not be downloaded ({error}); give a file with "
                "--set initial_weights=FILE, or start from random ones with --set initial_weights=none"
            ) from error
        said = {"name": f"imagenet (keras.applications {keras.__version__})"}
    else:
        path = Path(weights)
        if not path.is_file():
            raise BoneageError(f"no initial weights at {path}; expected a .weights.h5 file, `imagenet` or `none`")
        source = spec.builder(include_top=False, weights=None, input_shape=(None, None, 3))
        try:
            source.load_weights(path)
        except (ValueError, OSError, KeyError) as error:
            raise BoneageError(f"{path} does not fit {backbone} without top: {_first_line(error)}") from error
        said = {"name": path.name, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
    # Same builder, same order of layers; the ImageNet build of EfficientNet has one weightless Rescaling more.
    ours = [v for layer in backbone_layers(model) for v in layer.weights]
    if [tuple(v.shape) for v in source.weights] != [tuple(v.shape) for v in ours]:
        raise BoneageError(f"the weights of {backbone} do not line up with its model; was its builder changed?")
    assign(model, ours, source.weights)
    return said


def _load_run(model: keras.Model, path: Path) -> dict:
    source, name = load_model(path), "/".join(path.parts[-3:])
    if [tuple(v.shape) for v in source.weights] == [tuple(v.shape) for v in model.weights]:
        assign(model, model.weights, source.weights)
    else:
        grow(model, source)
        name += ", grown (Net2Net)"
    return {"name": name, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}


def assign(model: keras.Model, variables, values) -> None:
    """Give variables of a model new values; use this, not `variable.assign`, for whole models.

    A Normalization layer (EfficientNet has one inside) computes with constants derived from its variables when they
    were last loaded; assigned alone, it would go on with the old ones until the model is saved and read back.
    """
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)
    for layer in model.layers:
        if isinstance(layer, keras.layers.Normalization):
            layer.finalize_state()


def save_half(model: keras.Model, path: Path) -> None:
    """Save a model as `.keras` with its kernels in half precision: half the size, the standard format.

    Only arrays of two and more dimensions are halved; biases and BatchNorm statistics stay as they are. Keras widens
    them again on loading. The model must not be compiled, or optimizer slots would be saved too.
    """
    with atomic(Path(path)) as part, tempfile.TemporaryDirectory(dir=Path(path).parent) as folder:
        full = Path(folder) / "full.keras"
        model.save(full)
        with zipfile.ZipFile(full) as read, zipfile.ZipFile(part, "w", zipfile.ZIP_DEFLATED) as write:
            for name in read.namelist():
                content = read.read(name)
                write.writestr(name, _halved(content) if name.endswith(".weights.h5") else content)


def _halved(content: bytes) -> bytes:
    result = io.BytesIO()
    with h5py.File(io.BytesIO(content)) as old, h5py.File(result, "w") as new:
        new.attrs.update(old.attrs)

        def copy(name, item):
            if isinstance(item, h5py.Dataset):
                value = item[()]
                if value.dtype == np.float32 and value.ndim >= 2:
                    value = value.astype(np.float16)
                new.create_dataset(name, data=value).attrs.update(item.attrs)
            else:
                new.require_group(name).attrs.update(item.attrs)

        old.visititems(copy)
    return result.getvalue()


def load_model(path: Path) -> keras.Model:
    """A saved model of this project.

    Raises
    ------
    BoneageError
        No such file, a Git LFS pointer, not a `.keras` file, or one without our inputs and feature map.
    """
    path = Path(path)
    if not path.is_file():
        raise BoneageError(
            f"no model at {path}; train one with `boneage train`, or see `outputs/` for the shipped ones"
        )
    with path.open("rb") as file:
        head = file.read(64)
    if head.startswith(b"version https://git-lfs"):
        raise BoneageError(f"{path} is a Git LFS pointer, not the model; run `git lfs pull`")
    try:
        model = keras.saving.load_model(path, compile=False)
    except Exception as error:  # zip, HDF5, JSON and Keras each have their own way to say it
        raise BoneageError(f"{path} is not a readable .keras model ({_first_line(error)})") from error
    inputs = {i.name for i in getattr(model, "inputs", None) or ()}
    if inputs != {"image", "sex"} or FEATURE_MAP not in [layer.name for layer in model.layers]:
        raise BoneageError(
            f"{path} is not a model of this project; expected inputs image and sex and a layer {FEATURE_MAP}"
        )
    return model


def _first_line(error: Exception) -> str:
    return (str(error) or repr(error)).splitlines()[0][:200]
