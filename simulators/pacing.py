"""When what is due: an absolute schedule on a monotonic clock, so that no lateness ever adds up.

    >>> pacer = Pacer(speed=1.0, start_ns=0)
    >>> pacer.due_ns(2.0)
    2000000000

The pacer never sleeps itself: it says until when, and its owner waits in the poll of its socket, which is woken by what
comes in and burns no processor.
"""

from dataclasses import dataclass

MIN_SPEED, MAX_SPEED = 0.25, 100.0
BEHIND_S, QUIET_S = 0.2, 5.0  # a warning when this late, and no more than one in so long


@dataclass(frozen=True, slots=True)
class Lateness:
    """How late packets went out, in seconds: of all of them, and of the last one. `n`: packets that had a due time."""

    n: int
    mean_s: float
    p99_s: float
    max_s: float
    last_s: float


def speed_of(text: str | float) -> float:
    """A speed from the command line: 0.25 to 100, or `max` (told as 0). Raises ValueError."""
    if text == "max":
        return 0.0
    try:
        speed = float(text)
    except ValueError:
        speed = -1.0
    if speed == 0 or MIN_SPEED <= speed <= MAX_SPEED:
        return speed
    raise ValueError(f"speed: {text!r}; give {MIN_SPEED:g} to {MAX_SPEED:g}, or max")


class Pacer:
    """The schedule of a stream that began at `start_ns` of a monotonic clock. speed: stream seconds per second, 0 for
    as fast as it goes. Raises ValueError for a speed out of range."""

    def __init__(self, speed: float, start_ns: int) -> None:
        self.speed = speed_of(speed)
        self.start_ns = start_ns
        self._buckets = [0] * 64  # of lateness, each a quarter octave wider from 0.1 ms on
        self._n, self._sum_s, self._max_s, self._last_s = 0, 0.0, 0.0, 0.0
        self._behind, self._warned_ns = False, -(1 << 62)

    def due_ns(self, stream_s: float) -> int:
        """When the sample at `stream_s` of the stream is due. From the start each time, so nothing adds up."""
        if self.speed == 0:
            return self.start_ns
        return self.start_ns + round(stream_s * 1e9 / self.speed)

    def wait_s(self, stream_s: float, now_ns: int) -> float:
        """Seconds to wait until `stream_s` is due; 0 where it is due already."""
        return max(0.0, (self.due_ns(stream_s) - now_ns) / 1e9)

    def sent(self, stream_s: float, now_ns: int) -> str | None:
        """Note that what was due at `stream_s` went out now. Returns `behind` when a warning is due, `recovered` when
        it has caught up, else None. At speed 0 there is no being late."""
        if self.speed == 0:
            return None
        late_s = max(0.0, (now_ns - self.due_ns(stream_s)) / 1e9)
        self._n += 1
        self._sum_s += late_s
        self._last_s = late_s
        self._max_s = max(self._max_s, late_s)
        self._buckets[_bucket(late_s)] += 1
        if late_s > BEHIND_S and now_ns - self._warned_ns > QUIET_S * 1e9:
            self._behind, self._warned_ns = True, now_ns
            return "behind"
        if self._behind and late_s < BEHIND_S / 2:
            self._behind = False
            return "recovered"
        return None

    def lateness(self) -> Lateness:
        """How late it went so far; p99 to within a fifth."""
        seen, p99_s = 0, 0.0
        for index, count in enumerate(self._buckets):
            seen += count
            if count and seen >= 0.99 * self._n:
                p99_s = min(self._max_s, 1e-4 * 2 ** (index / 4))
                break
        return Lateness(self._n, self._sum_s / max(1, self._n), p99_s, self._max_s, self._last_s)


def _bucket(late_s: float) -> int:
    index = 0
    while index < 63 and late_s > 1e-4 * 2 ** (index / 4):
        index += 1
    return index
