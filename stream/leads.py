"""From the digital samples of packets to the leads in mV that are analysed, and to the signals of the pulse."""

import numpy as np
import numpy.typing as npt
from numba import njit, types

from stream.wire import MISSING, Signal

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]

MAX_MV = 1000.0  # no electrode gives more: a gain that is wrong, or no signal


class Leads:
    """Which signals of each row are its leads, and what turns them into mV; `n_leads` of each at most, and none of a
    size over `most`. A signal of the pulse is as good a lead, in its own unit."""

    def __init__(self, n_rows: int, n_leads: int, most: float = MAX_MV) -> None:
        self._most = most
        self._signal = np.full((n_rows, n_leads), -1)
        self._gain = np.ones((n_rows, n_leads), np.float32)
        self._baseline = np.zeros((n_rows, n_leads), np.float32)

    def are(self, row: int, leads: tuple[int, ...], signals: tuple[Signal, ...]) -> None:
        """The leads of a row are these of its signals; -1 for none."""
        self._signal[row] = -1
        for lead, i in enumerate(leads):
            if i < 0:
                continue
            self._signal[row, lead], self._gain[row, lead] = i, signals[i].gain
            self._baseline[row, lead] = signals[i].baseline

    def convert(self, rows: Ints, samples: npt.NDArray[np.int16], off: npt.NDArray[np.int32], x: Floats) -> None:
        """Write samples (k, signals, n) of `rows` (k,) to x (k, n_leads, n) in mV; NaN where a sample is missing, its
        lead off (bit i of `off` (k,) for signal i) or not there, or the value is none that an electrode gives."""
        _convert(samples, rows, off, self._signal, self._gain, self._baseline, self._most, x)


# Said beforehand, for arrays of any strides: packets come in all forms, and none is to wait for a compiler.
_FORM = types.void(
    types.Array(types.int16, 3, "A", readonly=True), types.Array(types.int64, 1, "A", readonly=True),
    types.Array(types.int32, 1, "A", readonly=True), types.int64[:, ::1], types.float32[:, ::1],
    types.float32[:, ::1], types.float64, types.float32[:, :, :],
)  # fmt: skip


@njit(_FORM, cache=True)
def _convert(samples, rows, off, signal, gain, baseline, most, x):  # type: ignore[no-untyped-def]
    for k in range(rows.shape[0]):
        row = rows[k]
        for lead in range(x.shape[1]):
            s = signal[row, lead]
            if s < 0 or (off[k] >> s) & 1:
                x[k, lead] = np.nan
                continue
            for i in range(samples.shape[2]):
                value = (np.float32(samples[k, s, i]) - baseline[row, lead]) / gain[row, lead]
                x[k, lead, i] = np.nan if samples[k, s, i] == MISSING or abs(value) > most else value
