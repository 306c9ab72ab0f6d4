"""Proof by counters: where a signal of a bed holds the index of each sample, it is held against the place that the
sample takes in the analysis, so that nothing is lost, doubled or put elsewhere unseen. Sources of soaks send them."""

import numpy as np
import numpy.typing as npt

from model.rows import Rows
from stream.wire import Signal

Ints = npt.NDArray[np.int64]

MODULO = 1 << 15


class Counters(Rows):
    """The counters of up to `n_rows` beds, where they have one. `proved`, `misplaced` (n_rows,): samples whose counter
    said that they were, or were not, the ones that they were taken for, all epochs together."""

    STATE = ("proved", "misplaced")

    def __init__(self, n_rows: int) -> None:
        self.proved, self.misplaced = np.zeros((2, n_rows), np.int64)
        self._signal = np.full(n_rows, -1)

    def are(self, row: int, signals: tuple[Signal, ...]) -> None:
        """The signals of a row are these."""
        self._signal[row] = next((i for i, signal in enumerate(signals) if signal.kind == "counter"), -1)

    def check(self, rows: Ints, first: Ints, samples: npt.NDArray[np.int16]) -> None:
        """Count samples (k, signals, n) that are taken for those from `first` (k,) on."""
        signal = self._signal[rows]
        counted = np.flatnonzero(signal >= 0)
        if counted.size:
            told = samples[counted, signal[counted]]
            expected = (first[counted, None] + np.arange(told.shape[1])) % MODULO
            n_right = np.count_nonzero(told == expected, axis=1)
            self.proved[rows[counted]] += n_right
            self.misplaced[rows[counted]] += told.shape[1] - n_right

    def counts(self, row: int) -> dict[str, int]:
        """For the bed's account; empty where it has no counter."""
        if self._signal[row] < 0:
            return {}
        return {"proved": int(self.proved[row]), "misplaced": int(self.misplaced[row])}
