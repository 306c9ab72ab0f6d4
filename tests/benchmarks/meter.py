"""Where the processor time of a thread goes: functions are wrapped, and each is charged with what it spends itself."""

import time
from collections import Counter
from collections.abc import Callable
from typing import Any


class Meter:
    """`spent_ns` by part: without what wrapped functions that are called inside spend. `n`: calls. While `on` is False
    nothing is charged."""

    def __init__(self) -> None:
        self.spent_ns: Counter[str] = Counter()
        self.n: Counter[str] = Counter()
        self.on = False
        self._inside: list[int] = []  # what was spent inside each open call
        self._wrapped: set[Any] = set()
        self._undo: list[Callable[[], None]] = []

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
                self.spent_ns[part] += took - self._inside.pop()
                self.n[part] += 1
                if self._inside:
                    self._inside[-1] += took

        setattr(owner, name, charged)
        self._wrapped.add(charged)
        self._undo.append(lambda: setattr(owner, name, plain))

    def close(self) -> None:
        """Unwrap what was wrapped."""
        for undo in reversed(self._undo):
            undo()
