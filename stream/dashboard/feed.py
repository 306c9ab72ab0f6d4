"""From the gateway's publications to what waits for each browser: one task, twenty times a second.

The feed is a subscriber like any other, so the gateway's loop waits for nothing here. Waves are asked for only of
beds that some browser shows.
"""

import asyncio
import time
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import structlog
import zmq

from stream.config import Settings, reached
from stream.dashboard.client import Client
from stream.dashboard.flow import Flow
from stream.dashboard.strips import Strips
from stream.dashboard.ward import Told, Ward, encode
from stream.gateway.journal import Journal, JournalError
from stream.gateway.subscriber import Joined, Publication, Subscriber
from stream.wire import Action, AlertEvent, BeatJudgement, BedStatus, Numeric, Reply, Waves, WindowJudgement

log = structlog.get_logger()

TICK_S = 0.05
SECOND_S = 1.0
SILENT_S = 3.0  # the gateway says something each second


class Asked(NamedTuple):
    """An action that a client has asked for, and how it calls it."""

    client: Client
    id: str


class Feed:
    """See the module; for the event loop's thread alone. `clients`: those that are here."""

    def __init__(self, settings: Settings) -> None:
        self.ward = Ward(time.time_ns)
        self.flow = Flow(time.monotonic)
        self.strips = Strips()
        self.clients: set[Client] = set()
        self.gateway: BedStatus | None = None
        self._settings = settings
        self._subscriber: Subscriber | None = None
        self._asked: dict[str, Asked] = {}
        self._second_due_s = 0.0
        self._used = time.monotonic(), time.thread_time()
        self._silent = False

    async def run(self) -> None:
        """Take what is published until cancelled."""
        own = self._settings.gateway
        topics = ("alert", "beat", "window", "numeric", "status", "action", "gateway")
        await asyncio.to_thread(self._recall)
        with Subscriber(reached(own.publish), reached(own.control), topics) as self._subscriber:
            while True:
                began_s = time.monotonic()
                self._turn(self._subscriber)
                await asyncio.sleep(max(0.001, TICK_S - (time.monotonic() - began_s)))

    def attach(self, client: Client) -> None:
        """A browser has come: it gets all that stands."""
        self.clients.add(client)
        client.tell(self._snapshot(client))

    def detach(self, client: Client) -> None:
        """It has gone."""
        self.clients.discard(client)
        self._asked = {number: asked for number, asked in self._asked.items() if asked.client is not client}
        self._watch()

    def look(self, client: Client, beds: Iterable[str], every_lead: bool) -> None:
        """What a browser shows from here on: waves of these beds, and of one bed alone every lead and beat."""
        views = {bed: every_lead for bed in beds if bed in self.ward.stations}
        fresh = {bed: every for bed, every in views.items() if client.views.get(bed) is not every}
        client.views = views
        client.detail = next(iter(views)) if every_lead and len(views) == 1 else ""
        self._watch()
        for bed, every in fresh.items():
            for block in self.ward.late(bed, every):
                client.wave(block)
            for beat in self.ward.beats(bed) if bed == client.detail else ():
                client.beat(beat)

    def ask(self, client: Client, action: Action, request_id: str) -> None:
        """Hand an action to the gateway; the answer goes to the client that asked, by the id that it gave."""
        try:
            if self._subscriber is None:
                raise zmq.Again
            self._subscriber.act(action)
            self._asked[action.id] = Asked(client, request_id)
        except zmq.Again:
            client.tell(encode({"k": "reply", "id": request_id, "ok": False, "text": "the gateway is away"}))

    def _watch(self) -> None:
        if self._subscriber is not None:
            self._subscriber.watch({bed for client in self.clients for bed in client.views})

    def _recall(self) -> None:
        """What was paused before this gateway started is in the journal."""
        try:
            with Journal(Path(self._settings.gateway.journal), read_only=True) as journal:
                for action in journal.actions(limit=2000):
                    self.ward.act(action)
        except JournalError as error:
            log.warning("dashboard_without_journal", error=str(error))

    def _turn(self, subscriber: Subscriber) -> None:
        for item in subscriber.poll():
            if isinstance(item, Publication):
                self._take(item)
            elif isinstance(item, Reply):
                self._answer(item)
            elif isinstance(item, Joined):
                self._join(item)
        now_s = time.monotonic()
        silent = subscriber.silent_s() > SILENT_S
        if silent != self._silent:
            self._silent = silent
            self._tell(encode({"k": "gateway", "silent": silent}))
        if now_s >= self._second_due_s:
            self._second_due_s = now_s + SECOND_S
            self._every_second()
        for client in self.clients:
            client.wake.set()

    def _every_second(self) -> None:
        self.strips.cut(self.ward.stations)
        clients = [
            {"who": c.who, "role": c.role, "dropped": c.dropped, "waiting": c.waiting_bytes} for c in self.clients
        ]
        figures = {
            "k": "flow",
            "utc_ms": time.time_ns() / 1e6,
            **self.flow.figures(self.gateway),
            "clients": clients,
            "server_cpu": round(self._share(), 4),
        }
        self._show("flow", lambda: encode(figures))

    def _share(self) -> float:
        """The part of a core that this thread took since the last look: the feed, and the server around it."""
        before, now = self._used, (time.monotonic(), time.thread_time())
        self._used = now
        return (now[1] - before[1]) / max(now[0] - before[0], 1e-9)

    def _join(self, joined: Joined) -> None:
        self.ward.forget_alerts()
        for event in joined.active:
            self.ward.settle(event)
        for numeric in joined.numerics:
            self.ward.count(numeric)
        for client in self.clients:
            client.tell(self._snapshot(client))

    def _snapshot(self, client: Client) -> bytes:
        settings = self._settings
        return encode(
            {
                "k": "snapshot",
                "ward": {"name": settings.ward.name, "unit": settings.ward.unit},
                "you": {"who": client.who, "role": client.role},
                "origins": {bed: origin for bed in settings.beds if (origin := origin_of(settings, bed))},
                "utc_ms": time.time_ns() / 1e6,
                "silent": self._silent,
                "beds": self.ward.snapshot(),
            }
        )

    def _take(self, item: Publication) -> None:
        message = item.message
        ward = self.ward
        if isinstance(message, Waves):
            self._wave(message)
        elif isinstance(message, BeatJudgement):
            self.flow.take(message)
            told = ward.beat(message)
            looking = [client for client in self.clients if message.bed == client.detail]
            if looking:
                fragment = told()
                for client in looking:
                    client.beat(fragment)
        elif isinstance(message, WindowJudgement):
            self.flow.take(message)
            self._show(f"window.{message.bed}", ward.window(message))
        elif isinstance(message, Numeric):
            self._show(f"numeric.{message.bed}", ward.count(message))
        elif isinstance(message, AlertEvent):
            self.flow.take(message)
            self.strips.begin(message)
            self._tell(ward.settle(message))
        elif isinstance(message, Action):
            self._tell(ward.act(message))
        elif isinstance(message, BedStatus):
            if item.topic == "gateway":
                self.gateway = message
            else:
                self.flow.take(message)
                self._show(f"status.{message.bed}", ward.account(message))

    def _wave(self, waves: Waves) -> None:
        fragment = self.ward.wave(waves)
        blocks: dict[bool, bytes] = {}
        for client in self.clients:
            if fragment is not None:
                client.tell(fragment)
            every = client.views.get(waves.bed)
            if every is not None:
                if every not in blocks:
                    blocks[every] = self.ward.block(waves, every)
                client.wave(blocks[every])

    def _answer(self, reply: Reply) -> None:
        asked = self._asked.pop(reply.id, None)
        if asked is not None:
            asked.client.tell(encode({"k": "reply", "id": asked.id, "ok": reply.ok, "text": reply.text}))

    def _tell(self, fragment: bytes) -> None:
        for client in self.clients:
            client.tell(fragment)

    def _show(self, key: str, told: Told) -> None:
        if self.clients:
            fragment = told()
            for client in self.clients:
                client.show(key, fragment)


def origin_of(settings: Settings, bed: str) -> str:
    """Whence this ward itself plays a bed: `simulated` (a synthetic patient), `replayed` (a recording), or empty where
    what sends is elsewhere."""
    source = settings.beds[bed].source if bed in settings.beds else None
    return "" if not source else "simulated" if source.startswith("sim:") else "replayed"
