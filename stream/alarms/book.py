"""What stands on one clock of a bed: the conditions that are true, and the timers that are running.

Criteria write into a book, the life cycle reads what they decided. A bed has two books, since it
has two clocks: the detector's and, behind it, the model's. A book holds nothing of acknowledgements,
pauses or suppression, so what it decides is the same whatever an operator does and however far
apart the clocks run.
"""

from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

from stream.alarms.conditions import CONDITIONS, TICK_HZ, Profile, ProfileError, merged

NEVER = 1 << 62
CONTINUE_TICKS = 60 * TICK_HZ
SAMPLE_TICKS = 5  # between two samples of the slowest source


class Decision(NamedTuple):
    """A condition became true, was triggered again or went on, or ended, at tick `at`.

    `at` is the last tick that the decision needed, `onset` where the condition began.
    `supersedes`: codes of the same book that this start replaces. `over`: where the waveform of what ends
    was over, where that is known apart from the holds of its end."""

    verb: Literal["start", "update", "continue", "end"]
    code: str
    onset: int
    at: int
    value: float | None = None
    reason: str = ""
    evidence: dict[str, Any] | None = None
    supersedes: tuple[str, ...] = ()
    over: int | None = None


class Book:
    """Conditions and timers on one clock. `out` collects the decisions until they are taken."""

    __slots__ = ("active", "base", "changes", "clock", "due", "onsets", "out", "profile", "timers")

    def __init__(self, profile: Profile) -> None:
        self.base = self.profile = profile
        self.changes: dict[str, dict[str, Any]] = {}  # what operators have changed of `base`
        self.clock = 0
        self.active: dict[str, list[Any]] = {}  # code: [onset, worst value, where its waveform was over]
        self.onsets: dict[str, int] = {}  # code: its newest onset, since no two episodes may share one
        self.timers: dict[str, int] = {}
        self.due = NEVER
        self.out: list[Decision] = []

    def arm(self, name: str, tick: int) -> None:
        """Set or move a timer. A tick that is past fires as soon as the book is next run."""
        moved = self.timers.get(name)
        self.timers[name] = tick
        if tick <= self.due:
            self.due = tick
        elif moved == self.due:
            self.due = min(self.timers.values())

    def disarm(self, name: str) -> None:
        if self.timers.pop(name, None) == self.due:
            self.due = min(self.timers.values(), default=NEVER)

    def skip(self, first: int, end: int) -> None:
        """No tick from `first` up to `end` is there: what repeats goes on after it, on its own grid, so a
        long gap costs no more than a short one."""
        for name, tick in list(self.timers.items()):
            every = TICK_HZ if name == "numeric" else CONTINUE_TICKS if name.startswith("continue ") else 0
            if every and first <= tick < end:
                self.arm(name, tick + -((tick - end) // every) * every)

    def run(self, before: int, fire: Callable[[str, int], None]) -> None:
        """Fire the timers that are due before tick `before`, in order, each at its own tick."""
        while self.due < before:
            name = min(self.timers, key=lambda key: (self.timers[key], key))
            tick = self.timers[name]
            self.clock = max(self.clock, tick)
            self.disarm(name)
            kind, _, code = name.partition(" ")
            if kind == "end":
                self.end(code, tick)
            elif kind == "continue":
                onset, worst, _ = self.active[code]
                self.arm(name, tick + CONTINUE_TICKS)
                self.out.append(Decision("continue", code, onset, tick, worst))
            else:
                fire(name, tick)

    def trigger(
        self,
        code: str,
        onset: int,
        at: int,
        value: float | None = None,
        evidence: dict[str, Any] | None = None,
        supersedes: tuple[str, ...] = (),
    ) -> bool:
        """The condition is true at `at`: start it, or, where it still stands, trigger it again.

        Its hold, where it has one, begins anew. False, and nothing done, where it is switched off."""
        if not self.profile.enabled(code):
            return False
        standing = self.active.get(code)
        hold_s = CONDITIONS[code].hold_s
        if hold_s:
            self.arm("end " + code, at + round(hold_s * TICK_HZ))
        if standing is not None:
            standing[1] = value
            self.out.append(Decision("update", code, standing[0], at, value, "again", evidence))
            return True
        replaced = tuple(other for other in supersedes if other in self.active)
        if onset <= (newest := self.onsets.get(code, -1)):
            onset = max(at, newest + SAMPLE_TICKS)
            at = max(at, onset)
        self.onsets[code] = onset
        self.active[code] = [onset, value, None]
        self.arm("continue " + code, at + CONTINUE_TICKS)
        self.out.append(Decision("start", code, onset, at, value, "", evidence, replaced))
        for other in replaced:
            self.end(other, at, f"superseded by {code}")
        return True

    def worse(self, code: str, value: float, sign: int = 1) -> None:
        """Keep the worst value of a standing condition: the highest, or with `sign` -1 the lowest."""
        standing = self.active[code]
        if standing[1] is None or sign * value > sign * standing[1]:
            standing[1] = value

    def over(self, code: str, tick: int | None) -> None:
        """The waveform of a standing condition is over since `tick`, or, None, is not."""
        standing = self.active[code]
        standing[2] = None if tick is None else max(tick, standing[0])

    def end(self, code: str, at: int, reason: str = "") -> None:
        """The condition is no longer true; nothing where it was not."""
        standing = self.active.pop(code, None)
        if standing is None:
            return
        self.disarm("end " + code)
        self.disarm("continue " + code)
        self.out.append(Decision("end", code, standing[0], at, standing[1], reason, over=standing[2]))

    def end_all(self, at: int, reason: str, keep: tuple[str, ...] = ()) -> None:
        """End the physiological and advisory conditions, but those to keep."""
        for code in list(self.active):
            if code not in keep and CONDITIONS[code].kind != "technical":
                self.end(code, at, reason)

    def end_switched_off(self, at: int) -> None:
        """The profile has changed: what is switched off now ends."""
        for code in [code for code in self.active if not self.profile.enabled(code)]:
            self.end(code, at, "switched off")

    def lay(self, changes: Mapping[str, Mapping[str, Any]]) -> list[str]:
        """Lay all that operators have changed over the profile that the bed was set up with. What no longer
        fits that is left out, code by code, and returned as texts that say why."""
        self.profile, self.changes = self.base, {}
        try:
            self.profile = self.base.with_changes(changes)
            self.changes = merged({}, changes)
            return []
        except ProfileError:
            refused = []
        for code, settings in changes.items():
            try:
                self.profile = self.profile.with_changes({code: settings})
                self.changes[code] = dict(settings)
            except ProfileError as error:
                refused.append(str(error))
        return refused

    def take(self) -> list[Decision]:
        taken, self.out = self.out, []
        return taken

    def state(self) -> dict[str, Any]:
        return {
            "clock": self.clock,
            "active": {code: list(standing) for code, standing in self.active.items()},
            "onsets": dict(self.onsets),
            "timers": dict(self.timers),
            "changes": self.changes,
            "out": [list(decision) for decision in self.out],
        }

    def restore(self, state: dict[str, Any]) -> list[str]:
        """Go on from a `state`; what operators had changed and no longer fits is left out, as `lay` does."""
        self.clock = state["clock"]
        self.active = {code: list(standing) for code, standing in state["active"].items()}
        self.onsets = dict(state["onsets"])
        self.timers = dict(state["timers"])
        self.due = min(self.timers.values(), default=NEVER)
        self.out = [Decision._make([*entry[:7], tuple(entry[7]), entry[8]]) for entry in state["out"]]
        return self.lay(state["changes"])
