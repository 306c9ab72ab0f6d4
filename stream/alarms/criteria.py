"""Criteria that need no model: asystole, pause, rate, VF by the index, leads, noise, gaps, learning.

They read beats, the VF index, signal quality and gaps on the detector's clock, and nothing else, so
they go on when the model is slow or dead. Each decision is made at an exact tick: a silence of T
seconds is decided when the detector has told all beats up to its end, `WATERMARK` ticks later.
A gap, leads off or noise stops every clock here; they start anew when the signal is back.
"""

from collections.abc import Sequence
from typing import Any

from model.detection import DELAY
from model.vf import WINDOW as VF_WINDOW
from stream.alarms.book import Book
from stream.alarms.conditions import CONDITIONS, TICK_HZ
from stream.alarms.numerics import REDS, HeartRate, RateLimits, Vitals
from stream.alarms.pulse import Pulse

WATERMARK = DELAY
"""Ticks until the detector has surely told of a beat (its DELAY)."""

OFF_REASONS = (1, 2, 3)  # off, flat, saturated: as model.quality.REASONS numbers them
NOISY_REASON = 4
LEARNING_BEATS = 8
LEARNING_TICKS = 10 * TICK_HZ
SHORT_GAP_TICKS = TICK_HZ  # a shorter gap breaks intervals and runs, and does not end alarms
BORNE_OUT = 0.875  # of the time of an asystole, when the pulse has stopped too
STEADY_REPORTS = 2  # reports of one kind, a second apart, before leads off or noise comes or goes


class Detectors:
    """Conditions on the detector's clock. Writes decisions into `book`, and into `log` what the
    criteria of the model must know as of their own tick: (tick, what, a, b)."""

    __slots__ = (
        "arrest_beats",
        "bad",
        "base",
        "book",
        "good",
        "heart",
        "inop",
        "last",
        "leads",
        "learning",
        "learnt",
        "log",
        "noisy_since",
        "pausing",
        "pulse",
        "quality",
        "rate_high",
        "rate_low",
        "valid_since",
        "vf",
        "vf_onset",
    )

    def __init__(self, book: Book) -> None:
        self.book = book
        self.log: list[tuple[int, str, Any, int]] = []
        self.heart = HeartRate()
        self.last = -1  # newest R peak since the signal is continuous, else -1
        self.base = 0  # where the silence now going on began, at the latest
        self.valid_since = 0
        self.learning = True
        self.learnt = 0
        self.inop = ""  # off, noisy or nothing
        self.bad: list[Any] = ["", 0, 0]  # kind, reports in a row, tick of the first
        self.good = 0
        self.noisy_since = -1
        self.leads = ""
        self.quality: tuple[float, ...] = ()
        self.vf, self.vf_onset = False, 0
        self.arrest_beats = 0
        self.pulse = Pulse()
        self.pausing = -1  # the beat after which a pause was raised by its timer
        self.rate_high = RateLimits(book, "HR_HIGH", "X_TACHY", 1)
        self.rate_low = RateLimits(book, "HR_LOW", "X_BRADY", -1)
        book.arm("numeric", TICK_HZ)
        self._learn(0, 0)
        self._time_silence()

    def beat(self, at: int, decided: int) -> None:
        """An R peak at tick `at`, told at `decided`."""
        self.log.append((decided, "beat", at, 0))
        rr = at - self.last if 0 <= self.last < at else 0
        self.last = at
        if self.inop or self.vf:
            return
        arrest = "ASYSTOLE" in self.book.active
        if not arrest and at - self.base >= self._ticks("ASYSTOLE"):  # told sooner than the timer would
            arrest = self._arrest(decided)
        if arrest:
            self._beat_in_asystole(at, rr, decided)
        self.base = max(self.base, at)
        self._time_silence()
        if self.learning:
            self.learnt += 1
            if self.learnt >= LEARNING_BEATS:
                self._learnt(decided)
        if not rr:
            return
        if not self.learning and not arrest and self._ticks("PAUSE") <= rr < self._ticks("ASYSTOLE"):
            self._paused(at, rr, decided)
        if rr < self._ticks("ASYSTOLE"):
            self.heart.add(rr)
            self._rate(at, decided)

    def vf_change(self, on: bool, onset: int, decided: int) -> None:
        """The VF index went on or off; `onset` is where the waveform changed."""
        if on == self.vf:
            return
        self.vf = on
        self.log.append((decided, "vf", int(on), onset))
        if on:
            self.vf_onset = max(onset, self.valid_since)
            self.heart.clear()
            for name in ("asystole", "arrest", "pause", "calm HR_HIGH", "calm HR_LOW"):
                self.book.disarm(name)
            self.rate_high.end(decided, "vf")
            self.rate_low.end(decided, "vf")
            if "VFIB" in self.book.active:
                self.book.disarm("end VFIB")  # it was not over
                self.book.over("VFIB", None)
            elif not self.inop:
                self._time_vf(decided)
            return
        self.book.disarm("vf")
        if "VFIB" in self.book.active:
            hold_s = self.book.profile.limit("VFIB", "hold_s")
            self.book.arm("end VFIB", decided + round(hold_s * TICK_HZ))
            self.book.over("VFIB", onset)
        if not self.inop:
            self.base = max(onset, self.last, self.valid_since)
            self._time_silence()

    def report(self, at: int, quality: Sequence[float], reason: Sequence[int]) -> None:
        """A second of signal quality that ends at tick `at`: 0..1 and a reason for each lead."""
        self.quality = tuple(float(q) for q in quality)
        off = [i for i, why in enumerate(reason) if why in OFF_REASONS]
        usable = any(why == 0 for why in reason)
        kind = "" if usable or not len(reason) else "off" if len(off) == len(reason) else "noisy"
        self._leads(off, kind, at)
        if kind:
            self.good = 0
            self.bad = [kind, self.bad[1] + 1, self.bad[2]] if self.bad[0] == kind else [kind, 1, at - TICK_HZ]
            self.valid_since = max(self.valid_since, at)
            self.base = max(self.base, at)
            if not self.inop and not self.vf:
                self._time_silence()
            if self.bad[1] >= STEADY_REPORTS and self.inop != kind:
                self._set_inop(kind, self.bad[2], at)
        else:
            self.bad = ["", 0, 0]
            self.good += 1
            if self.inop and self.good >= STEADY_REPORTS:
                self._clear_inop(at)

    def pulse_beat(self, signal: int, at: int, decided: int, ratio: float, likeness: float) -> None:
        """A pulse beat at tick `at`, told at `decided`."""
        self.log.append((decided, "pulse", [signal, ratio, likeness], at))
        self.pulse.add(signal, at, ratio, likeness)

    def nothing_between(self, first: int, end: int) -> None:
        """No silence, and no VF, can be told from ticks that are not there."""
        self.last = -1
        self.base = self.valid_since = max(self.valid_since, end)
        for name in ("asystole", "arrest", "pause", "vf"):
            if self.book.timers.get(name, -1) >= first:
                self.book.disarm(name)

    def gap(self, first: int, n: int, decided: int) -> None:
        """Ticks first .. first + n - 1 are not there; `decided` is when that was found."""
        end = first + n
        at = max(decided, first)
        self.log.append((at, "gap" if n >= SHORT_GAP_TICKS else "break", end, first))
        self.book.trigger("SIGNAL_LOST", first, at, n / TICK_HZ)
        self.book.arm("end SIGNAL_LOST", max(self.book.timers["end SIGNAL_LOST"], end + 5 * TICK_HZ))
        self.bad, self.good = ["", 0, 0], 0
        if n >= SHORT_GAP_TICKS:
            self._stop(at, "inop")
            self.pulse.clear()
            if not self.inop:
                self._learn(end, max(at, end))
        if self.inop:
            return
        if self.vf and "VFIB" not in self.book.active:
            self.vf_onset = max(self.vf_onset, end)
            self._time_vf(at)
        elif not self.vf:
            self._time_silence()

    def fire(self, name: str, tick: int) -> None:
        """A timer of the book has come."""
        if name == "numeric":
            self.book.arm("numeric", tick + TICK_HZ)
            if "ASYSTOLE" in self.book.active and self.pulse.against("ASYSTOLE", self.base, tick) is not None:
                self.book.end("ASYSTOLE", tick, "pulse")  # it has come back, or is known only now
                self.book.arm("asystole", tick + 1)
            self.log.append((tick, "second", self.vitals(tick), 0))
        elif name == "asystole":
            self._arrest(tick)
        elif name == "arrest":
            stopped = self.pulse.stopped(self.base, tick)
            if stopped is not None and "ASYSTOLE" not in self.book.active:
                self._arrest(tick, stopped)
        elif name == "pause" and "ASYSTOLE" not in self.book.active:
            self.pausing = self.last
            self.book.trigger("PAUSE", self.last, tick, self._t("PAUSE"), self._evidence())
            self.book.disarm("end PAUSE")  # stays until a beat ends it
        elif name == "vf":
            if not self.inop and not self.pulse.trigger(
                self.book, "VFIB", self.vf_onset, tick, None, self._evidence("index"), ("ASYSTOLE", "PAUSE")
            ):
                self.book.arm("vf", tick + TICK_HZ)  # look again
        elif name == "learnt":
            self._learnt(tick)
        elif name == "unreadable":
            self.book.trigger("CANNOT_ANALYZE", self.noisy_since, tick)
        elif name == "calm HR_HIGH":
            self.rate_high.calm(tick)
        elif name == "calm HR_LOW":
            self.rate_low.calm(tick)

    def vitals(self, at: int) -> Vitals:
        """What is known at tick `at`, now: no rate while the signal cannot be read or is in VF."""
        told = not (self.inop or self.vf)
        red = next((code for code in REDS if code in self.book.active), "")
        return Vitals(
            at, self.heart.bpm() if told else None, self.heart.bpm(in_run=True) if told else None, red, self.quality
        )

    def profile_changed(self, at: int) -> None:
        """The book has another profile: end what is switched off, time and rate by the new limits."""
        self.book.end_switched_off(at)
        for ladder in (self.rate_high, self.rate_low):
            if ladder.level == 1 and ladder.plain not in self.book.active:
                ladder.end(at, "switched off")
        if not self.inop and not self.vf and "ASYSTOLE" not in self.book.active:
            self._time_silence()

    def state(self) -> dict[str, Any]:
        kept = {name: getattr(self, name) for name in _KEPT}
        rates = [[ladder.level, ladder.bpm, ladder.onset, ladder.x_limit] for ladder in (self.rate_high, self.rate_low)]
        return {
            **kept,
            "rates": rates,
            "rrs": list(self.heart.rrs),
            "log": [list(entry) for entry in self.log],
            "pulse": self.pulse.state(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        for name in _KEPT:
            setattr(self, name, state[name])
        self.quality = tuple(self.quality)
        for ladder, kept in zip((self.rate_high, self.rate_low), state["rates"], strict=True):
            ladder.level, ladder.bpm, ladder.onset, ladder.x_limit = kept
        self.heart = HeartRate(state["rrs"])
        self.pulse.restore(state["pulse"])
        self.log = [(tick, what, a, b) for tick, what, a, b in state["log"]]

    # What follows is inside.

    def _t(self, code: str) -> float:
        return self.book.profile.limit(code, "time_s")

    def _ticks(self, code: str) -> int:
        return self.book.profile.ticks(code)

    def _time_silence(self) -> None:
        """Restart the clocks of asystole and pause from where the silence began."""
        if "ASYSTOLE" not in self.book.active:
            self.book.arm("asystole", max(self.base + self._ticks("ASYSTOLE") + WATERMARK, self.book.clock))
            borne_out = self.base + round(BORNE_OUT * self._ticks("ASYSTOLE")) + WATERMARK
            self.book.arm("arrest", max(borne_out, self.book.clock))
        if self.last >= 0 and self.last == self.base and not self.learning:
            self.book.arm("pause", max(self.last + self._ticks("PAUSE") + WATERMARK, self.book.clock))
        else:
            self.book.disarm("pause")

    def _time_vf(self, decided: int) -> None:
        self.book.arm("vf", max(self.vf_onset + self._ticks("VFIB"), decided))

    def _evidence(self, path: str = "detector") -> dict[str, Any]:
        return {"path": path, "quality": round(max(self.quality), 3)} if self.quality else {"path": path}

    def _paused(self, at: int, rr: int, decided: int) -> None:
        """A beat ends a pause: one that its timer has raised, or one too short for the timer."""
        if self.pausing == at - rr and "PAUSE" in self.book.active:
            self.book.worse("PAUSE", rr / TICK_HZ)
            self.book.arm("end PAUSE", decided + round(CONDITIONS["PAUSE"].hold_s * TICK_HZ))
        else:
            self.book.trigger("PAUSE", at - rr, decided, rr / TICK_HZ, self._evidence())

    def _arrest(self, tick: int, stopped: dict[str, Any] | None = None) -> bool:
        """No beat for so long: asystole, and whether it is not withheld. `stopped`: the pulse bears it out."""
        evidence = self._evidence() if stopped is None else {**self._evidence(), "pulse": stopped}
        silence = (tick - WATERMARK - self.base) / TICK_HZ if stopped is not None else self._t("ASYSTOLE")
        if not self.pulse.trigger(self.book, "ASYSTOLE", self.base, tick, silence, evidence, ("PAUSE",)):
            self.book.arm("asystole", tick + TICK_HZ)  # look again
            return False
        self.arrest_beats = 0
        self.heart.clear()
        self.rate_high.end(tick, "asystole")
        self.rate_low.end(tick, "asystole")
        self.book.disarm("asystole")
        self.book.disarm("arrest")
        return True

    def _beat_in_asystole(self, at: int, rr: int, decided: int) -> None:
        """Two beats within T end it: a lone one may be an artefact, or the heart stopping again."""
        self.arrest_beats = self.arrest_beats + 1 if rr and rr < self._ticks("ASYSTOLE") else 1
        if self.arrest_beats >= 2:
            self.book.end("ASYSTOLE", decided)

    def _rate(self, at: int, decided: int) -> None:
        bpm, slowest = self.heart.bpm(), self.heart.slowest()
        if bpm is None or self.learning:
            return
        profile = self.book.profile
        self.rate_high.see(bpm, profile.limit("HR_HIGH", "limit"), profile.extreme_high, at, decided)
        if slowest is not None and slowest <= profile.extreme_low:
            bpm = min(bpm, slowest)
        self.rate_low.see(bpm, profile.limit("HR_LOW", "limit"), profile.extreme_low, at, decided)

    def _learn(self, since: int, at: int) -> None:
        self.learning, self.learnt = True, 0
        self.log.append((at, "learning", 1, since))
        self.book.trigger("LEARNING", since, at)
        self.book.arm("learnt", since + LEARNING_TICKS)

    def _learnt(self, at: int) -> None:
        self.learning = False
        self.log.append((at, "learning", 0, at))
        self.book.disarm("learnt")
        self.book.end("LEARNING", at)
        if not self.vf:
            self._time_silence()

    def _stop(self, at: int, reason: str) -> None:
        """End all that beats and rhythm raised, and stop their clocks."""
        for name in ("asystole", "arrest", "pause", "calm HR_HIGH", "calm HR_LOW"):
            self.book.disarm(name)
        keep = ("VFIB",) if reason == "noisy" else ()  # noise is no end of a VF that went out
        self.book.end_all(at, "inop", keep)
        self.rate_high.level = self.rate_low.level = 0
        self.heart.clear()
        if not keep:
            self.vf = False
            self.book.disarm("vf")

    def _set_inop(self, kind: str, since: int, at: int) -> None:
        if self.learning:
            self.learning = False
            self.book.disarm("learnt")
            self.book.end("LEARNING", at, "inop")
        self._end_inop(at)
        self.inop = kind
        self._stop(at, kind)
        self.log.append((at, "inop", 1, since))
        if kind == "off":
            self.book.trigger("LEADS_OFF", since, at)
        else:
            self.noisy_since = since
            self.book.trigger("NOISY_ECG", since, at)
            self.book.arm("unreadable", max(since + round(self._t("CANNOT_ANALYZE") * TICK_HZ), at))

    def _end_inop(self, at: int) -> None:
        self.book.disarm("unreadable")
        for code in ("LEADS_OFF", "NOISY_ECG", "CANNOT_ANALYZE"):
            self.book.end(code, at)

    def _clear_inop(self, at: int) -> None:
        self._end_inop(at)
        self.inop = ""
        self.log.append((at, "inop", 0, at))
        self.last = -1
        self.base = self.valid_since
        self._learn(at, at)
        if not self.vf:
            self._time_silence()
        elif "VFIB" not in self.book.active:
            self.vf_onset = max(self.vf_onset, self.valid_since + VF_WINDOW)  # until then it still sees the noise
            self._time_vf(at)

    def _leads(self, off: list[int], kind: str, at: int) -> None:
        """Some leads off, but not all: told, and nothing is inhibited."""
        names = ",".join(str(i + 1) for i in off) if off and kind != "off" else ""
        if names == self.leads:
            return
        self.leads = names
        self.book.end("LEAD_OFF", at)
        if names:
            self.book.trigger("LEAD_OFF", at - TICK_HZ, at, None, {"leads": names})


_KEPT = (
    "arrest_beats",
    "bad",
    "base",
    "good",
    "inop",
    "last",
    "leads",
    "learnt",
    "learning",
    "noisy_since",
    "pausing",
    "quality",
    "valid_since",
    "vf",
    "vf_onset",
)
