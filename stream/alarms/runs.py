"""Criteria on the sequence of judged beats: runs of ventricular beats, pairs, and patterns.

They run on the model's clock, and know of the detector's only what its log tells up to their own
tick. A beat that the model did not judge (`?`) ends a pattern, as does a break in the signal.
"""

from collections import deque
from collections.abc import Iterable
from typing import Any

from stream.alarms.book import Book
from stream.alarms.conditions import TICK_HZ
from stream.alarms.pulse import Pulse
from stream.alarms.rhythms import HALF_WINDOW_TICKS

PER_MINUTE = 60 * TICK_HZ
KEPT = 32  # newest beats kept
RUN, PAIR = 3, 2
SURE = ("N", "S", "F")  # beats that are no ventricular one for certain
FAMILY = ("RUN_PVC", "VENT_RHYTHM", "VENT_BRADY", "NSVT", "VTACH")  # what a run can be, least first
LOOK_AGAIN = 3 * TICK_HZ
NARROW = 8  # over so many beats in a window the rhythm experts alone begin no VTACH
RATE_SLACK = 5.0  # bpm below its limit at which a VT that is up still goes on


class Runs:
    """Ventricular and supraventricular runs and patterns of one bed, beat by beat."""

    __slots__ = (
        "book",
        "break_at",
        "forms",
        "labels",
        "last",
        "narrow",
        "noisy",
        "pulse",
        "pvcs",
        "rrs",
        "run",
        "run_level",
        "run_start",
        "sv_run",
        "sv_start",
        "wide",
        "wide_start",
        "withheld",
    )

    def __init__(self, book: Book, pulse: Pulse) -> None:
        self.book, self.pulse = book, pulse
        self.break_at = 0
        self.pvcs: deque[int] = deque()
        self.reset(0)

    def reset(self, break_at: int) -> None:
        """The signal is broken: nothing before tick `break_at` joins what comes after."""
        self.break_at = max(self.break_at, break_at)
        self.last = -1
        self.noisy = False
        self.labels = ""
        self.rrs: deque[int] = deque(maxlen=KEPT)  # rrs[i] ends at the beat labels[i]; 0 where unknown
        self.forms: deque[int] = deque(maxlen=KEPT)
        self.run = self.run_level = 0
        self.run_start = -1
        self.sv_run, self.sv_start = 0, -1
        self.narrow = 0  # beats in a row that are surely not ventricular
        self.wide, self.wide_start = 0, -1  # beats in a row that are ventricular or may be
        self.withheld: list[Any] = []  # a VT by the beats that noise or the pulse denies: onset, when told, rate

    def beat(
        self,
        at: int,
        ready: int,
        label: str,
        confidence: float,
        form: int,
        quiet: bool,
        sv_rhythm: bool,
        perhaps_v: bool = False,
        noisy: bool = False,
    ) -> None:
        """A judged beat at tick `at`. `quiet`: learning or inop, so count but do not raise. `sv_rhythm`: the newest
        window is of a supraventricular tachycardia. `perhaps_v`: it may be ventricular, whatever its label. `noisy`:
        the newest window is hardly readable, so what was taken for beats makes no VTACH."""
        if self.last < self.break_at <= at:
            self.reset(self.break_at)
        self.noisy = noisy
        rr = at - self.last if 0 <= self.last < at else 0
        self.last = at
        before, run_before = self.labels, self.run
        self.labels = (before + label)[-KEPT:]
        self.rrs.append(rr)
        self.forms.append(form if label == "V" else 0)
        evidence: dict[str, Any] = {"path": "beats", "confidence": round(confidence, 3)}
        self._count(at, ready, label, quiet)
        if label == "V":
            self.run_start = at if self.run == 0 else self.run_start
            self.run += 1
            if self.run >= RUN and not quiet:
                self._run(at, ready, {**evidence, "run": self.run})
        else:
            self.run = self.run_level = 0
            if self.withheld and not quiet:
                self._vtach(ready, evidence)
        self.narrow = self.narrow + 1 if label in "NS" and not perhaps_v else 0
        self._wide(at, ready, label == "V" or perhaps_v, quiet, evidence)
        self._sv(at, ready, label, quiet, sv_rhythm, evidence)
        if quiet:
            return
        if label in SURE and run_before == PAIR:
            self._pair(ready, evidence)
        elif label in SURE and run_before == 1:
            self._r_on_t(at, ready, evidence)
        self._patterns(at, ready, label, evidence)
        if label == "N" and before.endswith("NNN"):
            self._missed(at, ready, rr, evidence)

    def narrow_by(self, tick: int) -> bool:
        """Whether the newest beats, NARROW of them in the window that ends at `tick`, are surely not ventricular."""
        if self.narrow < NARROW:
            return False
        rrs = [self.rrs[-1 - i] for i in range(NARROW - 1)]
        return all(rrs) and tick - self.last + sum(rrs) <= 2 * HALF_WINDOW_TICKS

    def count(self, ready: int) -> None:
        """Look at PVCs per minute again, as time goes by without beats."""
        self._count_ended(ready)

    def per_minute(self, tick: int) -> int:
        """PVCs in the 60 s up to `tick`."""
        return sum(1 for at in self.pvcs if tick - PER_MINUTE < at <= tick)

    def _rate(self, n: int) -> float:
        """Rate in bpm over the newest `n` beats: n - 1 intervals; 0 where one is unknown."""
        rrs = [self.rrs[-1 - i] for i in range(n - 1)]
        return PER_MINUTE * len(rrs) / sum(rrs) if rrs and all(rrs) else 0.0

    def _run(self, at: int, ready: int, evidence: dict[str, Any]) -> None:
        profile, book = self.book.profile, self.book
        n, limit = int(profile.limit("VTACH", "run")), profile.limit("VTACH", "rate")
        rate = self._rate(min(self.run, n))
        if "VTACH" in book.active:
            if rate >= limit - RATE_SLACK:
                self._hold_vtach(ready)
                book.worse("VTACH", rate)
            self.run_level = FAMILY.index("VTACH")
            return
        if self.run_level == FAMILY.index("VTACH"):  # it ended within this run: what goes on is a new run
            self.run, self.run_start, self.run_level = 1, at, 0
            return
        if self.run >= n and rate >= limit:
            code = "VTACH"
        elif rate >= limit:
            code = "NSVT"
        elif (
            self.run >= profile.limit("VENT_BRADY", "run")
            and rate < profile.limit("VENT_BRADY", "rate")
            and profile.enabled("VENT_BRADY")
        ):
            code = "VENT_BRADY"
        elif self.run > profile.limit("VENT_RHYTHM", "run"):
            code = "VENT_RHYTHM"
        else:
            code = "RUN_PVC"
        level = FAMILY.index(code)
        standing = max((FAMILY.index(other) for other in FAMILY if other in book.active), default=-1)
        told = self.run_level > 0 or (self.run > RUN and standing >= 0)
        if standing > level or (standing == level and told):
            other = FAMILY[standing]  # the run goes on: it stays up, and is no new episode
            book.arm("end " + other, max(book.timers.get("end " + other, 0), ready + 5 * TICK_HZ))
            book.worse(other, rate)
            return
        if code == "VTACH":
            self.withheld = [self.run_start, ready, rate]
            self._vtach(ready, evidence)
            return
        self.run_level = level
        book.trigger(code, self.run_start, ready, rate, evidence, FAMILY[:level])

    def _wide(self, at: int, ready: int, wide: bool, quiet: bool, evidence: dict[str, Any]) -> None:
        """A run in which each beat is ventricular or may be: a wide tachycardia is a VT until it is known better."""
        self.wide_start = at if self.wide == 0 else self.wide_start
        self.wide = self.wide + 1 if wide else 0
        n, limit = int(self.book.profile.limit("VTACH", "run")), self.book.profile.limit("VTACH", "rate")
        if quiet or self.wide < n or self.run >= n:
            return
        rate = self._rate(n)
        if "VTACH" in self.book.active:
            if rate >= limit - RATE_SLACK:
                self._hold_vtach(ready)
                self.book.worse("VTACH", rate)
        elif rate >= limit:
            self.withheld = [self.wide_start, ready, rate]
            self._vtach(ready, {**evidence, "run": self.wide, "wide": True})

    def _vtach(self, ready: int, evidence: dict[str, Any]) -> None:
        """A VT by the beats, where neither noise nor the pulse speaks against it. What the pulse made of its last beats
        is seen later only, and so is the end of noise: one that is withheld is looked at again for a while."""
        onset, told, rate = self.withheld
        level = FAMILY.index("VTACH")
        if not self.noisy and self.pulse.trigger(self.book, "VTACH", onset, ready, rate, evidence, FAMILY[:level]):
            self.withheld = []
            self.run_level = level if self.run else 0
            self._hold_vtach(ready)
        elif ready - told > LOOK_AGAIN:
            self.withheld = []

    def _hold_vtach(self, ready: int) -> None:
        self.book.arm("end VTACH", ready + round(self.book.profile.limit("VTACH", "hold_s") * TICK_HZ))

    def _pair(self, ready: int, evidence: dict[str, Any]) -> None:
        """N V V N: decided at the beat after it."""
        coupling_ms = self.rrs[-2] * 1000 / TICK_HZ
        if self.labels[-4:-3] in SURE and 0 < coupling_ms < self.book.profile.limit("PAIR_PVC", "coupling_ms"):
            onset = self.last - self.rrs[-1] - self.rrs[-2]
            self.book.trigger("PAIR_PVC", onset, ready, coupling_ms, evidence)

    def _mean(self, skip: int) -> float:
        """Mean of the newest 8 intervals that end in a beat after a beat, both not ventricular; 0 for too few."""
        found: list[int] = []
        for i in range(len(self.labels) - 1 - skip, 0, -1):
            if self.labels[i] == "N" and self.labels[i - 1] == "N" and self.rrs[i]:
                found.append(self.rrs[i])
                if len(found) == 8:
                    break
        return sum(found) / len(found) if len(found) >= RUN else 0.0

    def _r_on_t(self, at: int, ready: int, evidence: dict[str, Any]) -> None:
        """N V N with the V very early and a pause after it, at a rate below 100."""
        mean = self._mean(skip=2)
        coupling, pause = self.rrs[-2], self.rrs[-1]
        slow = mean > PER_MINUTE / 100
        if (
            slow
            and self.labels[-3:-2] in SURE
            and 0 < coupling < self.book.profile.limit("R_ON_T", "ratio") * mean
            and pause >= 1.25 * mean
        ):
            self.book.trigger("R_ON_T", at - pause, ready, coupling * 1000 / TICK_HZ, evidence)

    def _missed(self, at: int, ready: int, rr: int, evidence: dict[str, Any]) -> None:
        """Four N, the last late: by the ratio, or above 120 bpm by a second; a pause is a pause."""
        mean = self._mean(skip=1)
        if not mean or rr >= self.book.profile.limit("PAUSE", "time_s") * TICK_HZ:
            return
        late = TICK_HZ if mean < PER_MINUTE / 120 else self.book.profile.limit("MISSED_BEAT", "ratio") * mean
        if rr > late:
            self.book.trigger("MISSED_BEAT", at - rr, ready, rr / TICK_HZ, evidence)

    def _patterns(self, at: int, ready: int, label: str, evidence: dict[str, Any]) -> None:
        profile = self.book.profile
        if label != "V":
            return
        labels = self.labels.replace("S", "N")
        for code, cycle in (("BIGEMINY", "NV"), ("TRIGEMINY", "NNV")):
            cycles = int(profile.limit(code, "cycles"))
            if labels.endswith(cycle * cycles):
                self._keep_up(code, at - sum(list(self.rrs)[1 - len(cycle) * cycles :]), ready, None, evidence)
        n = int(profile.limit("MULTIFORM_PVC", "beats"))
        forms = {form for form in list(self.forms)[-n:] if form > 0}
        if len(forms) > 1:
            self._keep_up("MULTIFORM_PVC", at, ready, float(len(forms)), {**evidence, "forms": sorted(forms)})

    def _keep_up(self, code: str, onset: int, ready: int, value: float | None, evidence: dict[str, Any]) -> None:
        """Start it, or let it stand on: a pattern that lasts is one episode."""
        if code in self.book.active:
            self.book.arm("end " + code, ready + 10 * TICK_HZ)
        else:
            self.book.trigger(code, onset, ready, value, evidence)

    def _sv(self, at: int, ready: int, label: str, quiet: bool, sv_rhythm: bool, evidence: dict[str, Any]) -> None:
        if not (label == "S" or (label == "N" and sv_rhythm)):
            self.sv_run = 0
            return
        self.sv_start = at if self.sv_run == 0 else self.sv_start
        self.sv_run += 1
        n = int(self.book.profile.limit("SVT", "run"))
        if self.sv_run < n or quiet:
            return
        rate = self._rate(n)
        if rate < self.book.profile.limit("SVT", "rate"):
            return
        if "SVT" in self.book.active:
            self.book.arm("end SVT", ready + 5 * TICK_HZ)
            self.book.worse("SVT", rate)
        else:
            self.book.trigger("SVT", self.sv_start, ready, rate, {**evidence, "run": self.sv_run})

    def _count(self, at: int, ready: int, label: str, quiet: bool) -> None:
        if label == "V":
            self.pvcs.append(at)
        while self.pvcs and self.pvcs[0] <= at - PER_MINUTE:
            self.pvcs.popleft()
        limit = self.book.profile.limit("PVC_RATE", "limit")
        if "PVC_RATE" in self.book.active:
            self.book.worse("PVC_RATE", float(len(self.pvcs)))
            self._count_ended(at)
        elif len(self.pvcs) > limit and not quiet:
            self.book.trigger("PVC_RATE", self.pvcs[0], ready, float(len(self.pvcs)), {"path": "beats"})

    def _count_ended(self, tick: int) -> None:
        """Hysteresis: over only when the count is a fifth below its limit."""
        if "PVC_RATE" in self.book.active and self.per_minute(tick) <= 0.8 * self.book.profile.limit(
            "PVC_RATE", "limit"
        ):
            self.book.end("PVC_RATE", max(tick, self.book.clock))

    def state(self) -> dict[str, Any]:
        return {name: list(value) if isinstance(value := getattr(self, name), deque) else value for name in _KEPT}

    def restore(self, state: dict[str, Any]) -> None:
        for name in _KEPT:
            value: Any = state[name]
            if isinstance(value, Iterable) and not isinstance(value, str) and name != "withheld":
                value = deque(value, None if name == "pvcs" else KEPT)
            setattr(self, name, value)


_KEPT = tuple(name for name in Runs.__slots__ if name not in ("book", "pulse"))
