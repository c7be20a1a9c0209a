"""What holds on TensorFlow alone: a training step is compiled once a size, not once an epoch."""

import functools

from keras import layers

from boneage.config import Stage
from boneage.training import train


def test_epochs_of_one_size_share_their_compiled_step(small, phantom_cache, tmp_path, monkeypatch):
    calls, epochs = [], []
    call, score = layers.GlobalAveragePooling2D.call, train._Run.score

    @functools.wraps(call)
    def counted(self, inputs):
        calls.append(1)  # Python runs a layer only while TensorFlow traces it
        return call(self, inputs)

    def noted(self, size):
        record = score(self, size)
        epochs.append((size, len(calls)))
        return record

    monkeypatch.setattr(layers.GlobalAveragePooling2D, "call", counted)
    monkeypatch.setattr(train._Run, "score", noted)
    config = small(head="regression", stages=(Stage(32, 3), Stage(48, 3)), patience=9)
    train.train(config, phantom_cache.folder, tmp_path)
    assert [size for size, _ in epochs] == [32, 32, 32, 48, 48, 48]
    traced = [count for _, count in epochs]
    assert traced[0] == traced[1] == traced[2] < traced[3] == traced[4] == traced[5]
