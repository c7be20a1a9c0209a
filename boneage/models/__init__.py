"""Backbones, heads and the one function that builds a model.

Importing this package imports Keras and its backend, once, without their start-up chatter; the packages above import
it first.
"""

import logging
import os
from contextlib import contextmanager


@contextmanager
def _quiet_stderr():
    """TensorFlow writes to file descriptor 2 before any log level can be set; an exception still gets through."""
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
logging.getLogger("tensorflow").setLevel(logging.ERROR)  # it warns of retracing where several runs share a process
with _quiet_stderr():
    import keras  # noqa: F401
