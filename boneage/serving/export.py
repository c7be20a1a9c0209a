"""A trained model as one file that runs without TensorFlow: preprocessing, heads and Grad-CAM maps in one graph.

ONNX is what `boneage.serving.Predictor` runs; LiteRT (`boneage.serving.litert`) is for phones and small machines, and
takes one image at a time. Inputs are `image` (B, S, S, 1), grey 0..255, and `sex` (B, 1), male = 1; both float32.
Outputs, float32:

    months        (B, 1)
    months_other  (B, 1)      months, had the other sex been given
    groups        (B, 4)      where the model has that head
    cam_older     (B, h, w)   Grad-CAM++ toward older, as `boneage.explain.maps.weighted_map` gives it: not normalised
    cam_younger   (B, h, w)   toward younger
    pooled        (B, C)      the features that the head sees, by which foreign pictures are told

The maps need no gradient at run time. Between the feature map A and the months lie an average over h w cells, one dense
layer with ReLU, h = relu(W1 [pooled, sex] + b1), and one linear one: so d months / d A = W1 (w2 1[h > 0]) / (h w), the
same in every cell: Grad-CAM's channel weight. Grad-CAM++ averages its positive part with weights that are then the
same in every cell too, so that the positive part itself is the channel weight.
"""

import logging
from collections.abc import Callable
from pathlib import Path

import boneage.models  # noqa: F401  isort: skip  (first: it imports Keras quietly)
import keras
import numpy as np
import onnx
import onnxruntime
import pandas as pd
from onnx import TensorProto, helper, numpy_helper

from boneage import __version__
from boneage.config import TrainConfig
from boneage.errors import BoneageError
from boneage.evaluation.evaluate import cache_of
from boneage.evaluation.run_files import read_split
from boneage.explain.gradcam import GradCAMPlusPlus
from boneage.explain.maps import weighted_map
from boneage.models.build import FEATURE_MAP, HEAD_PREFIX
from boneage.models.predict import inputs_of
from boneage.models.weights import load_model
from boneage.paths import atomic, write_csv
from boneage.serving import litert
from boneage.serving.shelf import digest

FILES = {"onnx": "model.onnx", "litert": "model.tflite"}
CHECKED = "exports.csv"
MAPS = {"cam_older": 1, "cam_younger": -1}  # and the sign of the question
OPSET = 18
PARITY_IMAGES = 100
MAX_MONTHS_APART = 0.05
MIN_CORRELATION = 0.999
MIN_SHRUNK = 256  # elements: smaller arrays are not worth two nodes


def export(run: Path, data: str | Path, kind: str = "onnx", images: int = PARITY_IMAGES) -> dict[str, float]:
    """Write `model.onnx` or `model.tflite` into a run's folder, if it agrees with the Keras model on holdout images.

    How well it agrees goes to `exports.csv` beside it: `format`, what `parity` says, `megabytes`, and `source`, the
    SHA-256 of the Keras model.

    Parameters
    ----------
    run
        A finished run with a months output.
    data
        The images that the run was trained on: their folder or a cache of it.
    kind
        Of `FILES`: "onnx" or "litert".
    images
        How many holdout images to compare on.

    Returns
    -------
    dict
        What `parity` says.

    Raises
    ------
    BoneageError
        No such model, one without months, other data than the run's, another Keras backend than TensorFlow, or an
        export that disagrees: then no file is left behind, and an older one stays as it was.
    """
    if keras.backend.backend() != "tensorflow":
        raise BoneageError("only the TensorFlow backend can export; set KERAS_BACKEND=tensorflow")
    run = Path(run)
    model = as_float32(load_model(run / "model.keras"))
    config, split = TrainConfig.load(run / "config.json"), read_split(run)
    cache = cache_of(run, data, config.size, config.frame, split)
    rows = cache.rows(split["id"][split["set"] == "holdout"].head(images))
    inputs = inputs_of(cache, rows, config.size)
    with atomic(run / FILES[kind]) as part:
        if kind == "litert":
            part.write_bytes(litert.convert(forward(model), model.variables, config.size))
            answer = litert.load(part)
        else:
            graph = to_onnx(model, config.size)
            facts = {
                "boneage": __version__,
                "run": f"{run.resolve().parent.name}/{run.resolve().name}",
                "source": digest(run),
            }
            helper.set_model_props(graph, facts)
            part.write_bytes(shrink(graph).SerializeToString())
            answer = load(part)
        found = parity(answer, model, inputs["image"], inputs["sex"])
        if not (found["months_apart"] <= MAX_MONTHS_APART and found["correlation"] > MIN_CORRELATION):
            raise BoneageError(
                f"the export of {run} disagrees with its model and is not kept: on {len(rows)} images up to "
                f"{found['months_apart']:.3g} months apart (at most {MAX_MONTHS_APART}), maps correlate "
                f"{found['correlation']:.5f} (above {MIN_CORRELATION})"
            )
    _note(run, kind, found)
    return found


def _note(run: Path, kind: str, found: dict[str, float]) -> None:
    """Put an export's row into the run's `exports.csv`; rows of an earlier Keras model go."""
    path, source = run / CHECKED, digest(run)
    row = {"format": kind, **found, "megabytes": (run / FILES[kind]).stat().st_size / 1e6, "source": source}
    rows = pd.read_csv(path).to_dict("records") if path.is_file() else []
    kept = [r for r in rows if r["format"] != kind and r["source"] == source]
    write_csv(path, pd.DataFrame(sorted([*kept, row], key=lambda r: r["format"])))


def as_float32(model: keras.Model) -> keras.Model:
    """The same model, computing in single precision: no CPU runtime has bfloat16 kernels for every layer."""
    for layer in model.layers:
        layer.dtype_policy = "float32"
    return model


def forward(model: keras.Model) -> Callable:
    """From tensors `image` and `sex` to the dict of outputs that the module describes, in forward operations only.

    Raises
    ------
    BoneageError
        For a model without months, or with another head than `boneage.models.build` makes.
    """
    layers = {layer.name: layer for layer in model.layers}
    needed = (FEATURE_MAP, *(HEAD_PREFIX + part for part in ("pool", "dense", "z")), "months")
    missing = [name for name in needed if name not in layers]
    if missing:
        raise BoneageError(f"only a model with a months output can be exported; this one has no layer {missing[-1]}")
    dense, linear, months = (layers[name] for name in needed[2:])
    if dense.activation is not keras.activations.relu or linear.activation is not keras.activations.linear:
        raise BoneageError("the head is not one dense layer with ReLU and one linear one: its maps have no closed form")
    features, pooled = layers[FEATURE_MAP].output, layers[needed[1]].output
    inputs = {i.name: i for i in model.inputs}
    outputs = {name: layers[name].output for name in ("months", "groups") if name in layers}
    backbone = keras.Model(inputs["image"], features)
    head = keras.Model([features, inputs["sex"]], outputs | {"pooled": pooled, "hidden": dense.output})
    for layer in backbone.layers:
        if isinstance(layer, keras.layers.Normalization):  # tensors of its own would turn into inputs of the graph
            layer.mean, layer.variance = np.asarray(layer.mean), np.asarray(layer.variance)
    per_hidden = keras.ops.convert_to_numpy(linear.kernel)[:, 0] * np.float32(months.scale)
    into_hidden = keras.ops.convert_to_numpy(dense.kernel)[: pooled.shape[-1]].T

    def run(image, sex) -> dict:
        ops = keras.ops
        found = backbone(image, training=False)
        answers = head([found, sex], training=False)
        alive = ops.cast(answers.pop("hidden") > 0, "float32")
        weights = ops.matmul(alive * per_hidden, into_hidden) / (found.shape[1] * found.shape[2])
        for name, sign in MAPS.items():
            positive = ops.relu(sign * weights)[:, None, None, :]
            answers[name] = ops.relu(ops.sum(found * positive, axis=-1))
        return answers | {"months_other": head([found, 1 - sex], training=False)["months"]}

    return run


def to_onnx(model: keras.Model, size: int) -> onnx.ModelProto:
    """The graph of `forward` for images of `size` px, any number at a time."""
    import tensorflow as tf
    import tf2onnx

    for name in ("tf2onnx", *(n for n in logging.root.manager.loggerDict if n.startswith("tf2onnx"))):
        logging.getLogger(name).setLevel(logging.ERROR)
    signature = [
        tf.TensorSpec((None, size, size, 1), tf.float32, name="image"),
        tf.TensorSpec((None, 1), tf.float32, name="sex"),
    ]
    graph, _ = tf2onnx.convert.from_function(
        tf.function(forward(model), input_signature=signature), input_signature=signature, opset=OPSET
    )
    return graph


def shrink(graph: onnx.ModelProto) -> onnx.ModelProto:
    """Halve a model's file: weights as 16-bit whole numbers times a float32 step per output channel.

    The runtime folds the two added nodes when it loads the file, and computes in float32 as before. Half-precision
    floats would be as small, but BatchNorm has been folded into the kernels, whose values they no longer hold exactly:
    they move the months several times as far, and past what `parity` allows.
    """
    users = {name: node.op_type for node in graph.graph.node for name in node.input}
    nodes, weights = [], []
    for tensor in graph.graph.initializer:
        values = numpy_helper.to_array(tensor)
        if values.dtype != np.float32 or values.size < MIN_SHRUNK or values.size == max(values.shape):
            weights.append(tensor)
            continue
        channel = 0 if users[tensor.name] == "Conv" else values.ndim - 1
        others = tuple(axis for axis in range(values.ndim) if axis != channel)
        step = np.abs(values).max(others, keepdims=True) / np.float32(np.iinfo(np.int16).max)
        step[step == 0] = 1
        name = tensor.name
        weights += [
            numpy_helper.from_array((values / step).round().astype(np.int16), f"{name}_whole"),
            numpy_helper.from_array(step, f"{name}_step"),
        ]
        nodes += [
            helper.make_node("Cast", [f"{name}_whole"], [f"{name}_float"], to=TensorProto.FLOAT),
            helper.make_node("Mul", [f"{name}_float", f"{name}_step"], [name]),
        ]
    rest = list(graph.graph.node)
    for field, values in (("initializer", weights), ("node", nodes + rest)):
        graph.graph.ClearField(field)
        getattr(graph.graph, field).extend(values)
    return graph


def load(path: Path) -> Callable[[np.ndarray, np.ndarray], dict[str, np.ndarray]]:
    """From `image` and `sex` to outputs by name, under ONNX Runtime."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return lambda image, sex: dict(zip(names, session.run(names, {"image": image, "sex": sex}), strict=True))


def parity(answer: Callable, model: keras.Model, images: np.ndarray, sex: np.ndarray) -> dict[str, float]:
    """Run an export beside the Keras model and `boneage.explain.gradcam`, whose maps come from gradients.

    Parameters
    ----------
    answer
        What `load` gives.
    images, sex
        (B, S, S, 1) and (B, 1), float32.

    Returns
    -------
    dict
        `months_apart`, the largest difference; `correlation`, the lowest of any map that is not zero everywhere (1
        where all are); `images`, how many.
    """
    answers = [answer(i[None], s[None]) for i, s in zip(images, sex, strict=True)]
    ours = {name: np.concatenate([a[name] for a in answers]) for name in answers[0]}
    features, gradients, outputs = GradCAMPlusPlus(model).gradients(images, sex, "older")
    pairs = [
        (mine.ravel(), theirs.ravel())
        for name, sign in MAPS.items()
        for mine, theirs in zip(
            ours[name],
            weighted_map(features, GradCAMPlusPlus.weights(features, sign * gradients)),
            strict=True,
        )
        if theirs.any()
    ]
    return {
        "months_apart": float(np.abs(ours["months"] - outputs["months"]).max()),
        "correlation": min((_correlation(*pair) for pair in pairs), default=1.0),
        "images": len(images),
    }


def _correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Pearson's; 0 where one of the two is constant."""
    a, b = a - a.mean(dtype=float), b - b.mean(dtype=float)
    norm = float(np.sqrt((a**2).sum() * (b**2).sum()))
    return float((a * b).sum()) / norm if norm else 0.0
