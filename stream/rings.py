"""Mirrored rings: one row per bed, written in O(packet), read as a contiguous window without a copy.

Each sample is written twice, `capacity` apart, so that any window of up to `capacity` samples lies
in one piece (the idea of the double-mapped buffer, without the page tables).
"""

import numpy as np
import numpy.typing as npt
from numba import njit

from model.rows import ALL

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]


class Rings:
    """Rings of `n_rows` beds x `n_leads` leads, float32, of `capacity` samples each.

    `x`: (n_rows, n_leads, 2 * capacity). `head`: (n_rows,) int64, index of the sample after the
    newest. A row that jumps (a gap) holds NaN for what was not there.
    """

    __slots__ = ("capacity", "head", "x")

    def __init__(self, n_rows: int, n_leads: int, capacity: int) -> None:
        self.capacity = capacity
        self.x = np.full((n_rows, n_leads, 2 * capacity), np.nan, np.float32)
        self.head = np.zeros(n_rows, np.int64)

    def reset(self, rows: Ints, first: Ints) -> None:
        """Forget the rows; their next sample has index `first`."""
        self.x[rows] = np.nan
        self.head[rows] = first

    def skip_to(self, row: int, first: int) -> None:
        """Fill with NaN up to sample `first`: a gap is a gap."""
        missing = int(first - self.head[row])
        if missing > 0:
            n = min(missing, self.capacity)
            self.head[row] = first - n
            lead_count = self.x.shape[1]
            self.push(np.array([row]), np.full((1, lead_count, n), np.nan, np.float32), np.array([n]))

    def push(self, rows: Ints, y: Floats, n: Ints) -> None:
        """Append y (k, n_leads, m) float32, of which the first `n[i]` (k,) are valid, to `rows` (k,)."""
        _push(self.x, self.head, self.capacity, rows, y, n)

    def window(self, row: int, start: int, n: int) -> Floats:
        """Samples start .. start+n of a row: a view (n_leads, n). Raises ValueError where they are not held."""
        if n > self.capacity or start + n > self.head[row] or start < self.head[row] - self.capacity:
            oldest = max(0, int(self.head[row]) - self.capacity)
            raise ValueError(f"samples {start}..{start + n} of row {row} are not held, but {oldest}..{self.head[row]}")
        at = start % self.capacity
        return self.x[row, :, at : at + n]

    def recent(self, n: int, rows: slice = ALL) -> Floats:
        """The newest n samples of these rows (k), oldest first: (k, n_leads, n)."""
        at = (self.head[rows, None] + np.arange(-n, 0)) % self.capacity
        return np.take_along_axis(self.x[rows], at[:, None, :], axis=2)

    def put_back(self, recent: Floats, head: Ints, rows: slice = ALL) -> None:
        """Hold again what `recent` gave of these rows when their heads were `head`."""
        n = recent.shape[2]
        self.head[rows] = head - n
        self.push(np.arange(len(self.head))[rows], recent, np.full(len(head), n))


@njit(cache=True)
def _push(x, head, capacity, rows, y, n):  # type: ignore[no-untyped-def]
    for i in range(rows.shape[0]):
        row = rows[i]
        skip = max(0, n[i] - capacity)
        for j in range(skip, n[i]):
            at = (head[row] + j) % capacity
            for lead in range(x.shape[1]):
                x[row, lead, at] = y[i, lead, j]
                x[row, lead, at + capacity] = y[i, lead, j]
        head[row] += n[i]
