"""Where the processor time of a thread goes: functions are wrapped, and each is charged with what it spends itself."""

import time
from collections import Counter, defaultdict
from collections.abc import Callable
from typing import Any


class Meter:
    """`spent_ns` by part: without what wrapped functions that are called inside spend, and without what the meter
    itself does, as it is on an empty function. `n`: calls. While `on` is False nothing is charged."""

    def __init__(self) -> None:
        self.spent_ns: dict[str, float] = defaultdict(float)
        self.n: Counter[str] = Counter()
        self.on = False
        self._inside: list[float] = []  # what was spent inside each open call
        self._wrapped: set[Any] = set()
        self._undo: list[Callable[[], None]] = []
        self._own_ns = self._beside_ns = 0.0  # of a call's meter: what falls to its part, and to the part around it
        self._calibrate()

    def wrap(self, owner: Any, name: str, part: str) -> None:
        """Charge calls of `owner.name` (a module's, class's or instance's) to `part`."""
        if hasattr(type(owner), "__slots__") and not hasattr(owner, "__dict__"):
            owner = type(owner)
        plain = getattr(owner, name)
        if plain in self._wrapped:
            return

        def charged(*args: Any, **given: Any) -> Any:
            if not self.on:
                return plain(*args, **given)
            began = time.thread_time_ns()
            self._inside.append(0)
            try:
                return plain(*args, **given)
            finally:
                took = time.thread_time_ns() - began
                self.spent_ns[part] += took - self._inside.pop() - self._own_ns
                self.n[part] += 1
                if self._inside:
                    self._inside[-1] += took + self._beside_ns

        setattr(owner, name, charged)
        self._wrapped.add(charged)
        self._undo.append(lambda: setattr(owner, name, plain))

    def close(self) -> None:
        """Unwrap what was wrapped."""
        for undo in reversed(self._undo):
            undo()

    def _calibrate(self) -> None:
        """Learn what the meter itself costs."""
        part, n = "meter", 20_000
        self.nothing: Callable[[], None] = lambda: None
        self.wrap(self, "nothing", part)
        self.on = True
        began = time.thread_time_ns()
        for _ in range(n):
            self.nothing()
        all_ns = time.thread_time_ns() - began
        self.on = False
        self._own_ns = self.spent_ns.pop(part) / n
        self._beside_ns = all_ns / n - self._own_ns
        self.close()
        self.n.clear()
        self._undo.clear()
