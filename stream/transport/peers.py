"""The sources of a shard as it knows them: who they are, how much they may send, what their clocks say."""

from typing import NamedTuple

import numpy as np

from stream.transport.clocks import SourceClock
from stream.wire import Hello

SECOND = 1_000_000_000
ACK_EVERY_NS = SECOND // 4
PROBE_EVERY_NS = SECOND // 4
GONE_NS = 60 * SECOND  # a source that says no Hello for this long is forgotten


class BedAccount(NamedTuple):
    """Where a bed stands. `position`: sample up to which events were taken. `counts`: see
    `Sequence.counts`. `age_ms`: age of its newest sample by its source's clock, corrected.
    `silent_s`: since a packet was
    last taken in or held; refused ones do not count. `clock_stepped`: its source's clock stepped within
    the last 10 s. `waiting`: a hole is being asked for."""

    bed: str
    epoch: str
    source: str
    position: int
    rate: float
    ended: bool
    counts: dict[str, int]
    age_ms: float
    silent_s: float
    clock_offset_ms: float
    clock_uncertainty_ms: float
    clock_drift_ppm: float
    clock_stepped: bool
    waiting: bool


class Peer:
    """One session of a source, and where the shard stands with it. All times are monotonic, in ns."""

    def __init__(self, identity: bytes, hello: Hello, number: int) -> None:
        self.identity = identity
        self.name, self.session, self.speed = hello.source, hello.session, hello.speed
        self.number = number  # sessions are numbered as they come: a later one of a name wins
        self.heard = 0  # ns, monotonic: its last Hello
        self.received = 0  # packets that came here
        self.seen = 0  # packets of this session that are no longer on their way: came, or were lost
        self.queued = 0  # packets that came and were not taken yet
        self.n_beds = 0
        self.credit = 0  # as last told
        self.acked = -ACK_EVERY_NS
        self.ack_wanted = True
        self.caught_up = -GONE_NS  # ns, monotonic: when a packet last filled a hole that was asked for
        self.durable: dict[str, tuple[str, int]] = {}
        self.clock = SourceClock()
        self.probed = -PROBE_EVERY_NS
        self.probes: dict[int, tuple[int, int]] = {}
        self.lanes = np.full(
            1, -1
        )  # row in `Lanes` of each handle that it has told, -1 for none; the last is always -1

    def lane_of(self, handle: int, row: int) -> None:
        """What a handle means: a row, or nothing (-1)."""
        if handle + 1 >= len(self.lanes):
            more = np.full(2 * (handle + 1), -1)
            more[: len(self.lanes)] = self.lanes
            self.lanes = more
        self.lanes[handle] = row

    @property
    def throttled(self) -> bool:
        return self.seen >= self.credit
