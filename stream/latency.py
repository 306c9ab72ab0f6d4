"""How long stages take: p50 and p99 over the last seconds, in bounded memory.

Durations fall into bins an eighth of an octave wide (a figure is at most 9 % too high), counted in
two halves of the span that take turns, so that a figure is of the last 5 to 10 s.
"""

import math
from collections import Counter

HALF_NS = 5_000_000_000
PER_OCTAVE = 8


class Latency:
    """Histograms by stage. Times are passed in; nothing here reads a clock."""

    def __init__(self) -> None:
        self._now: dict[str, Counter[int]] = {}
        self._before: dict[str, Counter[int]] = {}
        self._past: dict[str, Counter[int]] = {}  # before both
        self._turn_ns = 0

    def add(self, stage: str, begun_ns: int, done_ns: int) -> None:
        """Count one passage of `stage`; one whose begin (or end) has no stamp is passed over."""
        if begun_ns and done_ns:
            duration_us = max(done_ns - begun_ns, 0) / 1000
            bins = self._now.get(stage)
            if bins is None:
                bins = self._now[stage] = Counter()
            bins[math.ceil(PER_OCTAVE * math.log2(duration_us)) if duration_us > 1 else 0] += 1

    def figures(self, now_ns: int) -> dict[str, tuple[float, float]]:
        """(p50, p99) in ms by stage over the last seconds; a stage that nothing passed is left out."""
        if now_ns - self._turn_ns >= HALF_NS:
            # After a long silence the older half is older than the span that we claim.
            silent = now_ns - self._turn_ns >= 2 * HALF_NS
            for part in (self._before, self._now) if silent else (self._before,):
                for stage, bins in part.items():
                    self._past.setdefault(stage, Counter()).update(bins)
            self._before = {} if silent else self._now
            self._now, self._turn_ns = {}, now_ns
        stages = self._before | self._now
        both = {stage: self._before.get(stage, Counter()) + self._now.get(stage, Counter()) for stage in stages}
        return {stage: (_quantile(bins, 0.5), _quantile(bins, 0.99)) for stage, bins in both.items()}

    def totals(self) -> dict[str, Counter[int]]:
        """Passages since the start by stage and bin: bin i ends at 2 ** (i / PER_OCTAVE) us. The caller's to keep."""
        stages = self._past | self._before | self._now
        parts = (self._past, self._before, self._now)
        return {stage: sum((part.get(stage, Counter()) for part in parts), Counter()) for stage in stages}


def _quantile(bins: Counter[int], share: float) -> float:
    wanted, passed = share * bins.total(), 0
    for index in sorted(bins):
        passed += bins[index]
        if passed >= wanted:
            break
    return round(2 ** (index / PER_OCTAVE) / 1000, 3)
