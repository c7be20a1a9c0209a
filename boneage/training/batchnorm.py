"""Re-estimate BatchNorm statistics: a warm start's belong to other images, averaged weights have none of their own."""

import keras

from boneage.models.compiled import training_forward

MOMENTUM = 0.9  # 40 batches forget the old statistics (0.9 ** 40 = 1.5 %)


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
        """Use the first `count` of `batches`, a PyDataset; the momentum of the gradient steps stays what it was."""
        if not self.layers or count == 0:
            return
        kept = [(layer.momentum, layer.trainable) for layer in self.layers]
        for layer in self.layers:
            layer.momentum, layer.trainable = MOMENTUM, True
        try:
            for i in range(min(count, len(batches))):
                self.forward(batches[i][0])
        finally:
            for layer, (momentum, trainable) in zip(self.layers, kept, strict=True):
                layer.momentum, layer.trainable = momentum, trainable
