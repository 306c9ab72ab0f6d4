"""The model's side of a bed's alarms: what the model judged, on its own clock.

It knows the detector's side only by its log, entry by entry as of its own tick, so what it decides
does not hang on how far the detector's clock has run ahead.
"""

from bisect import insort
from collections import deque
from collections.abc import Iterable
from typing import Any

from stream.alarms.book import NEVER, Book
from stream.alarms.conditions import TICK_HZ, Profile
from stream.alarms.numerics import REDS, Figures, Vitals, figures
from stream.alarms.pulse import Pulse
from stream.alarms.rhythms import Rhythms
from stream.alarms.runs import PER_MINUTE, RUN, Runs

RATE_SPAN = 6 * TICK_HZ
BEATS_KEPT = 16
LOG_LIMIT = 16384  # entries that wait for a model; past it this side goes on without one
BEAT, WINDOW = 0, 1
Entry = tuple[int, str, Any, int]  # of the detector's log: tick, what, and two that hang on what


class Judgements:
    """Judged beats and windows of one bed, merged with the detector's log in order of ticks."""

    # fmt: off
    __slots__ = ("away", "beats", "book", "inop", "learning", "log", "pending", "pulse", "rhythms", "runs", "seconds",
                 "tick", "vf")
    # fmt: on

    def __init__(self, profile: Profile) -> None:
        self.book = Book(profile)
        self.pulse = Pulse()
        self.runs, self.rhythms = Runs(self.book, self.pulse), Rhythms(self.book, self.pulse)
        self.pending: list[tuple[int, int, int, tuple[Any, ...]]] = []  # ready, kind, at, what
        self.log: deque[Entry] = deque()
        self.tick = -1  # all that is ready by this tick has come
        self.away = False  # seconds do not wait for the model
        self.seconds: list[Figures] = []  # settled, not yet taken
        self.inop, self.learning, self.vf = False, True, False  # the detector's side as of this clock
        self.beats: deque[int] = deque(maxlen=BEATS_KEPT)

    def add(self, ready: int, kind: int, at: int, what: tuple[Any, ...]) -> None:
        insort(self.pending, (ready, kind, at, what), key=_when)

    def learn(self, entries: Iterable[Entry]) -> None:
        """What the detector's side wrote into its log."""
        self.log.extend(self._rest(entries) if self.away else entries)
        if len(self.log) > LOG_LIMIT:
            self.tick = max(self.tick, self.log[len(self.log) - LOG_LIMIT][0])

    def model_away(self, on: bool) -> None:
        """While `on`, no second waits for the model: each is settled without it as soon as it is known."""
        if on and not self.away:
            self.log = deque(self._rest(self.log))
        self.away = on

    def take_seconds(self) -> list[Figures]:
        taken, self.seconds = self.seconds, []
        return taken

    def idle(self, detector_tick: int) -> bool:
        """Whether `run` would find nothing to do."""
        until = self.tick if self.tick < detector_tick else detector_tick - 1
        return (
            (not self.log or self.log[0][0] > until)
            and (not self.pending or self.pending[0][0] > until)
            and self.book.due > until
        )

    def waits_for(self) -> int:
        """The tick that the detector's clock must pass before there is more to do here."""
        waiting = self.book.due
        if self.pending and self.pending[0][0] < waiting:
            waiting = self.pending[0][0]
        return waiting if waiting <= self.tick else NEVER

    def run(self, detector_tick: int) -> None:
        """Go as far as the judgements have come, but not up to the detector's clock: of its own tick
        there may be more to come."""
        until = min(self.tick, detector_tick - 1)
        log, pending, book = self.log, self.pending, self.book
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
                book.run(tick + 1, _no_timers)
        if taken:
            del pending[:taken]

    def _know(self, tick: int, what: str, a: Any, b: int) -> None:
        if what == "beat":
            self.beats.append(a)
        elif what == "pulse":
            signal, ratio, likeness = a
            self.pulse.add(signal, b, ratio, likeness)
        elif what == "vf":
            self.vf = bool(a)
        elif what == "learning":
            self.learning = bool(a)
        elif what == "inop":
            self.inop = bool(a)
            self._break(tick, b, ended=True)
        elif what == "gap":
            self.pulse.clear()
            self._break(tick, a, ended=True)
        elif what == "break":
            self._break(tick, a, ended=False)
        elif what == "second":
            self._settle(_vitals(a))
        elif what == "profile":
            self.book.lay(a)
            self.book.end_switched_off(tick)

    def _rest(self, entries: Iterable[Entry]) -> list[Entry]:
        """Settle the seconds among the entries without the model; the others."""
        entries = list(entries)
        self.seconds += [figures(_vitals(a)) for _, what, a, _ in entries if what == "second"]
        return [entry for entry in entries if entry[1] != "second"]

    def _settle(self, vitals: Vitals) -> None:
        runs, rhythms = self.runs, self.rhythms
        n_pvcs = float(runs.per_minute(vitals.at)) if runs.labels else None
        red = next((code for code in REDS if code in self.book.active), "")
        self.seconds.append(figures(vitals, runs.run >= RUN, n_pvcs, red, rhythms.rhythm, rhythms.confidence))

    def _break(self, tick: int, end: int, ended: bool) -> None:
        """The signal is broken up to tick `end`; long enough that what stands has `ended`."""
        self.runs.break_at = max(self.runs.break_at, end)
        self.beats.clear()
        if ended:
            self.rhythms.reset()
            self.book.end_all(tick, "inop")

    def _judge(self, ready: int, kind: int, at: int, what: tuple[Any, ...]) -> None:
        runs, rhythms, quiet = self.runs, self.rhythms, self.inop or self.learning
        if kind == WINDOW:
            runs.count(ready)
        if self.inop:
            return
        if kind == BEAT:
            label, confidence, form, perhaps_v = what
            sv_rhythm = rhythms.rhythm == "SVT"
            runs.beat(at, ready, label, confidence, form, quiet, sv_rhythm, perhaps_v, rhythms.noisy)
            if runs.labels.endswith("NN") and runs.rrs[-1]:
                rhythms.interval(runs.rrs[-1])
        else:
            rhythm, probabilities, shockable, quality = what
            rhythms.window(
                at, ready, rhythm, probabilities, shockable, quality, self._rate(at), self.vf, quiet, runs.narrow_by(at)
            )

    def _rate(self, at: int) -> float:
        """Rate of the detector's beats in the 6 s up to `at`, as of this clock; 0 for too few."""
        beats = [beat for beat in self.beats if at - RATE_SPAN < beat <= at]
        return PER_MINUTE * (len(beats) - 1) / (beats[-1] - beats[0]) if len(beats) > 3 else 0.0

    def state(self) -> dict[str, Any]:
        return {
            "book": self.book.state(),
            "runs": self.runs.state(),
            "rhythms": self.rhythms.state(),
            "pending": [list(item) for item in self.pending],
            "log": [list(entry) for entry in self.log],
            "tick": self.tick,
            "away": self.away,
            "seconds": [list(second) for second in self.seconds],
            "knows": [self.inop, self.learning, self.vf],
            "beats": list(self.beats),
            "pulse": self.pulse.state(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        self.book.restore(state["book"])
        self.runs.restore(state["runs"])
        self.rhythms.restore(state["rhythms"])
        self.pending = [(ready, kind, at, tuple(what)) for ready, kind, at, what in state["pending"]]
        self.log = deque((tick, what, a, b) for tick, what, a, b in state["log"])
        self.tick = state["tick"]
        self.away = state["away"]
        self.seconds = [Figures._make([*second[:-1], tuple(second[-1])]) for second in state["seconds"]]
        self.inop, self.learning, self.vf = state["knows"]
        self.beats = deque(state["beats"], maxlen=BEATS_KEPT)
        self.pulse.restore(state["pulse"])


def _when(item: tuple[int, int, int, tuple[Any, ...]]) -> tuple[int, int, int]:
    return item[:3]


def _vitals(entry: Any) -> Vitals:
    """Of an entry of the log, which may have been in a checkpoint."""
    return Vitals._make([*entry[:-1], tuple(entry[-1])])


def _no_timers(name: str, tick: int) -> None:
    raise AssertionError(f"timer {name}: the model's side sets none but ends and repeats")
