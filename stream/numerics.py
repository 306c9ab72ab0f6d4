"""Heart rate of a bed from its RR intervals.

The rule that bedside monitors disclose: the mean of the 12 newest RR intervals; where each of the 3
newest is longer than 1200 ms (below 50 bpm), of the 4 newest; in a run of PVCs, of the 8 newest.
Ventricular beats count. The run of PVCs is the model's to see, so only the shown figure knows of it:
the alarms of the rate use the rule without it, and go on without a model.
"""

from collections import deque
from collections.abc import Iterable

from stream.conditions import TICK_HZ

SLOW_TICKS = 1200 * TICK_HZ // 1000
MEAN_OF, MEAN_OF_RUN, MEAN_OF_SLOW = 12, 8, 4
ENOUGH = 6  # intervals before a rate is told, at other than slow rates


class HeartRate:
    """Mean rate over the newest RR intervals, in ticks of 4 ms. `add` costs a few sums."""

    __slots__ = ("rrs",)

    def __init__(self, rrs: Iterable[int] = ()) -> None:
        self.rrs: deque[int] = deque(rrs, MEAN_OF)

    def add(self, rr: int) -> None:
        self.rrs.append(rr)

    def clear(self) -> None:
        self.rrs.clear()

    def bpm(self, in_run: bool = False) -> float | None:
        """Beats per minute, or None while there are too few intervals to tell."""
        rrs = self.rrs
        n = len(rrs)
        if n >= MEAN_OF_SLOW and rrs[-1] > SLOW_TICKS and rrs[-2] > SLOW_TICKS and rrs[-3] > SLOW_TICKS:
            return 60 * TICK_HZ * 4 / (rrs[-1] + rrs[-2] + rrs[-3] + rrs[-4])
        if n < ENOUGH:
            return None
        if in_run and n > MEAN_OF_RUN:
            return 60 * TICK_HZ * MEAN_OF_RUN / sum(rrs[i] for i in range(n - MEAN_OF_RUN, n))
        return 60 * TICK_HZ * n / sum(rrs)
