"""Re-estimate BatchNorm statistics: a warm start's belong to other images, averaged weights have none of their own."""

import keras

from boneage.models.compiled import training_forward

MOMENTUM = 0.9  # the last ten batches or so count


class BatchNormEstimator:
    """Runs batches forward in training mode; compiled once, used after every epoch.

    Parameters
    ----------
    model
        Any Keras model; one without BatchNorm is left alone.
    """

    def __init__(self, model: keras.Model):
        self.layers = [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]
        self.forward = training_forward(model)

    def run(self, batches, count: int) -> None:
        """Use the first `count` of `batches`, a PyDataset; the momentum of the gradient steps stays what it was.

        Nothing of the old statistics is left: the running mean starts at zero and is divided by the weight that the
        batches have had, as Adam corrects its moments (Kingma and Ba 2015, algorithm 1). A network of random weights
        has variances far below the 1 that BatchNorm starts from, so that even a small remainder would drown them.
        """
        if not self.layers or count == 0:
            return
        kept = [(layer.momentum, layer.trainable) for layer in self.layers]
        for layer in self.layers:
            layer.momentum, layer.trainable = MOMENTUM, True
        statistics = [v for layer in self.layers for v in (layer.moving_mean, layer.moving_variance)]
        for variable in statistics:
            variable.assign(keras.ops.zeros(variable.shape))
        used = min(count, len(batches))
        try:
            for i in range(used):
                self.forward(batches[i][0])
            for variable in statistics:
                variable.assign(keras.ops.divide(variable, 1 - MOMENTUM**used))
        finally:
            for layer, (momentum, trainable) in zip(self.layers, kept, strict=True):
                layer.momentum, layer.trainable = momentum, trainable
