"""Alarms of one bed: two clocks, their criteria, and one life cycle.

The detector's clock carries what needs no model (`criteria`), the model's clock what does
(`judgements`). The model's side never sees the detector's state, only its log, as of its own tick, and
never runs past the detector's clock. So each side is a function of its own inputs in tick order, and
the set of (code, onset, stream_time) is the same however far apart the clocks are.

All times are ticks of 4 ms since the epoch's first sample. Nothing here reads a clock or a socket.
"""

from bisect import insort
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from stream.alarms.alert import Side, sample_at
from stream.alarms.book import Book, Decision
from stream.alarms.conditions import CONDITIONS, Profile, ProfileError, merged
from stream.alarms.criteria import Detectors
from stream.alarms.judgements import BEAT, WINDOW, Judgements
from stream.alarms.lifecycle import LifeCycle
from stream.alarms.numerics import Figures
from stream.wire import Action, AlertEvent, Moment, Numeric

ACTIONS_KEPT = 256


class BedAlarms:
    """Alarms of one bed and epoch, on sample time.

    Detector's clock: `beat`, `vf`, `quality`, `gap`, `advance`, in the order of the tick at which each
    is known (`decided`, `at`). `advance(t)` says that all that was decided by tick t has been handed
    over; timers that are due before t fire. Model's clock: `judged_beat`, `judged_window`, in any
    order, and `advance_model(t)`, which says that all with `ready` <= t have been handed over; they
    are acted on then, in order of `ready`, once the detector's clock is past them. `advance(head)`
    right before `advance_model` costs little and spares the model's alarms the wait for a packet.
    At the end of a record call `advance(last + 1)` and `advance_model(last)`, and `close`.

    Each call returns the events it caused, with `emit_time` empty and no stamps. `next_due`: a call of
    `advance` with a smaller tick would do nothing. `fs`: the source's rate in Hz, that events count in.
    """

    # fmt: off
    __slots__ = ("_actions", "_book", "_detectors", "_judgements", "_life", "_off", "_refused", "_seen", "bed",
                 "epoch", "fs", "next_due")
    # fmt: on

    def __init__(self, bed: str, epoch: str, fs: float, profile: Profile | None = None) -> None:
        profile = profile or Profile()
        self.bed, self.epoch, self.fs = bed, epoch, fs
        self._life = LifeCycle(bed, epoch, fs)
        self._book = Book(profile)
        self._detectors = Detectors(self._book)
        self._judgements = Judgements(profile)
        self._actions: list[tuple[int, Action]] = []  # given back after a restart, not yet due
        self._seen: deque[str] = deque(maxlen=ACTIONS_KEPT)  # actions that came: given back twice, done once
        self._refused: list[str] = []
        self._off = ""  # the alarms that are switched off, as told
        self.next_due = 0
        self._tell_off(0)
        self._plan()

    # The detector's clock.

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
        """Signal quality of each lead, 0..1, over the second before tick `at`, and the reason where it
        is not good, as model.quality.REASONS numbers them."""
        events = self._reach(at)
        self._detectors.report(at, quality, reason)
        return self._settle(events)

    def pulse(self, signal: int, at: int, decided: int, ratio: float, likeness: float) -> list[AlertEvent]:
        """A pulse beat at tick `at` of signal model.pulse.SIGNALS[signal], told at `decided`: the height of its rise
        against the usual one, 0 where nothing is usual yet, and the likeness of its wave to the usual one, -1..1."""
        events = self._reach(decided)
        self._detectors.pulse_beat(signal, at, decided, ratio, likeness)
        return self._settle(events)

    def gap(self, first_tick: int, n_ticks: int, decided: int) -> list[AlertEvent]:
        """`n_ticks` from `first_tick` on are missing, found at `decided`."""
        events = self._reach(min(first_tick, decided))
        self._detectors.nothing_between(first_tick, first_tick + n_ticks)
        self._book.skip(first_tick, first_tick + n_ticks)
        events += self._reach(decided)
        self._detectors.gap(first_tick, n_ticks, decided)
        self._book.skip(first_tick, first_tick + n_ticks)  # what stands since the gap
        return self._settle(events)

    def advance(self, tick: int) -> list[AlertEvent]:
        """The detector's clock is at `tick`: let the timers fire that are due before it."""
        return self._settle(self._reach(tick))

    # The model's clock.

    def judged_beat(
        self,
        at: int,
        ready: int,
        label: str,
        confidence: float = 1.0,
        form: int = 0,
        perhaps_v: bool = False,
    ) -> list[AlertEvent]:
        """The model's judgement of the beat at `at`, which needed the signal up to `ready`.

        `form`: number of its ventricular template, from 1, where that is known; without it there is no
        MULTIFORM_PVC. `perhaps_v`: it may be ventricular, though another label is likelier."""
        return self._judged(ready, BEAT, at, (label, float(confidence), form, perhaps_v))

    def judged_window(
        self, at: int, ready: int, rhythm: str, rhythms: Mapping[str, float], shockable: float, quality: float
    ) -> list[AlertEvent]:
        """The model's judgement of the 10 s before tick `at`: label, probability of each, and more."""
        return self._judged(ready, WINDOW, at, (rhythm, dict(rhythms), float(shockable), float(quality)))

    def advance_model(self, tick: int) -> list[AlertEvent]:
        """All judgements that are ready by `tick` have been handed over."""
        judgements = self._judgements
        if tick <= judgements.tick:
            return []
        judgements.tick = tick
        if judgements.idle(self._book.clock):
            self.next_due = min(self.next_due, judgements.waits_for() + 1)
            return []
        return self._settle([])

    # Operators, watchdogs, numerics, and the end.

    def action(self, action: Action, tick: int) -> list[AlertEvent]:
        """What an operator wants, applied at `tick`, or when the detector's clock gets there.

        An action that has come before, by its id, is not done again. Raises ProfileError (a
        ValueError) where it is refused; nothing is changed then."""
        self._life.check(action, self._book.profile)
        if action.id in self._seen:
            return []
        self._seen.append(action.id)
        if tick > self._book.clock:
            insort(self._actions, (tick, action), key=lambda entry: entry[0])
            self._plan()
            return []
        events: list[AlertEvent] = []
        self._act(action, self._book.clock, events)
        return self._settle(events)

    def technical(self, code: str, on: bool, reason: str, tick: int) -> list[AlertEvent]:
        """A watchdog of the wall clock says that something began or ended, at `tick`."""
        row = CONDITIONS.get(code)
        if row is None or row.kind != "technical":
            known = ", ".join(row.code for row in CONDITIONS.values() if row.kind == "technical")
            raise ProfileError(f"{code}: no technical alarm; known are {known}")
        standing = self._life.alerts.get(f"wall {code}")
        if on == (standing is not None):
            return []
        onset = self._life.fresh_onset(f"wall {code}", tick) if standing is None else standing.onset
        decision = Decision("start" if on else "end", code, onset, max(tick, onset), None, reason)
        return self._life.apply("wall", [decision], self._book.profile)

    def take_numerics(self) -> list[Numeric]:
        """The numerics since the last call, one for each whole second of sample time that is no gap.

        Each comes when the model's clock passes it, and is a function of what both sides knew by its
        own tick; while the model is away, as soon as the detector's clock has passed it."""
        return [self._numeric(second) for second in self._judgements.take_seconds()]

    def model_away(self, on: bool) -> None:
        """A watchdog says that the model does not answer, or does again; once more of the same is nothing.

        While it is away numerics do not wait for it: `pvc_per_min` is None, and `rhythm` no more than
        VFIB or ASYSTOLE by the detectors, else empty. Alarms wait for it all the same."""
        self._judgements.model_away(on)

    def close(self, tick: int, reason: str = "epoch over") -> list[AlertEvent]:
        """The epoch is over at `tick`: every condition ends. A red that nobody has acknowledged stays
        latched; the bed's next BedAlarms takes it over with `inherit`."""
        self._judgements.tick = max(self._judgements.tick, tick)
        events = self._settle(self._reach(tick + 1))
        sides: tuple[tuple[Side, Book], ...] = (("detector", self._book), ("model", self._judgements.book))
        for side, book in sides:
            for code in list(book.active):
                book.end(code, tick, reason)
            self._tell(side, book, events)
        for key in [key for key in self._life.alerts if key.startswith("wall ")]:
            events += self.technical(key.removeprefix("wall "), False, reason, tick)
        return events + self._life.close(tick, reason)

    def inherit(self, before: "BedAlarms") -> None:
        """Take over latched alerts, pauses and the operators' limits from the bed's epoch before, after its `close`:
        what an operator has set is of the bed, and in force from the new epoch's first sample."""
        self._life.inherit(before._life)
        self._seen.extend(before._seen)  # the gateway gives them back to a new epoch too
        limits = before._book.changes
        for _, action in before._actions:  # given back to it, and not due by its end
            limits = merged(limits, action.limits)
        self._refused += before.take_refused() + self._book.lay(merged({}, limits))
        self._profile_changed(self._book.clock)
        self._plan()

    def take_refused(self) -> list[str]:
        """Changes of operators that were left out since the last call, as texts: after a restart they did
        not fit the profile as it was set up anew, or, for a later tick, what was changed until then."""
        taken, self._refused = self._refused, []
        return taken

    @property
    def profile(self) -> Profile:
        """The limits as they are now."""
        return self._book.profile

    def state(self) -> dict[str, Any]:
        """All of it, of plain values that msgpack takes; `restore` into a BedAlarms of the same bed."""
        return {
            "profile": _set_up(self._book.base),
            "book": self._book.state(),
            "detectors": self._detectors.state(),
            "judgements": self._judgements.state(),
            "life": self._life.state(),
            "actions": [[tick, msgspec.to_builtins(action)] for tick, action in self._actions],
            "seen": list(self._seen),
            "off": self._off,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state` gave, with what operators had changed laid over this one's own profile.

        Where that profile is another than it was then, what it switches off ends, at the next call."""
        self._refused = self._book.restore(state["book"])
        self._detectors.restore(state["detectors"])
        self._judgements.restore(state["judgements"])
        self._life.restore(state["life"])
        self._actions = [(tick, msgspec.convert(action, Action)) for tick, action in state["actions"]]
        self._seen = deque(state["seen"], maxlen=ACTIONS_KEPT)
        self._off = state["off"]
        if state["profile"] != _set_up(self._book.base):
            self._profile_changed(self._book.clock)
        self._plan()

    # What follows is inside.

    def _judged(self, ready: int, kind: int, at: int, what: tuple[Any, ...]) -> list[AlertEvent]:
        self._judgements.add(ready, kind, at, what)
        return self._settle([]) if ready <= self._judgements.tick else []  # else it waits for `advance_model`

    def _reach(self, tick: int) -> list[AlertEvent]:
        """Go to `tick` on the detector's clock, through every timer and action that is due before it."""
        events: list[AlertEvent] = []
        while self._actions and self._actions[0][0] < tick:
            due, action = self._actions.pop(0)
            self._run_to(due, events)
            self._act(action, due, events)
        self._run_to(tick, events)
        return events

    def _run_to(self, tick: int, events: list[AlertEvent]) -> None:
        book = self._book
        if book.due < tick:
            book.run(tick, self._detectors.fire)
        book.clock = max(book.clock, tick)
        self._tell("detector", book, events)
        if self._life.due < tick:
            self._life.run(tick, book.profile, events)

    def _tell(self, side: Side, book: Book, events: list[AlertEvent]) -> None:
        if book.out:
            events += self._life.apply(side, book.take(), book.profile)

    def _settle(self, events: list[AlertEvent]) -> list[AlertEvent]:
        """Take what the detectors decided, and let the model's side catch up."""
        judgements = self._judgements
        self._tell("detector", self._book, events)
        if self._detectors.log:
            judgements.learn(self._detectors.log)
            self._detectors.log = []
        if not judgements.idle(self._book.clock):
            judgements.run(self._book.clock)
        self._tell("model", judgements.book, events)
        self._plan()
        return events

    def _plan(self) -> None:
        due = min(self._book.due, self._life.due, self._judgements.waits_for())
        if self._actions:
            due = min(due, self._actions[0][0])
        self.next_due = due + 1
        if self._book.out:  # what was true from the start
            self.next_due = min(self.next_due, self._book.clock)

    def _act(self, action: Action, tick: int, events: list[AlertEvent]) -> None:
        if action.kind != "limits":
            events += self._life.act(action, tick, self._book.profile)
            return
        self._refused += self._book.lay(merged(self._book.changes, action.limits))
        self._profile_changed(tick)
        self._tell("detector", self._book, events)

    def _profile_changed(self, tick: int) -> None:
        self._detectors.log.append((tick, "profile", self._book.changes, 0))
        self._detectors.profile_changed(tick)
        self._tell_off(tick)

    def _tell_off(self, tick: int) -> None:
        """Some alarms are switched off, others than were: a technical alert names them."""
        codes = ", ".join(self._book.profile.switched_off())
        if codes == self._off:
            return
        self._off = codes
        if codes:
            self._book.trigger("SOME_ALARMS_OFF", tick, tick, None, {"codes": codes})
        else:
            self._book.end("SOME_ALARMS_OFF", tick)

    def _numeric(self, second: Figures) -> Numeric:
        return Numeric(
            bed=self.bed,
            epoch=self.epoch,
            at=Moment(sample_at(second.at, self.fs), self.fs),
            hr=None if second.hr is None else round(second.hr, 1),
            pvc_per_min=second.pvc_per_min,
            rhythm=second.rhythm,
            confidence=second.confidence,
            quality=second.quality,
        )


def _set_up(profile: Profile) -> list[Any]:
    """What a profile was set up with."""
    return [profile.table.name, profile.changes]
