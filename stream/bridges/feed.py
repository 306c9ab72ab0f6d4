"""What the gateway hands to the bridges beside alerts: the newest value of each bed, and a little of what streams.

Called from the gateway's thread and read from the bridges'. Nothing here waits: an attribute or a dict
entry is exchanged, a deque that is full drops its oldest.
"""

import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from typing import TypeVar

from stream.wire import AnyMessage, BeatJudgement, BedStatus, Numeric, Waves, WindowJudgement

M = TypeVar("M", BeatJudgement, Waves)

MOST_WAITING = 1000
GONE_NS = 60_000_000_000  # a bed of which nothing was heard for so long is not said to be watched


class Feed:
    """`numerics`, `profiles`: the newest of each bed. `beats`, `waves`: of each bridge that wants them, what waits."""

    def __init__(self, monotonic_ns: Callable[[], int] = time.monotonic_ns) -> None:
        self._monotonic_ns = monotonic_ns
        self._heard_ns: dict[str, int] = {}
        self.numerics: dict[str, Numeric] = {}
        self.profiles: dict[str, WindowJudgement] = {}
        self.beats: dict[str, deque[BeatJudgement]] = {}
        self.waves: dict[str, deque[Waves]] = {}
        self.n_dropped: Counter[str] = Counter()

    def want_beats(self, bridge: str) -> deque[BeatJudgement]:
        """Keep beats for this bridge, in what is returned."""
        return self.beats.setdefault(bridge, deque(maxlen=MOST_WAITING))

    def want_waves(self, bridge: str) -> deque[Waves]:
        """Keep waves for this bridge, in what is returned."""
        return self.waves.setdefault(bridge, deque(maxlen=MOST_WAITING))

    def take(self, message: AnyMessage) -> None:
        """A message that the gateway publishes."""
        if isinstance(message, Numeric):
            self.numerics[message.bed] = message
        elif isinstance(message, WindowJudgement):
            self.profiles[message.bed] = message
        elif isinstance(message, BeatJudgement):
            self._keep(self.beats, message)
        elif isinstance(message, Waves):
            self._keep(self.waves, message)
        elif isinstance(message, BedStatus) and message.bed != message.shard:
            self._heard_ns[message.bed] = self._monotonic_ns()

    def _keep(self, kept: Mapping[str, deque[M]], message: M) -> None:
        for bridge, waiting in kept.items():
            self.n_dropped[bridge] += len(waiting) == MOST_WAITING
            waiting.append(message)

    def beds(self) -> list[str]:
        """Beds of which something was heard in the last minute; what is known of others is forgotten."""
        since_ns = self._monotonic_ns() - GONE_NS
        for bed in [bed for bed, heard_ns in self._heard_ns.copy().items() if heard_ns < since_ns]:
            for known in (self._heard_ns, self.numerics, self.profiles):
                known.pop(bed, None)
        return sorted(self._heard_ns.copy())
