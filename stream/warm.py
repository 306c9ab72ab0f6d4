"""Compiles the kernels of a shard, or loads them from the cache, before the first sample waits for them.

They are compiled where they are first called, which takes a fresh machine half a minute and later ones
a second. `make` runs this once after the install, and a shard each time before it is ready:

    python -m stream.warm
"""

import numpy as np

from stream.analysis import MAX_CHUNK_S, Analysis

_FS = 360.0  # a rate that must be resampled
_RR_S, _QRS_S = 0.8, 0.08


def warm(n_leads: int = 2) -> None:
    """Put a made-up signal with beats, a gap and an end through all stages."""
    analysis = Analysis(1, n_leads)
    analysis.start(0, _FS)
    n = int(MAX_CHUNK_S * _FS)
    beats = np.zeros(n)
    beats[:: int(_RR_S * _FS)] = 1.0
    lead_mv = np.convolve(beats, np.hanning(int(_QRS_S * _FS)), "same").astype(np.float32)
    x = np.repeat(lead_mv[None, None], n_leads, axis=1)
    row, length = np.zeros(1, np.int64), np.array([n])
    for _ in range(2):
        analysis.push(row, x, length)
    analysis.reset(row, 3 * length)
    analysis.push(row, x, length)
    analysis.flush(row)


if __name__ == "__main__":
    warm()
