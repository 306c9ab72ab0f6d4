"""Plays stylised rhythms to the alarms of one bed, on both clocks, and keeps what comes out."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from stream.alarms.bed import BedAlarms
from stream.alarms.conditions import CONDITIONS, TICK_HZ, Profile
from stream.wire import Action, AlertEvent

DECIDED, READY = 50, 60  # ticks after its R peak at which a beat is told, and is ready for the model


def ticks(seconds: float) -> int:
    return round(seconds * TICK_HZ)


class Player:
    """One bed at 250 Hz. `now` is the tick up to which it has been played."""

    def __init__(
        self, changes: Mapping[str, Mapping[str, Any]] | None = None, fs: float = 250.0, learnt: bool = True
    ) -> None:
        self.alarms = BedAlarms("bed-1", "epoch-1", fs, Profile(changes))
        self.events: list[AlertEvent] = []
        self.now = 0
        self.last = 0  # newest R peak
        self.window_at = 0
        self._n_actions = 0
        if learnt:
            self.beats("N" * 10, 0.8)

    def take(self, events: Iterable[AlertEvent]) -> None:
        self.events.extend(events)

    def beats(
        self, labels: str, rr_s: float | Mapping[str, float] | Sequence[float], forms: Sequence[int] = ()
    ) -> None:
        """Beats of these labels; each comes `rr_s` after the one before: one number, or by label, or by beat. A label
        in lower case: the beat may be ventricular all the same."""
        for i, label in enumerate(labels):
            rr = rr_s if isinstance(rr_s, int | float) else rr_s[label] if isinstance(rr_s, Mapping) else rr_s[i]
            self.last += ticks(rr)
            self.take(self.alarms.beat(self.last, self.last + DECIDED))
            form, perhaps_v = forms[i] if forms else 0, label.islower()
            ready = self.last + READY
            self.take(self.alarms.judged_beat(self.last, ready, label.upper(), 0.9, form=form, perhaps_v=perhaps_v))
            self.to(self.last + READY + 1)

    def to(self, tick: int) -> None:
        """Let time go by up to a tick."""
        self.now = max(self.now, tick)
        self.take(self.alarms.advance(self.now))
        self.take(self.alarms.advance_model(self.now))

    def wait(self, seconds: float) -> None:
        """Time without beats. The next beat counts its interval from its end."""
        self.to(self.now + ticks(seconds))
        self.last = self.now

    def windows(self, rhythm: str, n: int, p: float = 0.9, quality: float = 0.9, **others: float) -> None:
        """`n` windows of the model, 2 s apart, from now on, without beats of their own."""
        for _ in range(n):
            self.now += ticks(2)
            self.take(self.alarms.judged_window(self.now, self.now, rhythm, {rhythm: p, **others}, 0.0, quality))
            self.to(self.now + 1)

    def rhythm(
        self, rhythm: str, seconds: float, rr_s: float | Iterator[float] = 0.8, label: str = "N", p: float = 0.9
    ) -> None:
        """Beats and windows together."""
        end = self.now + ticks(seconds)
        self.window_at = max(self.window_at, self.now)
        while self.now < end:
            self.beats(label, rr_s if isinstance(rr_s, int | float) else next(rr_s))
            while self.window_at + ticks(2) <= self.now:
                self.window_at += ticks(2)
                self.take(self.alarms.judged_window(self.window_at, self.now, rhythm, {rhythm: p}, 0.0, 0.9))
                self.to(self.now)

    def quality(self, reason: Sequence[int], n: int = 1) -> None:
        """`n` seconds of signal quality."""
        for _ in range(n):
            at = (self.now // TICK_HZ + 1) * TICK_HZ
            self.take(self.alarms.quality(at, [0.9 if why == 0 else 0.1 for why in reason], list(reason)))
            self.to(at)

    def act(self, kind: str, **fields: Any) -> list[AlertEvent]:
        self._n_actions += 1
        action = Action(id=f"a{self._n_actions}", bed="bed-1", kind=kind, who="nurse", at_ns=1, **fields)  # type: ignore[arg-type]
        events = self.alarms.action(action, self.now)
        self.take(events)
        return events

    def of(self, code: str, phase: str | None = None) -> list[AlertEvent]:
        return [event for event in self.events if event.code == code and phase in (None, event.phase)]

    def started(self, code: str) -> bool:
        return bool(self.of(code, "start"))

    def standing(self, code: str) -> str:
        """The state the newest event of this code tells, inactive where there is none."""
        found = self.of(code)
        return found[-1].state if found else "inactive"

    def patient_codes(self) -> list[str]:
        """Codes that started, technical ones left out, in order."""
        return [e.code for e in self.events if e.phase == "start" and CONDITIONS[e.code].kind != "technical"]


def decided(events: Iterable[AlertEvent]) -> set[tuple[str, int, int]]:
    """What must not hang on clocks, chunks or operators: (code, onset, stream_time)."""
    return {(event.code, event.onset.sample, event.stream_time.sample) for event in events}
