"""Pulse evidence: what the pulse signals say for or against an alarm of the ECG.

A red is withheld where a pulse signal shows, over the stretch that the alarm is about, a heart that beats: pulse beats
of the usual height and wave, evenly spaced, up to now. Nothing else withholds: a signal that is missing, flat, noisy
or weak is no evidence, so an arrest with a dead pulse signal is announced as one without any. What was withheld is told
all the same, as an alert of its own code with `suppressed_by` "pulse", and is looked at again as long as the ECG says
so.

The other way round, a pulse that was good and stops with the ECG bears an asystole out, which is then told a little
sooner.
"""

from collections import deque
from itertools import pairwise
from typing import Any, NamedTuple

from model.pulse import DELAY, SIGNALS
from stream.alarms.book import Book
from stream.alarms.conditions import TICK_HZ, withheld

KEPT = 64  # newest beats of each signal
LAG = TICK_HZ // 2  # ticks after which the pulse of a heart beat has surely come
RATIOS = (0.5, 2.0)  # heights against the usual one that are those of a heart that goes on as before
LIKENESS = 0.8  # of a wave that is one
WATCHED, WATCHED_EVEN = 5 * TICK_HZ, 20 * TICK_HZ  # ticks up to now that are looked at, at most
LONGEST_GAP = 2 * TICK_HZ  # ticks between pulse beats of a heart that has not stopped
AS_BEFORE = 0.2  # share by which an interval may differ from the usual one, in a rhythm that goes on undisturbed
FASTER = 1.1  # how much faster the ECG must go than the pulse, for the pulse to speak against it
BEFORE = 10  # intervals that the usual one is taken from


class Beat(NamedTuple):
    """A pulse beat: `at` in ticks, its height against the usual one, likeness of its wave to the usual one."""

    at: int
    ratio: float
    likeness: float

    @property
    def good(self) -> bool:
        return RATIOS[0] <= self.ratio <= RATIOS[1] and self.likeness >= LIKENESS


class Pulse:
    """Pulse beats of one bed as of one clock."""

    __slots__ = ("beats",)

    def __init__(self) -> None:
        self.beats: tuple[deque[Beat], ...] = tuple(deque(maxlen=KEPT) for _ in SIGNALS)

    def add(self, signal: int, at: int, ratio: float, likeness: float) -> None:
        self.beats[signal].append(Beat(at, ratio, likeness))

    def clear(self) -> None:
        """The signals are broken: what was usual is not known any more."""
        for beats in self.beats:
            beats.clear()

    def against(self, code: str, since: int, until: int, bpm: float | None = None) -> dict[str, Any] | None:
        """What speaks against a red of that code over ticks `since` to `until`, for its evidence; None for nothing.
        `bpm`: the rate by the ECG, where the red is one of a rate."""
        look = {"ASYSTOLE": _beating, "VFIB": _beating, "VTACH": _undisturbed}.get(code)
        if look is None:
            return None
        for signal, beats in zip(SIGNALS, self.beats, strict=True):
            seen = look(beats, since, until)
            if seen and (code != "VTACH" or (bpm is not None and bpm >= FASTER * _rate(seen))):
                return {"signal": signal, "beats": len(seen) - 1, "rate": round(_rate(seen)), "decided": "against"}
        return None

    def stopped(self, since: int, until: int) -> dict[str, Any] | None:
        """Whether a pulse that was good up to tick `since` has not come since then."""
        for signal, beats in zip(SIGNALS, self.beats, strict=True):
            before = [beat for beat in beats if beat.at <= since + LAG]
            steady = len(before) > BEFORE and sum(beat.good for beat in before[-BEFORE:]) >= 0.8 * BEFORE
            if steady and before[-1] is beats[-1] and since - before[-1].at < LONGEST_GAP:
                return {"signal": signal, "silent_s": round((until - beats[-1].at) / TICK_HZ, 1), "decided": "for"}
        return None

    def trigger(
        self,
        book: Book,
        code: str,
        onset: int,
        at: int,
        value: float | None,
        evidence: dict[str, Any],
        supersedes: tuple[str, ...] = (),
    ) -> bool:
        """Trigger a red, or what tells that it is withheld, and whether it was the red."""
        against = None if code in book.active else self.against(code, onset, at, value)
        if against is not None:
            if withheld(code) not in book.active:
                book.trigger(withheld(code), onset, at, value, {**evidence, "pulse": against})
            else:
                book.arm("end " + withheld(code), at + HOLD_TICKS)
            return False
        book.end(withheld(code), at, "announced")
        book.trigger(code, onset, at, value, evidence, supersedes)
        return True

    def state(self) -> list[list[list[float]]]:
        return [[list(beat) for beat in beats] for beats in self.beats]

    def restore(self, state: list[list[list[float]]]) -> None:
        for beats, kept in zip(self.beats, state, strict=True):
            beats.clear()
            beats.extend(Beat(int(at), ratio, likeness) for at, ratio, likeness in kept)


HOLD_TICKS = 3 * TICK_HZ  # a withheld alarm stands so long after it was last looked at


def _beating(beats: deque[Beat], since: int, until: int) -> list[Beat]:
    """The good beats of a heart that goes on all through the stretch; none where it does not."""
    first = max(since, until - WATCHED) + LAG
    seen = [beat for beat in beats if first < beat.at <= until and beat.good]
    ticks = [first, *(beat.at for beat in seen), until - DELAY]
    steady = all(later - earlier <= LONGEST_GAP for earlier, later in pairwise(ticks))
    return seen if len(seen) >= 3 and steady else []


def _undisturbed(beats: deque[Beat], since: int, until: int) -> list[Beat]:
    """The good beats of a rhythm that goes on as before, to the interval; none where it does not."""
    since = max(since, until - WATCHED_EVEN)
    before = [beat for beat in beats if beat.at <= since][-BEFORE - 1 :]
    intervals = sorted(b.at - a.at for a, b in pairwise(before))
    if len(intervals) < BEFORE:
        return []
    usual = intervals[len(intervals) // 2]
    even = sum(abs(interval - usual) <= AS_BEFORE * usual for interval in intervals) >= 0.7 * BEFORE
    seen = [before[-1], *(beat for beat in beats if since < beat.at <= until)]
    as_before = all(abs(later.at - earlier.at - usual) <= AS_BEFORE * usual for earlier, later in pairwise(seen))
    ended = until - DELAY - seen[-1].at > (1 + AS_BEFORE) * usual
    return seen if even and as_before and not ended and all(b.good for b in seen) and len(seen) >= 3 else []


def _rate(beats: list[Beat]) -> float:
    return 60 * TICK_HZ * (len(beats) - 1) / (beats[-1].at - beats[0].at)
