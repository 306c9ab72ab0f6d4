"""Criteria on the judged windows: atrial fibrillation, irregular rate, and VT and VF as the rhythm
experts see them, apart from the beats (design rule 5).

Evidence for a lasting rhythm is counted in time: each window adds the 2 s it is ahead of the last
one, each window against it takes twice that away, so single wrong windows neither start nor stop it.
"""

from collections.abc import Mapping
from typing import Any

from stream.alarms.book import Book
from stream.alarms.conditions import TICK_HZ
from stream.alarms.pulse import Pulse

HOP_TICKS = 2 * TICK_HZ
HALF_WINDOW_TICKS = 5 * TICK_HZ
MIN_QUALITY = 0.3  # windows of less are no evidence
SURELY_VENTRICULAR = 0.8  # probability of VT or VF
NN_KEPT, NN_NEEDED = 24, 12


class Rhythms:
    """Rhythm of one bed, window by window, on the model's clock."""

    __slots__ = ("book", "confidence", "lasting", "nn", "noisy", "pulse", "rhythm", "streaks")

    def __init__(self, book: Book, pulse: Pulse) -> None:
        self.book, self.pulse = book, pulse
        self.reset()

    def reset(self) -> None:
        """The signal is broken: evidence starts anew."""
        self.rhythm, self.confidence = "", 0.0
        self.noisy = False  # the newest window is hardly readable
        self.lasting: dict[str, list[int]] = {
            "AFIB": [0, 0, 0],
            "IRREGULAR_HR": [0, 0, 0],
        }  # for, against (ticks), onset
        self.streaks: dict[str, list[int]] = {"VT": [0, 0], "VF": [0, 0]}  # windows in a row, onset
        self.nn: list[int] = []

    def interval(self, rr: int) -> None:
        """An interval between two normal beats, in ticks."""
        self.nn.append(rr)
        del self.nn[:-NN_KEPT]

    def irregularity(self) -> float:
        """Median change from one normal interval to the next over their median; 0 for too few."""
        if len(self.nn) < NN_NEEDED:
            return 0.0
        changes = sorted(abs(b - a) for a, b in zip(self.nn, self.nn[1:], strict=False))
        return changes[len(changes) // 2] / sorted(self.nn)[len(self.nn) // 2]

    def window(
        self,
        at: int,
        ready: int,
        rhythm: str,
        rhythms: Mapping[str, float],
        shockable: float,
        quality: float,
        rate: float,
        vf_by_index: bool,
        quiet: bool,
        narrow: bool,
    ) -> None:
        """A judged window of 10 s that ends at tick `at`. `rate`: bpm of the detector's beats as of
        now. `vf_by_index`: the VF index is on. `quiet`: learning. `narrow`: the window's newest
        beats are surely not ventricular."""
        self.rhythm, self.confidence = rhythm, float(rhythms.get(rhythm, 0.0))
        self.noisy = quality < MIN_QUALITY
        if self.noisy or rhythm == "NOISE" or not rhythms:
            self.streaks = {"VT": [0, 0], "VF": [0, 0]}
            return
        p = {name: float(rhythms.get(name, 0.0)) for name in ("VT", "VF", "AF", "AFL")}
        evidence = {
            "path": "rhythm",
            "rhythm": rhythm,
            "confidence": round(self.confidence, 3),
            "shockable": round(float(shockable), 3),
            "quality": round(float(quality), 3),
        }
        self._streak("VF", "VFIB", p["VF"], at, ready, None, evidence, not vf_by_index, False)
        # The experts tell VT and VF from the rest far better than from each other, so for a VT, the lesser claim, both
        # are one suspicion. The beats of what is surely one of them are hard to find: their rate says nothing then.
        either = p["VT"] + p["VF"]
        fast = rate >= self.book.profile.limit("VTACH", "rate")
        may = (fast or either >= SURELY_VENTRICULAR) and not quiet
        self._streak("VT", "VTACH", either, at, ready, rate if fast else None, evidence, may, narrow)
        if quiet:
            return
        irregular = self.irregularity()
        atrial = p["AF"] + p["AFL"] >= self.book.profile.limit("AFIB", "probability")
        uneven = irregular >= self.book.profile.limit("IRREGULAR_HR", "irregularity")
        self._last("AFIB", "END_AFIB", atrial, at, ready, evidence)
        evidence = {**evidence, "irregularity": round(irregular, 3)}
        self._last(
            "IRREGULAR_HR",
            "END_IRREGULAR",
            uneven and not atrial and "AFIB" not in self.book.active,
            at,
            ready,
            evidence,
        )

    def _streak(
        self,
        rhythm: str,
        code: str,
        p: float,
        at: int,
        ready: int,
        value: float | None,
        evidence: dict[str, Any],
        may: bool,
        denied: bool,
    ) -> None:
        """So many windows in a row: VT or VF by the rhythm experts. Ended by time, extended by windows."""
        profile = self.book.profile
        streak = self.streaks[rhythm]
        if p < profile.limit(code, "probability"):
            streak[0] = 0
            return
        streak[0] += 1
        if streak[0] == 1:
            streak[1] = at - HALF_WINDOW_TICKS
        if streak[0] < profile.limit(code, "windows") or not may:
            return
        if code not in self.book.active:
            if denied:  # what has begun goes on: a VT whose beats are misjudged is no new one
                return
            over = ("NSVT", "RUN_PVC", "VENT_RHYTHM") if code == "VTACH" else ()
            if not self.pulse.trigger(self.book, code, streak[1], ready, value, evidence, over):
                return
        self.book.arm("end " + code, max(self.book.timers.get("end " + code, 0), ready + 5 * TICK_HZ))

    def _last(self, code: str, end_code: str, seen: bool, at: int, ready: int, evidence: dict[str, Any]) -> None:
        tally = self.lasting[code]
        tally[0] = min(tally[0] + HOP_TICKS, 1 << 40) if seen else max(0, tally[0] - 2 * HOP_TICKS)
        tally[1] = tally[1] + HOP_TICKS if not seen else max(0, tally[1] - 2 * HOP_TICKS)
        profile = self.book.profile
        if code in self.book.active:
            if tally[1] >= max(HOP_TICKS, round(profile.limit(end_code, "delay_s") * TICK_HZ)):
                self.book.end(code, ready)
                tally[0] = 0
                self.book.trigger(end_code, at, ready, None, evidence)
            return
        if seen and tally[0] == HOP_TICKS:
            tally[2] = at - HALF_WINDOW_TICKS
        if tally[0] >= round(profile.limit(code, "time_s") * TICK_HZ):
            tally[1] = 0
            self.book.trigger(code, tally[2], ready, None, evidence, ("IRREGULAR_HR",) if code == "AFIB" else ())

    def state(self) -> dict[str, Any]:
        return {
            "rhythm": self.rhythm,
            "confidence": self.confidence,
            "noisy": self.noisy,
            "lasting": {code: list(tally) for code, tally in self.lasting.items()},
            "streaks": {code: list(streak) for code, streak in self.streaks.items()},
            "nn": list(self.nn),
        }

    def restore(self, state: dict[str, Any]) -> None:
        self.rhythm, self.confidence, self.noisy = state["rhythm"], state["confidence"], state["noisy"]
        self.lasting = {code: list(tally) for code, tally in state["lasting"].items()}
        self.streaks = {code: list(streak) for code, streak in state["streaks"].items()}
        self.nn = list(state["nn"])
