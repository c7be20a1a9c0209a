"""An exported model under ONNX Runtime: a square in, numbers and raw maps out. No Keras here."""

from pathlib import Path

import numpy as np
import onnxruntime

from boneage.data.augment import sample
from boneage.errors import BoneageError


class Runtime:
    """`model.onnx` of a run, loaded once; calls may come from several threads.

    Parameters
    ----------
    run
        A run folder with an export.
    threads
        Of one call.

    Attributes
    ----------
    size
        Image side in pixels that the model sees.
    """

    def __init__(self, run: Path, threads: int = 1):
        path = Path(run) / "model.onnx"
        if not path.is_file():
            raise BoneageError(f"no model.onnx in {run}; make it with `boneage export {run} --data DIR`")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 4  # what is wrong with the file is told below
        options.add_session_config_entry("session.set_denormal_as_zero", "1")  # tails of sigmoids: slow, worth nothing
        try:
            self._session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
            self.size = int(self._session.get_inputs()[0].shape[1])
        except Exception as error:  # ONNX Runtime's own kinds share no base class
            raise BoneageError(f"{path} is damaged or no export of this project; export the run again") from error
        self._names = [output.name for output in self._session.get_outputs()]

    def __call__(self, square: np.ndarray, male: bool) -> dict[str, np.ndarray]:
        """The outputs that `boneage.serving.export` describes, without the batch axis.

        Parameters
        ----------
        square
            (N, N) uint8, as `boneage.data.frame.to_square` gives it; read at the model's size as training does.
        """
        image = sample(square, self.size)[None, :, :, None].astype("float32")
        values = self._session.run(self._names, {"image": image, "sex": np.array([[male]], "float32")})
        return {name: value[0] for name, value in zip(self._names, values, strict=True)}
