"""A source's clock as its shard sees it: offset, drift, steps, and the age of data.

The shard probes each source a few times a second. One exchange (shard sends, source receives,
source answers, shard receives) tells the offset of the two clocks to within half of its round
trip, whatever the network does (Mills, RFC 5905, section 8). Of the last eight the one with the
shortest round trip is believed and its round trip given as the uncertainty, as liblsl does.

Deviations from liblsl (`time_receiver.cpp`): probes are spread evenly and the window slides, where
liblsl sends a burst of eight every 2 s; drift is estimated (Theil-Sen over minutes) and a step of
the clock is told, where liblsl only offers a reset flag for a changed source.

Nothing here reads a clock: every stamp is passed in.
"""

from collections import deque
from typing import NamedTuple

import numpy as np

N_PROBES = 8
POINT_EVERY_NS = 2_000_000_000  # one point of the drift regression
N_POINTS = 120  # 4 minutes of them
MIN_POINTS = 8
MAX_ROUND_TRIP_NS = 5_000_000_000
DRIFT_ALLOWANCE = 500e-6  # quartz is within 100 ppm; five times that is no step yet


class Exchange(NamedTuple):
    """One probe and its answer. `offset_ns`: source clock minus shard clock (both UTC, ns), good to
    half of `round_trip_ns`. `mono_ns`: the shard's monotonic clock when the answer came."""

    offset_ns: int
    round_trip_ns: int
    mono_ns: int


def exchange(sent_ns: int, sent_mono_ns: int, source_received_ns: int, source_sent_ns: int, mono_ns: int) -> Exchange:
    """What one probe tells, of its stamps in ns.

    `sent_ns` and `sent_mono_ns`: the shard's UTC and monotonic clocks when the probe went out,
    `source_received_ns` and `source_sent_ns`: the source's UTC clock in between, `mono_ns`: the
    shard's monotonic clock when the answer came. Its duration is taken from the monotonic clock, so
    a step of the shard's own UTC clock in the middle of an exchange does not spoil it.
    """
    took = mono_ns - sent_mono_ns
    offset = ((source_received_ns - sent_ns) + (source_sent_ns - sent_ns - took)) // 2
    return Exchange(offset, took - (source_sent_ns - source_received_ns), mono_ns)


def age_ns(now_ns: int, device_ns: int, offset_ns: int) -> int:
    """How old, at the shard's UTC time `now_ns`, what the source stamped `device_ns` is."""
    return now_ns - (device_ns - offset_ns)


def theil_sen(x: "np.typing.NDArray[np.float64]", y: "np.typing.NDArray[np.float64]") -> float:
    """Median of the slopes of all pairs of points (Sen 1968); x (n,), y (n,), n >= 2, x distinct."""
    i, j = np.triu_indices(len(x), 1)
    return float(np.median((y[j] - y[i]) / (x[j] - x[i])))


class SourceClock:
    """Offset and drift of one source's clock. Feed it every exchange with `observe`.

    `n_steps` counts the steps seen, `step_ns` is the size of the last and `stepped_mono_ns` when it
    was seen. An exchange cannot be wrong by more than half of its round trip, so a difference from
    what was expected beyond both halves (and `step_limit_ns`) is a step and not the network; two in
    a row are asked for, as a source may be stopped between its own two stamps.
    """

    def __init__(self, step_limit_ns: int = 20_000_000) -> None:
        self.drift_ppm = 0.0
        self.n_steps = 0
        self.step_ns = 0
        self.stepped_mono_ns = 0
        self._step_limit_ns = step_limit_ns
        self._window: deque[Exchange] = deque(maxlen=N_PROBES)
        self._points: deque[Exchange] = deque(maxlen=N_POINTS)
        self._suspect: Exchange | None = None
        self._best: Exchange | None = None

    def observe(self, new: Exchange) -> bool:
        """Take one exchange in. Returns True where it shows that the clock has stepped."""
        if not 0 <= new.round_trip_ns <= MAX_ROUND_TRIP_NS:
            return False
        stepped = False
        if self._best is not None and self._excess_ns(new, self._best) > self._step_limit_ns:
            if self._suspect is None or self._excess_ns(new, self._suspect) > self._step_limit_ns:
                self._suspect = new
                return False
            stepped = True
            self.n_steps += 1
            self.step_ns = new.offset_ns - self.offset_ns(new.mono_ns)
            self.stepped_mono_ns = new.mono_ns
            self._window.clear()
            self._points.clear()
            self._window.append(self._suspect)
        self._suspect = None
        self._window.append(new)
        self._best = min(self._window, key=lambda e: e.round_trip_ns)
        self._regress()
        return stepped

    @property
    def known(self) -> bool:
        """Whether any exchange has come; until then the offset is taken for 0."""
        return self._best is not None

    @property
    def uncertainty_ns(self) -> int:
        """Round trip of the exchange that is believed; 0 while there is none."""
        return self._best.round_trip_ns if self._best is not None else 0

    def offset_ns(self, mono_ns: int) -> int:
        """Source clock minus shard clock at `mono_ns`, the drift since the believed exchange included."""
        if self._best is None:
            return 0
        return self._best.offset_ns + round((mono_ns - self._best.mono_ns) * self.drift_ppm * 1e-6)

    def _excess_ns(self, new: Exchange, known: Exchange) -> float:
        """By how much two exchanges differ beyond what their round trips and a drift can explain."""
        elapsed = new.mono_ns - known.mono_ns
        expected = known.offset_ns + elapsed * self.drift_ppm * 1e-6
        return (
            abs(new.offset_ns - expected)
            - (new.round_trip_ns + known.round_trip_ns) / 2
            - abs(elapsed) * DRIFT_ALLOWANCE
        )

    def _regress(self) -> None:
        assert self._best is not None
        points = self._points
        if len(self._window) < N_PROBES or (points and self._best.mono_ns - points[-1].mono_ns < POINT_EVERY_NS):
            return
        points.append(self._best)
        if len(points) >= MIN_POINTS:
            at = np.array([p.mono_ns - points[0].mono_ns for p in points], np.float64)
            offset = np.array([p.offset_ns - points[0].offset_ns for p in points], np.float64)
            self.drift_ppm = theil_sen(at, offset) * 1e6
