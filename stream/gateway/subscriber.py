"""A subscriber of the gateway: what stands now, then every publication after it, none twice.

A late joiner connects, waits until a first publication shows that its subscription is heard, asks
for a snapshot and passes over what the snapshot holds already. Publications are numbered without a
hole; where one is missing (a slow subscriber, a gateway that started again) it asks for a snapshot
once more, and says which alerts are over meanwhile. docs/journal.md says how to do the same in
another language.

    with Subscriber(settings.gateway.publish, settings.gateway.control) as subscriber:
        while True:
            for item in subscriber.poll(0.1): ...   # Joined, Publication or wire.Reply
"""

import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import zmq

from stream.process import MAX_WAITING_MESSAGES, connect
from stream.wire import (
    MAX_FRAME_BYTES,
    Action,
    AlertEvent,
    AnyMessage,
    Numeric,
    Reply,
    Snapshot,
    SnapshotRequest,
    WireError,
    decode,
    encode,
)

ASK_AGAIN_NS = 1_000_000_000
RESTART_JUMP = 500_000  # a gateway numbers on from the microseconds of its start, far above its last
WAVE = "wave"  # a topic of its own: not numbered, and only to be had of beds that are watched
ALL_TOPICS = ("alert", "beat", "window", "numeric", "status", "truth", "action", "gateway")


class Publication(NamedTuple):
    """One publication, as it came. `topic`: without the bed, say `alert`."""

    number: int
    topic: str
    message: AnyMessage


class Joined(NamedTuple):
    """The subscriber knows all that stands (again).

    `active`, `numerics`: alerts that stand, and the newest numeric of each bed. `ended`: the last that
    was known of alerts that are over without our having seen their end. `n_missed`: publications that
    were missed, 0 at the first joining, None where the gateway started again and nobody can tell."""

    active: tuple[AlertEvent, ...]
    numerics: tuple[Numeric, ...]
    ended: tuple[AlertEvent, ...]
    n_missed: int | None


class Subscriber:
    """See the module. `topics`: which to hand out; all are received, else a hole could not be seen.

    `active`: alerts that stand, by id. `numerics`: the newest by bed. `counts`: what was missed and
    refused. Not for several threads."""

    def __init__(
        self,
        publish: str,
        control: str,
        topics: Sequence[str] = ALL_TOPICS,
        monotonic_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        unknown = sorted(set(topics) - set(ALL_TOPICS))
        if unknown:
            raise ValueError(f"topics: {', '.join(unknown)} not known; known: {', '.join(ALL_TOPICS)}")
        self._topics = frozenset(topics)
        self._monotonic_ns = monotonic_ns
        self._control = connect(control)
        self._stream: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.SUB)
        self._stream.setsockopt(zmq.LINGER, 0)
        self._stream.setsockopt(zmq.RCVHWM, MAX_WAITING_MESSAGES)
        self._stream.setsockopt(zmq.MAXMSGSIZE, MAX_FRAME_BYTES)
        self._stream.setsockopt(zmq.RECONNECT_IVL, 50)
        self._stream.setsockopt(zmq.RECONNECT_IVL_MAX, 500)
        self._stream.subscribe(b"")
        self._stream.connect(publish)
        self._poller = zmq.Poller()
        self._poller.register(self._stream, zmq.POLLIN)
        self._poller.register(self._control, zmq.POLLIN)

        self.active: dict[str, AlertEvent] = {}
        self.numerics: dict[str, Numeric] = {}
        self.counts: Counter[str] = Counter()
        self.joined = False
        self._watched: frozenset[str] = frozenset()
        self._last = 0  # number of the newest publication that came
        self._known = 0  # number up to which the snapshot holds what was published
        self._waiting: list[tuple[int, str, bytes]] = []  # what came since the joining was begun
        self._n_missed: int | None = 0
        self._asked_ns = 0
        self._heard_ns = monotonic_ns()

    def __enter__(self) -> "Subscriber":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._stream.close()
        self._control.close()

    def poll(self, timeout_s: float = 0.0) -> list[Joined | Publication | Reply]:
        """What has come, in order; waits `timeout_s` for it at most."""
        ready = dict(self._poller.poll(round(timeout_s * 1000)))
        items: list[Joined | Publication | Reply] = []
        if self._stream in ready:
            self._drain_stream(items)
        if self._control in ready:
            self._drain_control(items)
        if not self.joined and self._waiting and self._monotonic_ns() - self._asked_ns >= ASK_AGAIN_NS:
            self._ask()
        return items

    def act(self, action: Action) -> None:
        """Hand an operator's action to the gateway; its Reply comes out of `poll`.

        Raises zmq.Again where the gateway is away and too much waits for it already."""
        self._control.send(encode(action), zmq.NOBLOCK)

    def watch(self, beds: Iterable[str]) -> None:
        """Hand out the waves of these beds, and of no others, as publications of the topic `wave`."""
        beds = frozenset(beds)
        for bed in beds - self._watched:
            self._stream.subscribe(f"{WAVE}.{bed}")
        for bed in self._watched - beds:
            self._stream.unsubscribe(f"{WAVE}.{bed}")
        self._watched = beds

    def silent_s(self) -> float:
        """Since when nothing came at all. The gateway says something each second."""
        return (self._monotonic_ns() - self._heard_ns) / 1e9

    def _drain_stream(self, items: list[Joined | Publication | Reply]) -> None:
        for _ in range(MAX_WAITING_MESSAGES):
            try:
                parts = self._stream.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return
            self._heard_ns = self._monotonic_ns()
            if len(parts) != 3 or len(parts[1]) != 8:
                self.counts["refused"] += 1
                continue
            topic, _, bed = parts[0].decode(errors="replace").partition(".")
            number, kind = int.from_bytes(parts[1], "big"), topic
            if kind == WAVE:
                if bed in self._watched and (waves := self._decoded(parts[2])) is not None:
                    items.append(Publication(number, kind, waves))
                continue
            if self._last and number != self._last + 1:
                self._hole(number - self._last - 1)
            if self.joined:
                self._take(number, kind, parts[2], items)
            else:
                self._wait(number, kind, parts[2])
            self._last = number

    def _hole(self, n: int) -> None:
        """Publications were missed: what waits from before them is worthless, and a snapshot is due."""
        self.joined = False
        self._waiting.clear()
        self.counts["holes"] += 1
        if self._known and self._n_missed is not None:
            self._n_missed = self._n_missed + n if 0 < n < RESTART_JUMP else None

    def _wait(self, number: int, kind: str, frame: bytes) -> None:
        """Keep a publication until the snapshot is here."""
        if len(self._waiting) >= MAX_WAITING_MESSAGES:
            self._hole(len(self._waiting))
        self._waiting.append((number, kind, frame))
        if len(self._waiting) == 1:
            self._ask()

    def _ask(self) -> None:
        try:
            self._control.send(encode(SnapshotRequest()), zmq.NOBLOCK)
        except zmq.Again:
            self.counts["not_asked"] += 1
        self._asked_ns = self._monotonic_ns()

    def _drain_control(self, items: list[Joined | Publication | Reply]) -> None:
        while True:
            try:
                frames = self._control.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return
            try:
                messages = [decode(frame) for frame in frames]
            except WireError:
                self.counts["refused"] += 1
                continue
            items.extend(message for message in messages if isinstance(message, Reply))
            parts = [message for message in messages if isinstance(message, Snapshot)]
            if parts and not self.joined:
                self._join(parts, items)

    def _join(self, parts: list[Snapshot], items: list[Joined | Publication | Reply]) -> None:
        published = parts[0].published
        if not self._waiting or published + 1 < self._waiting[0][0]:
            return  # an answer from before the hole: what lies between it and what waits is not known
        active = {event.alert_id: event for part in parts for event in part.alerts}
        ended = tuple(event for alert_id, event in self.active.items() if alert_id not in active)
        self.active = active
        self.numerics = {numeric.bed: numeric for part in parts for numeric in part.numerics}
        self.joined, self._known = True, published
        items.append(Joined(tuple(active.values()), tuple(self.numerics.values()), ended, self._n_missed))
        self._n_missed = 0
        waiting, self._waiting = self._waiting, []
        for number, kind, frame in waiting:
            self._take(number, kind, frame, items)

    def _take(self, number: int, kind: str, frame: bytes, items: list[Joined | Publication | Reply]) -> None:
        if number <= self._known or not (kind in self._topics or kind in {"alert", "numeric"}):
            return
        message = self._decoded(frame)
        if message is None:
            return
        if isinstance(message, AlertEvent):
            if message.state == "inactive":
                self.active.pop(message.alert_id, None)
            else:
                self.active[message.alert_id] = message
        elif isinstance(message, Numeric):
            self.numerics[message.bed] = message
        if kind in self._topics:
            items.append(Publication(number, kind, message))

    def _decoded(self, frame: bytes) -> AnyMessage | None:
        try:
            return decode(frame)
        except WireError:
            self.counts["refused"] += 1
            return None
