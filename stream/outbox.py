"""Alert events on their way to the gateway: numbered, and kept until the gateway has them on its disk.

What is not committed is part of the shard's checkpoint, so a shard that is killed sends it again; the
gateway knows an event by its id and takes it once.
"""

from collections import deque
from collections.abc import Iterable
from typing import Any

import msgspec

from stream.wire import AlertEvent, Alerts, Committed

MAX_AT_ONCE = 500


class Outbox:
    """Events of one session of a shard, in order; `session` names it."""

    def __init__(self, shard: str, session: str) -> None:
        self._shard = shard
        self.session = session
        self._events: deque[AlertEvent] = deque()
        self._first = 0  # number of the oldest that is kept
        self._sent = 0  # number of the next to send

    def __len__(self) -> int:
        return len(self._events)

    def add(self, events: Iterable[AlertEvent]) -> None:
        """Keep events and let them be sent."""
        self._events.extend(events)

    def unsent(self) -> list[Alerts]:
        """Messages with what has not been sent yet."""
        messages = []
        until = self._first + len(self._events)
        while self._sent < until:
            at = self._sent - self._first
            events = tuple(self._events[i] for i in range(at, min(at + MAX_AT_ONCE, len(self._events))))
            messages.append(Alerts(shard=self._shard, session=self.session, first=self._sent, events=events))
            self._sent += len(events)
        return messages

    def send_again(self) -> None:
        """The gateway may not have got what was sent: all that is not committed is unsent again."""
        self._sent = self._first

    def committed(self, message: Committed) -> None:
        """Forget what the gateway has on disk; a word on another session is passed over."""
        if message.session != self.session:
            return
        while self._events and self._first < message.until:
            self._events.popleft()
            self._first += 1
        self._sent = max(self._sent, self._first)

    def state(self) -> list[Any]:
        """What is not committed, of builtin types."""
        return [msgspec.to_builtins(event) for event in self._events]

    def restore(self, state: list[Any]) -> None:
        """Take back what `state` gave, to be sent in this session."""
        self.add(msgspec.convert(event, AlertEvent) for event in state)
