"""Alert events and strips on their way to the gateway: numbered, and kept until it has them on its disk.

What is not committed is in memory; where the gateway is away or cannot write for long, what comes then waits on the
shard's disk (`stream.spill`): strips first, which are large, and alerts long after them, for what waits on disk is not
shown to anybody. All of it is part of the shard's checkpoint, so a shard that is killed sends it again;
the gateway knows an event, and a strip, by its id and takes it once.
"""

from collections import deque
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import structlog

from stream.spill import Spill
from stream.wire import AlertEvent, Alerts, Committed, Strip, decode, encode

log = structlog.get_logger()

Item = AlertEvent | Strip
MAX_AT_ONCE = 500
MAX_BYTES_AT_ONCE = 1 << 20
EVENT_BYTES = 2000  # what an event takes, about
MEMORY_BYTES = 8 << 20  # beyond, strips wait on disk
ALERTS_TIMES = 4  # and alerts beyond so many times that


class Outbox:
    """Items of one session of a shard: alerts in order, and strips in order; `session` names it. `spill`: the folder
    for strips that do not fit into `memory_bytes`, and alerts into ALERTS_TIMES as many; without one, all is kept in
    memory."""

    def __init__(self, shard: str, session: str, spill: Path | None = None, memory_bytes: int = MEMORY_BYTES) -> None:
        self._shard = shard
        self.session = session
        self._items: deque[Item] = deque()
        self._bytes = 0
        self._memory_bytes = memory_bytes
        self._spill = Spill(spill) if spill is not None else None
        self._alerts_spilled = False  # whether alerts are on disk: those that come wait behind them
        self._first = 0  # number of the oldest that is kept
        self._sent = 0  # number of the next to send
        self._doubtful = False  # whether the gateway takes anything: one message at a time, to find out

    def __len__(self) -> int:
        return len(self._items) + self.n_spilled

    @property
    def n_spilled(self) -> int:
        """Items that wait on disk."""
        return len(self._spill) if self._spill is not None else 0

    @property
    def spill_path(self) -> Path | None:
        """The file in which items wait, to be flushed to the disk before a checkpoint that names it."""
        return self._spill.path if self._spill else None

    @property
    def in_flight(self) -> bool:
        """Whether something was sent that is not committed yet."""
        return self._sent > self._first

    def add(self, items: Iterable[Item]) -> None:
        """Keep items and let them be sent."""
        for item in items:
            if self._spill is not None and self._is_for_disk(item):
                try:
                    self._spill.put(encode(item))
                    self._alerts_spilled |= isinstance(item, AlertEvent)
                    continue
                except OSError as error:  # an alert is not dropped for want of disk
                    log.error("spill_failed", error=str(error), kept=len(self._items), mend="free the shard's disk")
            self._keep(item)

    def unsent(self) -> list[Alerts]:
        """Messages with what has not been sent yet."""
        if not self._items:  # after a restart all may be on the disk
            self._refill()
        messages: list[Alerts] = []
        until = self._first + len(self._items)
        while self._sent < until and not (self._doubtful and (messages or self._sent > self._first)):
            items: list[Item] = []
            n_bytes = 0
            for i in range(self._sent - self._first, min(self._sent - self._first + MAX_AT_ONCE, len(self._items))):
                n_bytes += size_of(self._items[i])
                if items and n_bytes > MAX_BYTES_AT_ONCE:
                    break
                items.append(self._items[i])
            messages.append(Alerts(shard=self._shard, session=self.session, first=self._sent, events=tuple(items)))
            self._sent += len(items)
        return messages

    def send_again(self) -> None:
        """The gateway may not have got what was sent: all that is not committed is unsent again, but until it answers
        no more than one message of it goes out."""
        self._sent = self._first
        self._doubtful = True

    def committed(self, message: Committed) -> None:
        """Forget what the gateway has on disk; a word on another session is passed over."""
        if message.session != self.session:
            return
        self._doubtful = False
        while self._items and self._first < message.until:
            self._bytes -= size_of(self._items.popleft())
            self._first += 1
        self._sent = max(self._sent, self._first)
        self._refill()

    def state(self, is_of: Callable[[str], bool] = lambda bed: True) -> dict[str, Any]:
        """What is not committed of the beds that are of a part: frames, and where more of them are. While any are on
        the disk, in which all beds have theirs, what is before them is of all beds too."""
        spilled = self._spill.state() if self._spill is not None else ["", 0, 0, 0]
        kept = [encode(item) for item in self._items if self.n_spilled or is_of(item.bed)]
        return {"kept": kept, "spill": spilled, "alerts_spilled": self._alerts_spilled}

    def saving(self) -> None:
        """A checkpoint is made of what is here now."""
        if self._spill is not None:
            self._spill.saving()

    def saved(self, part: int = 0) -> None:
        """That checkpoint, of a part of the shard, is on the disk."""
        if self._spill is not None:
            self._spill.saved(part)

    def restore(self, state: dict[str, Any], part: int = 0) -> None:
        """Take back what `state` gave, part by part as they were saved, to be sent in this session."""
        before: list[bytes] = []
        if self._spill is not None:
            before = self._spill.restore(state["spill"], part)
            self._alerts_spilled = bool(self._spill) and (self._alerts_spilled or state["alerts_spilled"])
        known = {_id(item) for item in self._items}
        for item in map(_item, (*before, *state["kept"])):
            if _id(item) not in known:
                self._keep(item)

    def _is_for_disk(self, item: Item) -> bool:
        if isinstance(item, Strip):
            return bool(self._spill) or self._bytes >= self._memory_bytes
        return self._alerts_spilled or self._bytes >= ALERTS_TIMES * self._memory_bytes

    def _refill(self) -> None:
        while self._spill and self._bytes < self._memory_bytes:
            self._keep(_item(self._spill.take()))
        self._alerts_spilled &= bool(self._spill)

    def _keep(self, item: Item) -> None:
        self._items.append(item)
        self._bytes += size_of(item)


def size_of(item: Item) -> int:
    """Bytes that an item takes in memory and on the wire, about."""
    return EVENT_BYTES + (item.data.nbytes if isinstance(item, Strip) else 0)


def _id(item: Item) -> str:
    return item.id if isinstance(item, Strip) else item.event_id


def _item(frame: bytes) -> Item:
    item = decode(frame)
    assert isinstance(item, AlertEvent | Strip)
    return item
