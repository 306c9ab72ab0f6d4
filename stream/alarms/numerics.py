"""Heart rate of a bed from its RR intervals, and the limits of the rate.

The rule that bedside monitors disclose: the mean of the 12 newest RR intervals; where each of the 3
newest is longer than 1200 ms (below 50 bpm), of the 4 newest; in a run of PVCs, of the 8 newest.
Ventricular beats count. The run of PVCs is the model's to see, so only the shown figure knows of it:
the alarms of the rate use the rule without it, and go on without a model.

What is shown of a second is settled in two steps: `Vitals` when the detector's clock passes it,
`Figures` when the model's does.
"""

from collections import deque
from collections.abc import Iterable
from typing import NamedTuple

from stream.alarms.book import Book
from stream.alarms.conditions import TICK_HZ

SLOW_TICKS = 1200 * TICK_HZ // 1000
MEAN_OF, MEAN_OF_RUN, MEAN_OF_SLOW, MEAN_OF_SLOWEST = 12, 8, 4, 3
ENOUGH = 6  # intervals before a rate is told, at other than slow rates
REDS = ("VFIB", "ASYSTOLE", "VTACH")  # what is shown as the rhythm while it stands, the first first


class Vitals(NamedTuple):
    """What the detectors know of a bed at tick `at`, a whole second.

    `hr` is by the plain rule, `hr_in_run` by the one for a run of PVCs (bpm; None: not to be told).
    `red` is VFIB or ASYSTOLE where it stands."""

    at: int
    hr: float | None
    hr_in_run: float | None
    red: str
    quality: tuple[float, ...]


class Figures(NamedTuple):
    """What is shown of the second that ends at tick `at`."""

    at: int
    hr: float | None
    pvc_per_min: float | None
    rhythm: str
    confidence: float
    quality: tuple[float, ...]


def figures(
    vitals: Vitals,
    in_run: bool = False,
    pvc_per_min: float | None = None,
    red: str = "",
    rhythm: str = "",
    confidence: float = 0.0,
) -> Figures:
    """The vitals with what the model knew at their tick; by themselves where there is no model.

    `in_run`: in a run of PVCs. `red`: VFIB or VTACH where it stands. `rhythm`: that of the newest window."""
    red = next((code for code in REDS if code in (vitals.red, red)), "")
    hr = 0.0 if red == "ASYSTOLE" else vitals.hr_in_run if in_run else vitals.hr
    return Figures(vitals.at, hr, pvc_per_min, red or rhythm, 1.0 if red else confidence, vitals.quality)


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

    def slowest(self) -> int | None:
        """Rate over the newest 3 intervals where each is longer than a second, in whole beats per minute as it would
        be shown: an extreme bradycardia does not wait for the beats before it to leave the mean. None otherwise."""
        rrs = self.rrs
        if len(rrs) < MEAN_OF_SLOWEST or min(rrs[-1], rrs[-2], rrs[-3]) <= TICK_HZ:
            return None
        return round(60 * TICK_HZ * MEAN_OF_SLOWEST / (rrs[-1] + rrs[-2] + rrs[-3]))


class RateLimits:
    """A rate limit and the extreme one behind it, as one episode with hysteresis.

    Up at once, down only after the rate has kept inside by `hysteresis` for `hold_s`. Passing the
    extreme limit starts the extreme alarm, which supersedes the other."""

    __slots__ = ("book", "bpm", "extreme", "level", "onset", "plain", "sign", "x_limit")

    def __init__(self, book: Book, plain: str, extreme: str, sign: int) -> None:
        self.book, self.plain, self.extreme, self.sign = book, plain, extreme, sign
        self.level = 0
        self.bpm = 0.0
        self.onset = 0
        self.x_limit = 0.0

    def see(self, bpm: float, limit: float, x_limit: float, at: int, decided: int) -> None:
        self.bpm, self.onset, self.x_limit = bpm, at, x_limit
        up, kept = self._level(bpm, limit, x_limit, 0), self._level(bpm, limit, x_limit, self._setting("hysteresis"))
        calm = "calm " + self.plain
        if up > self.level:
            self._go(up, at, decided)
            self.book.disarm(calm)
        elif kept < self.level:
            if calm not in self.book.timers:
                self.book.arm(calm, decided + round(self._setting("hold_s") * TICK_HZ))
        else:
            self.book.disarm(calm)
            if self.level:
                self._keep_worst()

    def calm(self, tick: int) -> None:
        """The rate has kept inside for the hold time: go down to what it supports now."""
        limit = self.book.profile.limit(self.plain, "limit")
        self._go(self._level(self.bpm, limit, self.x_limit, self._setting("hysteresis")), self.onset, tick)

    def end(self, tick: int, reason: str) -> None:
        self.level = 0
        self.book.disarm("calm " + self.plain)
        self.book.end(self.plain, tick, reason)
        self.book.end(self.extreme, tick, reason)

    def _setting(self, name: str) -> float:
        return self.book.profile.limit(self.plain, name)

    def _level(self, bpm: float, limit: float, x_limit: float, slack: float) -> int:
        value, sign = self.sign * bpm, self.sign
        if value >= sign * x_limit - (slack if self.level == 2 else 0):
            return 2
        beyond = value > sign * limit - (slack if self.level else 0)
        return int(beyond and sign * limit < sign * x_limit and self.book.profile.enabled(self.plain))

    def _go(self, level: int, at: int, tick: int) -> None:
        self.level = level
        evidence = {"path": "detector"}
        if level == 2:
            self.book.trigger(self.extreme, at, tick, self.bpm, evidence, (self.plain,))
        else:
            self.book.end(self.extreme, tick)
            if level and self.plain not in self.book.active:
                self.book.trigger(self.plain, at, tick, self.bpm, evidence)
            elif not level:
                self.book.end(self.plain, tick)

    def _keep_worst(self) -> None:
        code = self.extreme if self.level == 2 else self.plain
        if code in self.book.active:
            self.book.worse(code, self.bpm, self.sign)
