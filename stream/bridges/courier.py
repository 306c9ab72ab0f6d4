"""A courier carries one ward's messages to one bus: connects, delivers in order, tries again, gives up with a record.

Alerts of a bed go one after the other, each sent when the one before it is acknowledged; beds go side
by side, `window` at once. So the order of a bed holds whatever fails. Numerics and what streams have
tasks of their own: they never wait for alerts, nor alerts for them, and what is not sent in time is
replaced by what is newer.

After a connection is made, what was not acknowledged goes out first (the ends that were missed are in
it), then every alert that still stands, as `continue`.
"""

import asyncio
import contextlib
import random
import time
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from typing import NamedTuple, TypeVar

import structlog
from msgspec.structs import replace

from stream.bridges.bridge import Bridge, BridgeSettings, BusError, Heartbeat, NotNow, Rejected
from stream.bridges.feed import Feed
from stream.bridges.outbox import Outbox
from stream.gateway.journal import JournalError, utc
from stream.latency import Latency
from stream.wire import AlertEvent, BeatJudgement, Numeric, Waves, WindowJudgement

log = structlog.get_logger()
M = TypeVar("M", Numeric, WindowJudgement, BeatJudgement, Waves)
T = TypeVar("T")

READ_AHEAD = 500
FLUSH_S = 0.2
STREAM_S = 0.1
DOWN_S = 5.0
LATE_NS = 10_000_000_000
CAUGHT_UP_NS = 2_000_000_000  # an alarm about what is late ends when nothing is older
STEADY_S = 5.0  # a connection that held so long starts the pauses anew
SHY_S = 1.0  # a message that was not answered lets others go first for so long


class Item(NamedTuple):
    """A thing to deliver. `number`: the journal's row, None for a `continue`; `letter`: of a dead one."""

    event: AlertEvent
    number: int | None = None
    letter: int | None = None


class Account(NamedTuple):
    """What the gateway shows of a bridge: counts, latency, and which alarms are true, with their reasons."""

    counts: dict[str, int]
    latency_ms: dict[str, tuple[float, float]]
    alarms: dict[str, str]


def pauses(first_s: float, cap_s: float) -> Iterator[float]:
    """Pauses between tries: they double up to the cap, each anywhere in its upper half."""
    pause = first_s
    while True:
        yield pause * random.uniform(0.5, 1.0)
        pause = min(2 * pause, cap_s)


class Courier:
    """See the module. `run` goes on until it is cancelled; `account` is renewed by `look`."""

    def __init__(
        self,
        name: str,
        bridge: Bridge,
        settings: BridgeSettings,
        outbox: Outbox,
        feed: Feed,
        utc_ns: Callable[[], int] = time.time_ns,
        monotonic_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self.name, self.account = name, Account({}, {}, {})
        self._bridge, self._settings, self._outbox, self._feed = bridge, settings, outbox, feed
        self._utc_ns, self._monotonic_ns = utc_ns, monotonic_ns
        if "beats" in settings.classes:
            feed.want_beats(name)
        if "waves" in settings.classes:
            feed.want_waves(name)
        self._counts: Counter[str] = Counter()
        self._latency = Latency()
        self._window = asyncio.Semaphore(bridge.window)
        self._news = asyncio.Event()
        self._room = asyncio.Event()

        self._standing = {event.alert_id: event for event in outbox.standing()}
        self._done = set(outbox.ahead)  # delivered, above the cursor
        self._read = outbox.cursor  # number of the newest row read
        self._pending: dict[int, None] = {}  # numbers read and not done, in order
        self._lanes: dict[str, deque[Item]] = {}
        self._recent: deque[tuple[int, int]] = deque()  # what was delivered of late: when, and the row's number
        self._unanswered: dict[int, tuple[int, int]] = {}  # by row: timeouts that count, and deliveries at the last
        self._down_since_ns: int | None = monotonic_ns()
        self._why = "not connected yet"
        self._behind = False

    def wake(self) -> None:
        """The journal has something new."""
        self._news.set()

    @property
    def idle(self) -> bool:
        """All that the journal has is delivered, as far as this courier has looked."""
        return not self._pending and not self._news.is_set()

    @property
    def connected(self) -> bool:
        return self._down_since_ns is None

    async def run(self) -> None:
        """Keep the bus served."""
        steps = pauses(self._settings.backoff_s, self._settings.backoff_cap_s)
        while True:
            since_ns = self._monotonic_ns()
            try:
                async with asyncio.timeout(2 * self._settings.timeout_s):
                    await self._bridge.open()
                since_ns = self._monotonic_ns()
                self._down_since_ns = None
                self._counts["connects"] += 1
                log.info("bus_connected", bridge=self.name)
                await self._session()
            except (asyncio.CancelledError, KeyboardInterrupt):
                await self._close()
                raise
            except Exception as error:  # whatever a client library raises: this connection is of no more use
                self._lost(_first(error))
            await self._close()
            if self._monotonic_ns() - since_ns > STEADY_S * 1e9:
                steps = pauses(self._settings.backoff_s, self._settings.backoff_cap_s)
            await asyncio.sleep(next(steps))

    def _lost(self, error: BaseException) -> None:
        why = (str(error) or type(error).__name__)[:300]
        if self._down_since_ns is None or why != self._why:
            say = log.error if isinstance(error, BusError) else log.warning
            say("bus_away", bridge=self.name, error=why, waiting=len(self._pending))
        if self._down_since_ns is None:
            self._down_since_ns = self._monotonic_ns()
        self._why = why
        self._counts["connections_failed"] += 1

    async def _close(self) -> None:
        with contextlib.suppress(Exception):
            async with asyncio.timeout(0.5):
                await self._bridge.close()

    async def _session(self) -> None:
        """All classes side by side, until the connection is of no more use."""
        classes = self._settings.classes
        async with asyncio.TaskGroup() as group:
            if "alerts" in classes:
                group.create_task(self._alerts(group))
                group.create_task(self._again())
            group.create_task(self._bridge.lost())
            group.create_task(self._heartbeats())
            if "numerics" in classes:
                group.create_task(self._newest(self._feed.numerics, self._bridge.numeric))
            if "profile" in classes:
                group.create_task(self._newest(self._feed.profiles, self._bridge.judgement))
            if "beats" in classes:
                group.create_task(self._stream(self._feed.want_beats(self.name), self._bridge.judgement))
            if "waves" in classes:
                group.create_task(self._stream(self._feed.want_waves(self.name), self._bridge.wave))

    # Alerts.

    async def _alerts(self, group: asyncio.TaskGroup) -> None:
        self._lanes.clear()
        self._pending.clear()
        self._done -= {number for _, number in self._recent}
        self._read = min((number - 1 for _, number in self._recent), default=self._outbox.cursor)
        self._read = min(self._read, self._outbox.cursor)
        self._recent.clear()
        told = self._outbox.head()  # up to here, what stands has been told before: it goes out as `continue`
        due = True
        while True:
            self._news.clear()
            self._room.clear()
            try:
                rows = self._outbox.read(self._read, READ_AHEAD - len(self._pending))
            except JournalError as error:
                log.warning("outbox_failed", bridge=self.name, error=str(error))
                await asyncio.sleep(FLUSH_S)
                continue
            for number, event in rows:
                if number > self._read + 1:
                    self._counts["retired_undelivered"] += number - self._read - 1
                self._read = number
                if number not in self._done:
                    self._pending[number] = None
                    self._put(group, Item(event, number))
            if due and len(self._pending) < READ_AHEAD and (not rows or self._read >= told):
                due = False
                for event in list(self._standing.values()):
                    self._put(group, Item(event))
            if len(self._pending) >= READ_AHEAD:
                await _either(self._room, FLUSH_S)
            elif not rows:
                await _either(self._news, FLUSH_S)

    def _put(self, group: asyncio.TaskGroup, item: Item) -> None:
        lane = self._lanes.get(item.event.bed)
        if lane is None:
            lane = self._lanes[item.event.bed] = deque()
            group.create_task(self._lane(lane, item.event.bed))
        lane.append(item)

    async def _lane(self, lane: deque[Item], bed: str) -> None:
        while lane:
            await self._deliver(lane[0])
            lane.popleft()
        del self._lanes[bed]

    async def _deliver(self, item: Item) -> None:
        """Deliver an item, or bury it. Raises what means that the connection is of no more use."""
        steps = pauses(self._settings.backoff_s, self._settings.backoff_cap_s)
        event = item.event
        if item.number in self._unanswered:
            await asyncio.sleep(SHY_S)
        tries = 0
        while True:
            if item.number is None and item.letter is None:
                standing = self._standing.get(event.alert_id)
                if standing is None or standing.seq != event.seq:
                    return  # it has moved on meanwhile, and what it became was sent
                event = continued(standing, self._utc_ns())
            tries += 1
            try:
                async with self._window, asyncio.timeout(self._settings.timeout_s):
                    await self._bridge.alert(event)
            except Rejected as error:
                await self._bury(item, str(error), tries)
            except NotNow as error:
                self._counts["tried_again"] += 1
                tries = await self._tried(item, str(error)) if item.number is not None else tries
                if tries < self._settings.tries:
                    await asyncio.sleep(next(steps))
                    continue
                await self._bury(item, f"{error} ({tries} tries)", tries)
            except TimeoutError:
                self._counts["timeouts"] += 1
                if item.number is None or not self._is_poison(item.number):
                    raise TimeoutError(f"no acknowledgement within {self._settings.timeout_s:g} s") from None
                await self._bury(item, "not answered, while others were", self._settings.tries)
            else:
                self._delivered(item)
            return

    def _is_poison(self, number: int) -> bool:
        """Whether a message has not been answered so often, while others were, that it must be its own fault.

        Told only of a bus that takes one at a time: elsewhere a slow network looks the same."""
        n, at = self._unanswered.get(number, (0, -1))
        if self._counts["acknowledged"] > at:
            n += 1
        self._unanswered[number] = n, self._counts["acknowledged"]
        return self._bridge.window == 1 and n >= self._settings.tries

    def _delivered(self, item: Item) -> None:
        event = item.event
        self._counts["acknowledged"] += 1
        if item.letter is not None:
            return
        if item.number is None:
            self._counts["continued"] += 1
            return
        self._counts["delivered"] += 1
        self._latency.add(f"committed>{self.name}", event.stamps.committed, self._utc_ns())
        if self._bridge.overlap_s:
            now_ns = self._monotonic_ns()
            self._recent.append((now_ns, item.number))
            while self._recent[0][0] < now_ns - self._bridge.overlap_s * 1e9:
                self._recent.popleft()
        self._finish(item)

    def _finish(self, item: Item) -> None:
        """The item is off our hands."""
        event, number = item.event, item.number
        known = self._standing.get(event.alert_id)
        if known is None or known.seq <= event.seq:
            if event.state == "inactive":
                self._standing.pop(event.alert_id, None)
            else:
                self._standing[event.alert_id] = event
        if number is not None:
            self._unanswered.pop(number, None)
            if number in self._pending:
                del self._pending[number]
                self._done.add(number)
        self._room.set()

    async def _bury(self, item: Item, reason: str, tries: int) -> None:
        if item.number is None and item.letter is None:
            self._counts["continues_refused"] += 1
            return
        log.error("dead_letter", bridge=self.name, bed=item.event.bed, event_id=item.event.event_id, reason=reason)
        self._counts["dead_letters"] += 1
        await self._write(lambda: self._outbox.bury(item.event, reason, tries, self._utc_ns()))
        if item.number is not None:
            self._finish(item)

    async def _tried(self, item: Item, reason: str) -> int:
        return await self._write(lambda: self._outbox.tried(item.number or 0, reason))

    async def _write(self, write: Callable[[], T]) -> T:
        """Write to the outbox, as often as it takes: the gateway or a reader may have the file's lock."""
        while True:
            try:
                return write()
            except JournalError as error:
                log.warning("outbox_failed", bridge=self.name, error=str(error))
                await asyncio.sleep(FLUSH_S)

    def _note_cursor(self) -> None:
        """What is below the cursor is off our hands; try later where the file is busy."""
        cursor = next(iter(self._pending)) - 1 if self._pending else self._read
        if cursor == self._outbox.cursor and self._done <= self._outbox.ahead:
            return
        with contextlib.suppress(JournalError):
            self._outbox.advance(cursor, self._done)
            self._done = {number for number in self._done if number > cursor}

    async def _again(self) -> None:
        """Dead letters that somebody wants to be tried again."""
        while True:
            letters = []
            with contextlib.suppress(JournalError):
                letters = self._outbox.letters(again=True)
            for letter in letters:
                n_before = self._counts["acknowledged"]
                await self._deliver(Item(letter.event, letter=letter.number))
                if self._counts["acknowledged"] > n_before:
                    await self._write(partial(self._outbox.discard, letter.number))
                    self._counts["replayed"] += 1
            await asyncio.sleep(1.0)

    # What may be lost.

    async def _heartbeats(self) -> None:
        while True:
            beat = Heartbeat(self._utc_ns(), self._feed.beds(), list(self._standing.values()))
            async with asyncio.timeout(self._settings.timeout_s):
                await self._bridge.heartbeat(beat)
            self._counts["acknowledged"] += 1
            await asyncio.sleep(self._settings.heartbeat_s)

    async def _newest(self, newest: dict[str, M], send: Callable[[M], Awaitable[None]]) -> None:
        """The newest of each bed, where there is a newer one; what comes between is passed over."""
        sent: dict[str, M] = {}
        while True:
            for bed, message in list(newest.items()):
                if sent.get(bed) is not message:
                    sent[bed] = message
                    await self._try(send, message)
            await asyncio.sleep(self._settings.numerics_s)

    async def _stream(self, waiting: deque[M], send: Callable[[M], Awaitable[None]]) -> None:
        """One after the other; what waits too long falls out at the other end."""
        while True:
            while waiting:
                await self._try(send, waiting.popleft())
            await asyncio.sleep(STREAM_S)

    async def _try(self, send: Callable[[M], Awaitable[None]], message: M) -> None:
        """Send once. What fails is counted: whether the connection holds is for alerts and heartbeats to find out."""
        try:
            async with asyncio.timeout(self._settings.timeout_s):
                await send(message)
            self._counts["latest_sent"] += 1
        except Exception as error:
            self._counts["latest_failed"] += 1
            log.debug("not_sent", bridge=self.name, error=str(error))
            await asyncio.sleep(self._settings.backoff_s)

    # What the gateway shows.

    def look(self) -> None:
        """Note the cursor and renew the account; called several times a second."""
        self._note_cursor()
        now_ns, alarms = self._utc_ns(), {}
        down_ns = 0 if self._down_since_ns is None else self._monotonic_ns() - self._down_since_ns
        if down_ns > DOWN_S * 1e9:
            alarms["BUS_DOWN"] = self._why
        red_ns = any_ns = n_letters = 0
        with contextlib.suppress(JournalError):
            cursor = self._outbox.cursor
            red_ns = self._outbox.oldest(cursor, self._done, red=True)
            any_ns = self._outbox.oldest(cursor, self._done, red=False)
            n_letters = self._outbox.n_letters()
        late_ns = now_ns - any_ns if any_ns else 0
        self._behind = late_ns > LATE_NS or (self._behind and late_ns > CAUGHT_UP_NS)
        if self._behind:
            red = bool(red_ns) and now_ns - red_ns > LATE_NS
            alarms["BUS_BEHIND"] = f"{'a red alert' if red else 'an alert'} of over 10 s ago is not delivered"
        if n_letters:
            alarms["BUS_REJECTED"] = "there are dead letters; see `bridges replay`"
        counts = dict(self._counts)
        counts["waiting"] = max(self._head() - self._outbox.cursor - len(self._done), 0)
        counts["oldest_ms"] = max(late_ns // 1_000_000, 0)
        counts["dropped"] = self._feed.n_dropped[self.name]
        counts["letters"] = n_letters
        self.account = Account(counts, self._latency.figures(self._monotonic_ns()), alarms)

    def _head(self) -> int:
        try:
            return self._outbox.head()
        except JournalError:
            return self._read


def continued(event: AlertEvent, now_ns: int) -> AlertEvent:
    """An alert that stands, told again: its newest event, as a message with an id of its own."""
    event_id = f"{event.alert_id}-{event.seq}.c{now_ns // 1_000_000:x}"
    return replace(event, event_id=event_id[-64:], phase="continue", emit_time=utc(now_ns))


def _first(error: BaseException) -> BaseException:
    """The first of a group of errors, for a message."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


async def _either(event: asyncio.Event, timeout_s: float) -> None:
    """Wait for an event, but not for ever: a wake-up may have been for what we already had."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(timeout_s):
            await event.wait()
