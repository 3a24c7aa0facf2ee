"""When each token was spoken, from the cross attention of the recogniser's alignment heads."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

MEDIAN_WIDTH = 7


def align(scores: NDArray[np.float32]) -> list[int]:
    """Cross-attention scores [heads, tokens + 1, frames] -> the frame at which each token begins, [tokens + 1].

    As openai-whisper does it (softmax, normalised over tokens, median filter, mean of the heads), with the cheapest
    path of one step down at most per frame, row by row in numpy. The last row, that of the end, closes the last token.
    """
    count, frames = scores.shape[1:]
    if frames < count:
        return [round(i * frames / count) for i in range(count)]
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    weights /= weights.sum(axis=-1, keepdims=True)
    weights = (weights - weights.mean(axis=1, keepdims=True)) / (weights.std(axis=1, keepdims=True) + 1e-9)
    pad = MEDIAN_WIDTH // 2
    windows = np.lib.stride_tricks.sliding_window_view(
        np.pad(weights, ((0, 0), (0, 0), (pad, pad)), mode="reflect" if frames > pad else "edge"), MEDIAN_WIDTH, axis=-1
    )
    matrix = np.median(windows, axis=-1).mean(axis=0)
    best = np.full(count, -np.inf)
    best[0] = matrix[0, 0]
    moved = np.zeros((frames, count), dtype=bool)
    for frame in range(1, frames):
        from_before = np.concatenate([[-np.inf], best[:-1]])
        moved[frame] = from_before > best
        best = np.maximum(best, from_before) + matrix[:, frame]
    starts, row = [0] * count, count - 1
    for frame in range(frames - 1, 0, -1):
        if moved[frame, row]:
            starts[row] = frame
            row -= 1
    return starts
