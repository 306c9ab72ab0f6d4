"""Alarms of one bed: two clocks, their criteria, and one life cycle.

The detector's clock carries what needs no model (`criteria`), the model's clock what does (`runs`,
`rhythms`). The model's side never sees the detector's state, only its log, entry by entry as of its
own tick, and never runs past the detector's clock. So each side is a function of its own inputs in
tick order, and the set of (code, onset, stream_time) is the same however far apart the clocks are.

All times are ticks of 4 ms since the epoch's first sample. Nothing here reads a clock or a socket.
"""

from bisect import insort
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from stream.book import NEVER, Book, Decision
from stream.conditions import CONDITIONS, TICK_HZ, Profile, ProfileError
from stream.criteria import Detectors
from stream.lifecycle import LifeCycle, Side
from stream.rhythms import Rhythms
from stream.runs import PER_MINUTE, Runs
from stream.wire import Action, AlertEvent, Moment, Numeric

LOG_LIMIT = 8192  # entries that wait for a model; past it the model's side goes on without one
RATE_SPAN = 6 * TICK_HZ
_BEAT, _WINDOW = 0, 1


class BedAlarms:
    """Alarms of one bed and epoch, on sample time.

    Detector's clock: `beat`, `vf`, `quality`, `gap`, `advance`, in the order of the tick at which each
    is known (`decided`, `at`). `advance(t)` says that all that was decided by tick t has been handed
    over; timers that are due before t fire. Model's clock: `judged_beat`, `judged_window`, in any
    order, and `advance_model(t)`, which says that all with `ready` <= t have been handed over; they
    are acted on then, in order of `ready`, once the detector's clock is past them.
    At the end of a record call `advance(last + 1)` and `advance_model(last + 1)`.

    Each call returns the events it caused, with `emit_time` empty and no stamps. `next_due`: a call of
    `advance` with a smaller tick would do nothing. `fs`: the source's rate in Hz, that events count in.
    """

    __slots__ = ("_actions", "_beats", "_book", "_detectors", "_life", "_log", "_model", "_model_inop", "_model_learning", "_model_tick",
                 "_model_vf", "_numerics", "_pending", "_rhythms", "_runs", "bed", "epoch", "fs", "next_due")  # fmt: skip

    def __init__(self, bed: str, epoch: str, fs: float, profile: Profile | None = None, first_tick: int = 0) -> None:
        profile = profile or Profile()
        self.bed, self.epoch, self.fs = bed, epoch, fs
        self._life = LifeCycle(bed, epoch, fs, first_tick)
        self._book = Book(profile, first_tick)
        self._detectors = Detectors(self._book, first_tick)
        self._log: deque[tuple[int, str, Any, int]] = deque()
        self._model = Book(profile, first_tick)
        self._runs, self._rhythms = Runs(self._model), Rhythms(self._model)
        self._pending: list[tuple[int, int, int, tuple[Any, ...]]] = []
        self._model_tick = first_tick - 1
        self._model_inop, self._model_learning, self._model_vf = False, True, False
        self._beats: deque[int] = deque(maxlen=16)  # the detector's beats as of the model's clock
        self._actions: list[tuple[int, Action]] = []  # given back after a restart, not yet due
        self._numerics: list[Numeric] = []
        self._book.arm("numeric", (first_tick // TICK_HZ + 1) * TICK_HZ)
        self._some_off(first_tick)
        self.next_due = first_tick

    # ---- the detector's clock

    def beat(self, at: int, decided: int) -> list[AlertEvent]:
        """An R peak at tick `at`, told at tick `decided`."""
        events = self._reach(decided)
        self._detectors.beat(at, decided)
        return self._settle(events)

    def vf(self, on: bool, onset: int, decided: int) -> list[AlertEvent]:
        """The VF index went on or off, found at `decided`, with the waveform's change at `onset`."""
        events = self._reach(decided)
        self._detectors.vf_change(on, onset, decided)
        return self._settle(events)

    def quality(self, at: int, quality: Sequence[float], reason: Sequence[int]) -> list[AlertEvent]:
        """Signal quality of each lead over the second before tick `at`, and why (0 is good)."""
        events = self._reach(at)
        self._detectors.report(at, quality, reason)
        return self._settle(events)

    def gap(self, first_tick: int, n_ticks: int, decided: int) -> list[AlertEvent]:
        """`n_ticks` from `first_tick` on are missing, found at `decided`."""
        events = self._reach(decided)
        self._detectors.gap(first_tick, n_ticks, decided)
        return self._settle(events)

    def advance(self, tick: int) -> list[AlertEvent]:
        """The detector's clock is at `tick`: let the timers fire that are due before it."""
        return self._settle(self._reach(tick))

    # ---- the model's clock

    def judged_beat(
        self, at: int, ready: int, label: str, confidence: float = 1.0, rr_ms: float = 0.0, form: int = 0
    ) -> list[AlertEvent]:
        """The model's judgement of the beat at `at`, which needed the signal up to `ready`.

        `form`: number of the ventricular template, from 1, where that is known. `rr_ms` is not needed:
        intervals are taken from `at`."""
        insort(self._pending, (ready, _BEAT, at, (label, float(confidence), form)), key=_when)
        return self._settle([])

    def judged_window(
        self, at: int, ready: int, rhythm: str, rhythms: Mapping[str, float], shockable: float, quality: float
    ) -> list[AlertEvent]:
        """The model's judgement of the 10 s before tick `at`."""
        insort(self._pending, (ready, _WINDOW, at, (rhythm, dict(rhythms), float(shockable), float(quality))), key=_when)
        return self._settle([])

    def advance_model(self, tick: int) -> list[AlertEvent]:
        """All judgements that are ready by `tick` have been handed over."""
        self._model_tick = max(self._model_tick, tick)
        return self._settle([])

    # ---- others

    def action(self, action: Action, tick: int) -> list[AlertEvent]:
        """What an operator wants, applied at `tick`, or when the detector's clock gets there.

        Raises ProfileError (a ValueError) where it is refused; nothing is changed then."""
        if action.kind == "limits":
            self._book.profile.with_changes(action.limits)
        if tick > self._book.clock:
            insort(self._actions, (tick, action), key=lambda entry: entry[0])
            self._plan()
            return []
        return self._settle(self._act(action, self._book.clock))

    def technical(self, code: str, on: bool, reason: str, tick: int) -> list[AlertEvent]:
        """A watchdog of the wall clock says that something began or ended, at `tick`."""
        row = CONDITIONS.get(code)
        if row is None or row.kind != "technical":
            known = ", ".join(row.code for row in CONDITIONS.values() if row.kind == "technical")
            raise ProfileError(f"{code}: no technical alarm; known are {known}")
        if on == (f"wall {code}" in self._life.alerts):
            return []
        onset = tick if on else self._life.alerts[f"wall {code}"].onset
        return self._life.apply("wall", Decision("start" if on else "end", code, onset, tick, None, reason), self._book.profile)

    def take_numerics(self) -> list[Numeric]:
        """The numerics since the last call, one for each second of sample time."""
        taken, self._numerics = self._numerics, []
        return taken

    def standing(self) -> list[AlertEvent]:
        """All alerts that are active or latched, as `continue` events: for who comes after a restart."""
        return self._life.standing(self._book.clock)

    @property
    def profile(self) -> Profile:
        return self._book.profile

    def state(self) -> dict[str, Any]:
        """All of it, of plain values that msgpack takes; `restore` into a BedAlarms of the same bed."""
        return {
            "book": self._book.state(),
            "detectors": self._detectors.state(),
            "model": self._model.state(),
            "runs": self._runs.state(),
            "rhythms": self._rhythms.state(),
            "life": self._life.state(),
            "log": [list(entry) for entry in self._log],
            "pending": [list(item) for item in self._pending],
            "beats": list(self._beats),
            "tick": self._model_tick,
            "model_knows": [self._model_inop, self._model_learning, self._model_vf],
            "actions": [[tick, msgspec.to_builtins(action)] for tick, action in self._actions],
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state` gave. Numerics that were not taken are not part of it."""
        self._book.restore(state["book"])
        self._detectors.restore(state["detectors"])
        self._model.restore(state["model"])
        self._runs.restore(state["runs"])
        self._rhythms.restore(state["rhythms"])
        self._life.restore(state["life"])
        self._log = deque(tuple(entry) for entry in state["log"])
        self._pending = [(ready, kind, at, tuple(what)) for ready, kind, at, what in state["pending"]]
        self._beats = deque(state["beats"], maxlen=16)
        self._model_tick = state["tick"]
        self._model_inop, self._model_learning, self._model_vf = state["model_knows"]
        self._actions = [(tick, msgspec.convert(action, Action)) for tick, action in state["actions"]]
        self._numerics = []
        self._plan()

    # ---- inside

    def _reach(self, tick: int) -> list[AlertEvent]:
        """Go to `tick` on the detector's clock, through every timer and action that is due before it."""
        events: list[AlertEvent] = []
        while self._actions and self._actions[0][0] < tick:
            due, action = self._actions.pop(0)
            self._run_to(due + 1, events)
            events += self._act(action, due)
        self._run_to(tick, events)
        return events

    def _run_to(self, tick: int, events: list[AlertEvent]) -> None:
        book = self._book
        if book.due < tick:
            book.run(tick, self._fire)
        book.clock = max(book.clock, tick)
        self._tell("detector", book, events)
        if self._life.due < tick:
            self._life.run(tick, book.profile, events)

    def _fire(self, name: str, tick: int) -> None:
        if name == "numeric":
            self._book.arm("numeric", tick + TICK_HZ)
            self._numerics.append(self._numeric(tick))
        else:
            self._detectors.fire(name, tick)

    def _tell(self, side: Side, book: Book, events: list[AlertEvent]) -> None:
        if book.out:
            for decision in book.take():
                events += self._life.apply(side, decision, book.profile)

    def _settle(self, events: list[AlertEvent]) -> list[AlertEvent]:
        """Take what the detectors decided, and let the model's side catch up."""
        self._tell("detector", self._book, events)
        if self._detectors.log:
            self._log.extend(self._detectors.log)
            self._detectors.log = []
            if len(self._log) > LOG_LIMIT:
                self._model_tick = max(self._model_tick, self._log[len(self._log) - LOG_LIMIT][0])
        self._catch_up(min(self._model_tick, self._book.clock - 1))
        self._tell("model", self._model, events)
        self._plan()
        return events

    def _plan(self) -> None:
        due = min(self._book.due, self._life.due, self._actions[0][0] if self._actions else NEVER)
        waiting = min(self._pending[0][0] if self._pending else NEVER, self._model.due)
        self.next_due = min(due, waiting if waiting <= self._model_tick else NEVER) + 1

    def _catch_up(self, until: int) -> None:
        """Merge the detector's log, judgements and the model's timers, in tick order, up to `until`."""
        log, pending, book = self._log, self._pending, self._model
        taken = 0
        while True:
            told = log[0][0] if log else NEVER
            ready = pending[taken][0] if taken < len(pending) else NEVER
            tick = min(told, ready, book.due)
            if tick > until:
                break
            book.clock = max(book.clock, tick)
            if told == tick:
                _, what, a, b = log.popleft()
                self._know(tick, what, a, b)
            elif ready == tick:
                self._judge(*pending[taken])
                taken += 1
            else:
                book.run(tick + 1, lambda name, due: None)
        del pending[:taken]

    def _know(self, tick: int, what: str, a: Any, b: int) -> None:
        """An entry of the detector's log."""
        if what == "beat":
            self._beats.append(a)
        elif what == "vf":
            self._model_vf = bool(a)
        elif what == "learning":
            self._model_learning = bool(a)
        elif what == "inop":
            self._model_inop = bool(a)
            self._break(tick, b, ended=True)
        elif what == "gap":
            self._break(tick, a, ended=True)
        elif what == "break":
            self._break(tick, a, ended=False)
        elif what == "profile":
            self._model.profile = Profile(a)
            for code in [code for code in self._model.active if not self._model.profile.enabled(code)]:
                self._model.end(code, tick, "switched off")

    def _break(self, tick: int, end: int, ended: bool) -> None:
        self._runs.break_at = max(self._runs.break_at, end)
        self._beats.clear()
        if ended:
            self._rhythms.reset()
            self._model.end_all(tick, "inop")

    def _judge(self, ready: int, kind: int, at: int, what: tuple[Any, ...]) -> None:
        quiet = self._model_inop or self._model_learning
        if kind == _BEAT:
            label, confidence, form = what
            runs = self._runs
            runs.beat(at, ready, label, confidence, form, quiet, self._rhythms.rhythm == "SVT")
            if runs.labels.endswith("NN") and runs.rrs[-1]:
                self._rhythms.interval(runs.rrs[-1])
            return
        self._runs.count(ready)
        if not self._model_inop:
            rhythm, rhythms, shockable, quality = what
            self._rhythms.window(at, ready, rhythm, rhythms, shockable, quality, self._rate(at), self._model_vf, quiet)

    def _rate(self, at: int) -> float:
        """Rate of the detector's beats in the 6 s up to `at`, as of the model's clock."""
        beats = [beat for beat in self._beats if at - RATE_SPAN < beat <= at]
        return PER_MINUTE * (len(beats) - 1) / (beats[-1] - beats[0]) if len(beats) > 3 else 0.0

    def _act(self, action: Action, tick: int) -> list[AlertEvent]:
        if action.kind != "limits":
            return self._life.act(action, tick, self._book.profile)
        self._book.profile = self._book.profile.with_changes(action.limits)
        self._detectors.log.append((tick, "profile", self._book.profile.changes, 0))
        self._detectors.profile_changed(tick)
        self._some_off(tick)
        return []

    def _some_off(self, tick: int) -> None:
        codes = ", ".join(self._book.profile.switched_off())
        self._book.end("SOME_ALARMS_OFF", tick)
        if codes:
            self._book.trigger("SOME_ALARMS_OFF", tick, tick, None, {"codes": codes})

    def _numeric(self, tick: int) -> Numeric:
        """What the bed shows at `tick`: `0` in asystole, nothing while the signal cannot be read."""
        detectors, runs = self._detectors, self._runs
        hr = None if detectors.inop or detectors.vf else detectors.heart.bpm(in_run=runs.run > 2)
        if "ASYSTOLE" in self._book.active:
            hr = 0.0
        red = next((code for code in ("VFIB", "ASYSTOLE", "VTACH") if code in self._book.active or code in self._model.active), "")
        return Numeric(
            bed=self.bed,
            epoch=self.epoch,
            at=Moment(round(tick * self.fs / TICK_HZ), self.fs),
            hr=None if hr is None else round(hr, 1),
            pvc_per_min=float(runs.per_minute(self._model.clock)) if runs.labels else None,
            rhythm=red or self._rhythms.rhythm,
            confidence=1.0 if red else self._rhythms.confidence,
            quality=detectors.quality,
        )


def _when(item: tuple[int, int, int, tuple[Any, ...]]) -> tuple[int, int, int]:
    return item[:3]
