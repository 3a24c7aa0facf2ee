"""A process of its own that sees whether a file is a whole Whisper: what cannot be loaded ends it with a complaint.

Run as `python -m engine.whisper_check REQUEST`, JSON: path, format ("pt" or "safetensors"), out (a tensor file to
write, in half precision as openai-whisper's own, or null). Prints Whisper's dimensions as one JSON object.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np

from engine.ct2 import write_tensors
from engine.whisper_decoder import read_model


def main() -> int:
    """Load, look at every number, write."""
    request = json.loads(sys.argv[1])
    model = read_model(Path(request["path"]), request["format"])
    with np.errstate(over="ignore"):
        state = {name: tensor.numpy().astype(np.float16) for name, tensor in model.state_dict().items()}
    broken = [name for name, array in state.items() if not np.isfinite(array).all()]
    if broken:
        raise SystemExit(f"{broken[0]} holds what is no number")
    dims = asdict(model.dims)
    if request["out"] is not None:
        write_tensors(Path(request["out"]), state, {"dims": json.dumps(dims)})
    print(json.dumps(dims))
    return 0


if __name__ == "__main__":
    sys.exit(main())
