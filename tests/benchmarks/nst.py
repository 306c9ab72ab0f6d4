"""The noise stress test of WFDB's `nst`: calibrated noise of nstdb in two minutes of four, from minute 5 on.

Written from what nst and sigamp do (Moody, Muldrow and Mark, Computers in Cardiology 1984;11:381): the signal's size is
the trimmed mean of the peak-to-peak within 50 ms of the first 300 normal beats, squared and over 8; the noise's is the
trimmed mean of its RMS about the mean of each second, over the first 300 seconds. So slow wander counts for little in
the size of `bw`, and what is added is larger than a root mean square over the whole would make it.
"""

from pathlib import Path

import numpy as np
import numpy.typing as npt

from model.datasets import find, physical, read

START_S, PERIOD_S = 300, 120
N_MEASURED = 300
NORMAL = frozenset("NLRBAaJSejnf/Q")  # what WFDB's map1 calls normal: all but V, F and escapes of ventricular origin
Floats = npt.NDArray[np.float32]


def noise_of(kind: str) -> Floats:
    """The record `kind` (bw, ma) of nstdb, mV, (2, n) float32 at 360 Hz."""
    (path,) = find(f"nstdb/{kind}")
    return physical(read(Path(path), annotator=None))


def noisy(x: Floats, at: npt.NDArray[np.int64], symbols: list[str], noise: Floats, snr_db: float, fs: float) -> Floats:
    """x (C, n) mV with noise (2, m) added as nst adds it, at the same rate fs; signal i takes noise i % 2.

    at, symbols: the reference beats. The step where the noise comes and goes is cancelled by an offset, as in nst.
    """
    n = x.shape[1]
    beats = [int(t) for t, s in zip(at, symbols, strict=True) if s in NORMAL][:N_MEASURED]
    out = x.copy()
    for c, line in enumerate(x):
        added = np.resize(noise[c % len(noise)], n)
        ratio = 10.0 ** (-snr_db / 20) * np.sqrt(2) / 4
        out[c] = _in_turns(line, added * ratio * _peak_to_peak(line, beats, fs) / _rms(noise[c % len(noise)], fs), fs)
    return out


def _in_turns(x: Floats, added: npt.NDArray[np.float64], fs: float) -> Floats:
    y = x.astype(np.float64)
    turn = int(PERIOD_S * fs)
    offset = 0.0
    for k, start in enumerate(range(int(START_S * fs), len(x), turn)):
        gain = 1.0 - k % 2
        offset = x[start - 1] + gain * added[start - 1] - y[start - 1]
        part = slice(start, start + turn)
        y[part] = x[part] + gain * added[part] - offset
    return y.astype(np.float32)


def _peak_to_peak(x: Floats, beats: list[int], fs: float) -> float:
    half = round(0.05 * fs)
    return _trimmed(np.array([np.ptp(x[t - half : t + half]) for t in beats if half <= t <= len(x) - half]))


def _rms(noise: Floats, fs: float) -> float:
    second = int(fs)
    n = min(N_MEASURED, len(noise) // second)
    return _trimmed(noise[: n * second].reshape(n, second).astype(np.float64).std(1))


def _trimmed(values: npt.NDArray[np.float64]) -> float:
    cut = len(values) // 20
    return float(np.sort(values)[cut : len(values) - cut].mean())
