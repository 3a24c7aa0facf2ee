"""How often each code of our streams was used, over a run of the evaluation."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from models import metrics
from models.systems import Ours, Streams


class CodeCounts:
    """How often each code was used, over the files in `names`; kept beside the rows, for one set of artefacts."""

    def __init__(self, path: Path, ours: Ours) -> None:
        self._path, self._ours = path, ours
        widest = max(*ours.info.sizes_s, *ours.info.sizes_b)
        self.counts = np.zeros((2, max(len(ours.info.sizes_s), len(ours.info.sizes_b)), widest), dtype=np.int64)
        self.names: set[str] = set()
        self.current = ""
        with suppress(FileNotFoundError, KeyError, ValueError), np.load(path) as kept:
            if str(kept["identity"]) == ours.token_identity and kept["counts"].shape == self.counts.shape:
                self.counts, self.names = kept["counts"], set(kept["names"].tolist())

    def count(self, streams: Streams) -> None:
        """Count the codes of the current file, once."""
        if not self.current or self.current in self.names:
            return
        for stream, codes in enumerate((streams.codes_s, streams.codes_b)):
            for row, values in enumerate(codes):
                self.counts[stream, row] += np.bincount(values[values >= 0], minlength=self.counts.shape[2])
        self.names.add(self.current)

    def save(self) -> None:
        names = np.array(sorted(self.names), dtype=str)
        np.savez_compressed(self._path, identity=self._ours.token_identity, counts=self.counts, names=names)

    def summary(self) -> dict[str, Any]:
        """Use of every row of codes, and bit rates as stored and at the rows' entropy."""
        info = self._ours.info
        used = {
            "speech": [metrics.use_of(c[:size]) for c, size in zip(self.counts[0], info.sizes_s, strict=False)],
            "background": [metrics.use_of(c[:size]) for c, size in zip(self.counts[1], info.sizes_b, strict=False)],
        }
        rates = {f"{depth} quantizers": self._ours.kbps(depth) for depth in self._ours.depths}
        entropy = sum(row.entropy_bits for row in used["speech"]) * info.frame_rate_hz / 1000.0
        rates["all quantizers, entropy of the speech rows"] = round(entropy, 2)
        rows = {name: [vars(row) for row in found] for name, found in used.items()}
        return {"files": len(self.names), "kbps": rates, "bands": info.gain_rows, **rows}
