"""One browser and what waits for it: bounded, by class.

Alarms, actions and answers are all delivered, in order; of numerics and accounts the newest; beats and waves are
given up, oldest first, and counted. A browser for which too much waits, or that takes nothing for `SLOW_S`, is closed
with the reason; it comes back and gets a snapshot.
"""

import asyncio
import itertools
from collections import deque

MOST_TOLD = 4000
MOST_BEATS = 2000
MOST_WAVE_BYTES = 256 << 10
MOST_AT_ONCE = 64 << 10  # bytes of waves in one message

_numbers = itertools.count(1)


class Client:
    """See the module. `views`: of which beds it gets waves, and whether all leads or the first two. `take` is for the
    one task that sends, which `wake` wakes; `overrun`: more waits than a browser may have."""

    def __init__(self, who: str, role: str) -> None:
        self.number = next(_numbers)
        self.wake = asyncio.Event()
        self.who, self.role = who, role
        self.views: dict[str, bool] = {}
        self.detail: str = ""  # the bed of which it gets every beat
        self.dropped = {"waves": 0, "beats": 0}
        self.overrun = False
        self._told: deque[bytes] = deque()
        self._newest: dict[str, bytes] = {}
        self._beats: deque[bytes] = deque(maxlen=MOST_BEATS)
        self._waves: deque[bytes] = deque()
        self._wave_bytes = 0
        self._sent = 0

    def tell(self, fragment: bytes) -> None:
        """Something that must arrive."""
        if len(self._told) >= MOST_TOLD:
            self.overrun = True
        else:
            self._told.append(fragment)

    def show(self, key: str, fragment: bytes) -> None:
        """Something of which only the newest counts."""
        self._newest[key] = fragment

    def beat(self, fragment: bytes) -> None:
        """A beat; the oldest is given up."""
        self.dropped["beats"] += len(self._beats) == MOST_BEATS
        self._beats.append(fragment)

    def wave(self, block: bytes) -> None:
        """A block of waves; the oldest are given up."""
        self._waves.append(block)
        self._wave_bytes += len(block)
        while self._wave_bytes > MOST_WAVE_BYTES:
            self._wave_bytes -= len(self._waves.popleft())
            self.dropped["waves"] += 1

    @property
    def waiting_bytes(self) -> int:
        """What waits, roughly."""
        return self._wave_bytes + sum(map(len, (*self._told, *self._newest.values(), *self._beats)))

    def take(self) -> tuple[bytes, bytes]:
        """What is to be sent now: a text message (JSON) and a binary one (waves); either may be empty."""
        fragments = [*self._told, *self._newest.values(), *self._beats]
        self._told.clear()
        self._newest.clear()
        self._beats.clear()
        text = b""
        if fragments:
            self._sent += 1
            text = b'{"t":"delta","seq":%d,"items":[%b]}' % (self._sent, b",".join(fragments))
        waves: list[bytes] = []
        size = 0
        while self._waves and size < MOST_AT_ONCE:
            waves.append(self._waves.popleft())
            size += len(waves[-1])
        self._wave_bytes -= size
        return text, b"".join(waves)
