"""What the gateway hands to the bridges beside alerts: the newest value of each bed, and a little of what streams.

Called from the gateway's thread and read from the bridges'. Nothing here waits: an attribute or a dict
entry is exchanged, a deque that is full drops its oldest.
"""

import time
from collections import deque
from collections.abc import Callable

from stream.wire import AnyMessage, BeatJudgement, BedStatus, Numeric, WindowJudgement

MOST_WAITING = 1000
GONE_NS = 60_000_000_000  # a bed of which nothing was heard for so long is not said to be watched


class Feed:
    """`numerics`, `profiles`: the newest of each bed. `beats`: of each bridge that wants them, what waits."""

    def __init__(self, monotonic_ns: Callable[[], int] = time.monotonic_ns) -> None:
        self._monotonic_ns = monotonic_ns
        self._heard_ns: dict[str, int] = {}
        self.numerics: dict[str, Numeric] = {}
        self.profiles: dict[str, WindowJudgement] = {}
        self.beats: dict[str, deque[BeatJudgement]] = {}
        self.n_dropped: dict[str, int] = {}

    def want_beats(self, bridge: str) -> None:
        """Keep beats for this bridge."""
        self.beats[bridge], self.n_dropped[bridge] = deque(maxlen=MOST_WAITING), 0

    def take(self, message: AnyMessage) -> None:
        """A message that the gateway publishes."""
        if isinstance(message, Numeric):
            self.numerics[message.bed] = message
        elif isinstance(message, WindowJudgement):
            self.profiles[message.bed] = message
        elif isinstance(message, BeatJudgement):
            for bridge, waiting in self.beats.items():
                self.n_dropped[bridge] += len(waiting) == MOST_WAITING
                waiting.append(message)
        elif isinstance(message, BedStatus) and message.bed != message.shard:
            self._heard_ns[message.bed] = self._monotonic_ns()

    def beds(self) -> list[str]:
        """Beds of which something was heard in the last minute; what is known of others is forgotten."""
        since_ns = self._monotonic_ns() - GONE_NS
        for bed in [bed for bed, heard_ns in self._heard_ns.copy().items() if heard_ns < since_ns]:
            for known in (self._heard_ns, self.numerics, self.profiles):
                known.pop(bed, None)
        return sorted(self._heard_ns.copy())
