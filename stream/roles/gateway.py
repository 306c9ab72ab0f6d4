"""The gateway: commits alerts to the journal, publishes all that shards say, takes operators' actions.

One thread. Each turn drains what is waiting on all sockets, writes one transaction, then publishes
in the order of arrival, so an alert is on disk before anybody sees it and a burst pays for one
fsync. A journal that cannot be written holds nothing up but the alerts: they stay uncommitted, the
shard keeps them and sends them again. docs/journal.md has the rules, for writers of clients too.
"""

import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import structlog
import zmq
from msgspec.structs import replace

from stream import wire
from stream.alarms.conditions import Profile, ProfileError
from stream.bridges.alarms import BusAlarms
from stream.bridges.bridge import Ward
from stream.bridges.runner import Runner
from stream.config import Settings, profile_of
from stream.gateway.journal import Journal, JournalError, check, utc
from stream.gateway.register import ActionError, Register, Sessions
from stream.latency import Latency
from stream.log import mark_ready
from stream.messages import published
from stream.metrics import Metrics, Snapshot, endpoint
from stream.process import Stop, bind, fresh_id, settle_memory
from stream.refusals import id_of
from stream.wire import Action, AlertEvent, Alerts, Greeting, Strip, WireError

if TYPE_CHECKING:
    from stream.dashboard.server import Dashboard

log = structlog.get_logger()

SECOND_NS = 1_000_000_000
RETAIN_NS = 60 * SECOND_NS
RELEASE_NS = 2 * SECOND_NS  # a shard has so long to reset what it holds of what was acknowledged
PENDING_NS = 60 * SECOND_NS  # an action that no shard confirmed is given back for so long
RETRY_NS = SECOND_NS // 4
UNRECORDED_NS = 2 * SECOND_NS  # alerts wait so long for a journal that cannot be written, then they are shown without
MAX_UNRECORDED = 100_000
SILENT_NS = 3 * SECOND_NS
LAST, MORE = int(zmq.NOBLOCK), int(zmq.NOBLOCK | zmq.SNDMORE)  # of a part of what is published
MOST_PER_TURN = 2000

WAVES = b"wave."
Published = wire.BeatJudgement | wire.WindowJudgement | wire.Numeric | wire.BedStatus | wire.Truth
_TOPICS = {
    wire.BeatJudgement: b"beat.",
    wire.WindowJudgement: b"window.",
    wire.Numeric: b"numeric.",
    wire.BedStatus: b"status.",
    wire.Truth: b"truth.",
    AlertEvent: b"alert.",
    Action: b"action.",
}


def serve(settings: Settings) -> int:
    """Run the gateway role until SIGINT or SIGTERM. Returns the exit code.

    Raises BindError where a port is taken, JournalError where the journal is not to be used."""
    own = settings.gateway
    with (
        Stop() as stop,
        Journal(Path(own.journal)) as journal,
        bind(zmq.ROUTER, "gateway.bind", own.bind) as shards,
        bind(zmq.XPUB, "gateway.publish", own.publish) as publish,
        bind(zmq.ROUTER, "gateway.control", own.control) as control,
    ):
        ward = Ward(settings.ward.name, settings.ward.unit)
        bridges = Runner(settings.bridges, ward, Path(own.journal)) if settings.bridges else None
        gateway = Gateway(settings, journal, shards, publish, control, bridges=bridges)
        gateway.metrics = endpoint(settings, "gateway")
        if bridges is not None:
            bridges.start()
        dashboard = _dashboard(settings, publish)
        settle_memory()
        mark_ready("gateway", journal=own.journal, alerts_standing=len(gateway.register.active))
        while not stop.asked:
            gateway.step()
        if dashboard is not None:
            dashboard.stop()
        if bridges is not None:
            bridges.stop()
    return 0


def _dashboard(settings: Settings, publish: zmq.Socket[bytes]) -> "Dashboard | None":
    """The dashboard in a thread of its own, which takes what is published as any subscriber does, but not by way of
    the network."""
    if not settings.dashboard.enabled:
        return None
    try:
        from stream.dashboard.server import Dashboard
    except ImportError as error:
        log.warning("dashboard_off", error=str(error), mend="pip install -e '.[dashboard]', or enabled = false")
        return None
    near = f"inproc://published-{fresh_id()}"
    publish.bind(near)
    dashboard = Dashboard(replace(settings, gateway=replace(settings.gateway, publish=near)))
    return dashboard if dashboard.start() else None


class Gateway:
    """The loop's body; settings, journal, sockets and clocks are passed in.

    `counts`: what was done and refused since the start, published once a second."""

    def __init__(
        self,
        settings: Settings,
        journal: Journal,
        shards: zmq.Socket[bytes],
        publish: zmq.Socket[bytes],
        control: zmq.Socket[bytes],
        utc_ns: Callable[[], int] = time.time_ns,
        monotonic_ns: Callable[[], int] = time.monotonic_ns,
        bridges: Runner | None = None,
    ) -> None:
        self._settings = settings
        self._bridges = bridges
        self._journal = journal
        self._shards, self._publisher, self._control = shards, publish, control
        shards.setsockopt(zmq.ROUTER_MANDATORY, 1)  # to know when a shard is away
        publish.setsockopt(zmq.XPUB_VERBOSE, 1)  # to know when a subscriber comes
        self._poller = zmq.Poller()
        for socket in (shards, publish, control):
            self._poller.register(socket, zmq.POLLIN)
        self._utc_ns, self._monotonic_ns = utc_ns, monotonic_ns

        self.register = Register(journal.active())
        self.counts: Counter[str] = Counter()
        self._latency = Latency()
        self.metrics: Metrics | None = None
        self._session = fresh_id()
        self._bus_alarms = BusAlarms(settings.ward.name, self._session, profile_of(settings))
        # Microseconds of now: a gateway that starts again goes on far above where it ended, so that
        # a subscriber sees a gap and asks for a snapshot.
        self._number = utc_ns() // 1000
        self._sessions = Sessions(journal.sessions())
        self._greeted: dict[str, set[tuple[str, str, str]]] = {}
        self._greeted_ns: dict[str, int] = {}
        self._status_due_ns = self._retain_due_ns = self._journal_due_ns = self._watch_due_ns = 0
        self._failing_since_ns: int | None = None  # the journal
        self._unrecorded: dict[str, None] = {}  # ids of events that were published and are not on disk
        self._watched: set[bytes] = set()  # what subscribers want waves of: prefixes of topics
        self._complaint_due_ns: dict[str, int] = {}

        # What one turn has taken in, in order; and what it has to answer once that is committed.
        self._turn: list[Published | AlertEvent | Action] = []
        self._frames: dict[int, bytes] = {}  # of a turn's messages, by id: as they came
        self._reached: dict[str, tuple[bytes, int]] = {}
        self._own: list[AlertEvent] = []  # the gateway's own events, until they are on disk
        self._early: list[AlertEvent] = []  # for show: those before them wait for the journal
        self._strips: list[Strip] = []
        self._asked: list[tuple[list[bytes], Action]] = []
        self._snapshots: list[list[bytes]] = []
        self._echoes: list[Action] = []
        self._releases: list[tuple[int, Action]] = []  # when due, and the acknowledgement

    def step(self, timeout_ms: int = 100) -> None:
        """Take in what has come, commit it, publish it, answer."""
        ready = dict(self._poller.poll(timeout_ms))
        if self._shards in ready:
            self._drain(self._shards, self._from_shard)
        if self._control in ready:
            self._drain(self._control, self._from_client)
        if self._publisher in ready and self._welcome():
            self._status_due_ns = 0
        if self._turn or self._own or self._reached or self._echoes:
            self._commit()
        for envelope in self._snapshots:
            self._send(self._control, envelope, *self.register.snapshot(self._number))
        self._snapshots.clear()
        self._ask_for_waves()
        self._every_second()

    def _drain(self, socket: zmq.Socket[bytes], take: Callable[[list[bytes], wire.AnyMessage, bytes], None]) -> None:
        for _ in range(MOST_PER_TURN):
            try:
                identity, *frames = socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return
            envelope = [identity]
            if frames and not frames[0]:  # the empty frame of a REQ socket
                envelope.append(frames.pop(0))
            for frame in frames:
                try:
                    take(envelope, wire.decode(frame), frame)
                except WireError as error:
                    self._refuse(socket, envelope, frame, error)

    def _refuse(self, socket: zmq.Socket[bytes], envelope: list[bytes], frame: bytes, error: WireError) -> None:
        side = "shard" if socket is self._shards else "client"
        self._complain(f"refused_{error.cause}", side=side, text=str(error))
        if socket is self._control:
            self._send(self._control, envelope, wire.Reply(id=id_of(frame), ok=False, text=str(error)[:1000]))

    def _welcome(self) -> bool:
        """Whether a subscriber has come; it waits for a first publication to know that it is heard."""
        came = False
        for _ in range(MOST_PER_TURN):
            try:
                word = self._publisher.recv(zmq.NOBLOCK)
            except zmq.Again:
                break
            came |= word[:1] == b"\x01"
            if word[1:].startswith(WAVES):  # ZeroMQ tells that one is no longer wanted when the last has gone
                self._watched = (self._watched | {word[1:]}) if word[:1] == b"\x01" else (self._watched - {word[1:]})
                self._watch_due_ns = 0
        return came

    def _ask_for_waves(self) -> None:
        """Tell the shards which beds somebody watches: at once when that changes, and once a second to keep it so."""
        now_ns = self._monotonic_ns()
        if now_ns < self._watch_due_ns:
            return
        self._watch_due_ns = now_ns + SECOND_NS
        prefixes = tuple(self._watched)
        if self._bridges is not None and self._bridges.wants_waves:
            prefixes = (WAVES,)
        beds: dict[bytes, list[str]] = {}
        for name, bed in self.register.beds.items() if prefixes else ():
            if (WAVES + name.encode()).startswith(prefixes):
                beds.setdefault(bed.identity, []).append(name)
        for identity, names in beds.items():
            self._send(self._shards, [identity], wire.Watch(beds=tuple(names)))

    # What shards say.

    def _from_shard(self, envelope: list[bytes], message: wire.AnyMessage, frame: bytes) -> None:
        identity = envelope[0]
        if isinstance(message, Published):
            self._hear(message.bed, message.epoch, identity)
            self._turn.append(message)
            self._frames[id(message)] = frame
        elif isinstance(message, wire.Waves):
            self._hear(message.bed, message.epoch, identity)
            self._show(message, frame)
        elif isinstance(message, Alerts):
            self._take_alerts(identity, message)
        elif isinstance(message, Greeting):
            self._greet(identity, message)
        elif isinstance(message, Action):
            check(message)
            self._echoes.append(message)
        else:
            raise WireError("field", f"t: {type(message).__name__} is not for a gateway; see docs/wire.md")

    def _hear(self, bed: str, epoch: str, identity: bytes) -> None:
        if not self.register.heard(bed, epoch, identity, self._monotonic_ns()):
            raise WireError("field", f"bed: {bed!r} is one too many; a gateway has at most {len(self.register.beds)}")

    def _take_alerts(self, identity: bytes, message: Alerts) -> None:
        """Take events that follow on; what comes early is not answered, so that the shard sends all again."""
        session, first, after = message.session, message.first, message.first + len(message.events)
        now_ns = self._monotonic_ns()
        until = self._reached[session][1] if session in self._reached else self._sessions.until(session)
        events = [item for item in message.events if isinstance(item, AlertEvent)]
        for event in events:
            check(event)
        only_shown = first > until and self._unwritable
        if first > until and not only_shown:
            if not self._sessions.believe(session, first, now_ns):
                self._complain("alerts_early", shard=message.shard, first=first, wanted=until)
                return
            self._complain("alerts_missing", shard=message.shard, first=first, wanted=until)
        for event in events:
            self.register.heard(event.bed, event.epoch, identity, now_ns)
        if only_shown:
            self._early.extend(events)
            self._reached.setdefault(session, (identity, until))
            return
        self._turn.extend(events)
        self._strips.extend(item for item in message.events if isinstance(item, Strip))
        self._reached[session] = identity, max(until, after)

    def _greet(self, identity: bytes, message: Greeting) -> None:
        """Give a shard back what it missed: once per session and epoch of a bed."""
        now_ns, monotonic_ns = self._utc_ns(), self._monotonic_ns()
        self._greeted_ns[message.shard] = monotonic_ns
        before = self._greeted.get(message.shard, set())
        greeted = self._greeted[message.shard] = set()
        for bed, epoch, sample in message.beds:
            self.register.heard(bed, epoch, identity, monotonic_ns)
            key = (message.session, bed, epoch)
            if key in before or self._give_back(identity, bed, epoch, sample):
                greeted.add(key)
        self._own.extend(self.register.left_behind(message, now_ns, monotonic_ns))

    def _give_back(self, identity: bytes, bed: str, epoch: str, sample: int) -> bool:
        try:
            actions = self._journal.actions_after(bed, epoch, sample, self._utc_ns() - PENDING_NS)
        except JournalError as error:
            self._complain("journal_failed", error=str(error))
            return False
        if not actions:
            return True
        # What outlives its epoch is applied in this one where the shard stands now.
        actions = [a if a.epoch == epoch else replace(a, epoch=epoch, sample=None) for a in actions]
        log.info("actions_given_back", bed=bed, epoch=epoch, n_actions=len(actions))
        return self._send(self._shards, [identity], *actions)

    # What clients ask.

    def _from_client(self, envelope: list[bytes], message: wire.AnyMessage, frame: bytes) -> None:
        if isinstance(message, wire.SnapshotRequest):
            self._snapshots.append(envelope)
        elif isinstance(message, wire.StripRequest):
            self._send(self._control, envelope, self._strip(message.id))
        elif isinstance(message, Action):
            check(message)
            try:
                action = self.register.check(message, self._utc_ns())
                if action.kind == "limits":
                    self._profile(action.bed).with_changes(action.limits)
            except (ActionError, ProfileError, JournalError) as error:
                self._complain("actions_refused", bed=message.bed, who=message.who, text=str(error))
                self._send(self._control, envelope, wire.Reply(id=message.id, ok=False, text=str(error)[:1000]))
                return
            self._asked.append((envelope, action))
            self._turn.append(action)
        else:
            raise WireError("field", f"t: {type(message).__name__} is not for a control socket; see docs/wire.md")

    def _strip(self, strip_id: str) -> Strip | wire.Reply:
        try:
            strip = self._journal.strip(strip_id)
        except JournalError as error:
            return wire.Reply(id=strip_id, ok=False, text=str(error)[:1000])
        text = f"id: no strip {strip_id!r} is kept; one is there some seconds after its alert, and until retention"
        return strip or wire.Reply(id=strip_id, ok=False, text=text)

    def _profile(self, bed: str) -> Profile:
        """The limits of a bed: the ward's, its own, and what operators changed since."""
        profile = profile_of(self._settings, bed)
        for action in self._journal.actions(bed, kind="limits"):
            try:
                profile = profile.with_changes(action.limits)
            except ProfileError:  # it fitted the limits as they were set up then; the bed leaves it out too
                self.counts["limits_unfit"] += 1
        return profile

    # The turn's end: commit, answer, publish.

    def _commit(self) -> None:
        now_ns = self._utc_ns()
        turn = [
            self._stamped(message, now_ns) if isinstance(message, AlertEvent) else message
            for message in [*self._turn, *self._own]
        ]
        events = [message for message in turn if isinstance(message, AlertEvent)]
        actions = [*(action for _, action in self._asked), *self._echoes]
        until = {session: number for session, (_, number) in self._reached.items()}
        written = self._write(events, actions, until)
        new_events, new_actions = written or ([], [])
        if written is None:
            # The shards have their alerts still, and clients are told; echoes and events of our own are ours to keep.
            for envelope, action in self._asked:
                text = "the journal cannot be written now; try again"
                self._send(self._control, envelope, wire.Reply(id=action.id, ok=False, text=text))
            self._echoes, self._own = self._echoes[-MOST_PER_TURN:], self._own[-MOST_PER_TURN:]
            if self._unwritable:
                self._show_unrecorded([*events, *self._early])
                for session, (identity, _) in self._reached.items():  # that we are here; nothing more is on disk
                    on_disk = self._sessions.until(session)
                    self._send(self._shards, [identity], wire.Committed(session=session, until=on_disk))
        else:
            self._sessions.committed(until)
            for session, (identity, number) in self._reached.items():
                self._send(self._shards, [identity], wire.Committed(session=session, until=number))
            self._forward({id(action) for action in new_actions})
            self._echoes, self._own = [], []
        fresh = {*map(id, new_actions), *(id(e) for e in new_events if e.event_id not in self._unrecorded)}
        for event in new_events:
            self._unrecorded.pop(event.event_id, None)
        for message in turn:
            if not isinstance(message, AlertEvent | Action) or id(message) in fresh:
                self._publish(message)
        for action in new_actions:
            if action.sample is not None:
                self._publish(action)
        if new_events and self._bridges is not None:
            self._bridges.wake()
        self._turn, self._reached, self._early, self._asked, self._strips = [], {}, [], [], []
        self._frames.clear()

    def _write(
        self, events: list[AlertEvent], actions: list[Action], until: dict[str, int]
    ) -> tuple[list[AlertEvent], list[Action]] | None:
        """One transaction; None where it failed, or a failure was so short ago that waiting for the
        file's lock once more would only hold up what needs no journal."""
        try:
            if self._monotonic_ns() >= self._journal_due_ns:
                new_events, new_actions = self._journal.append(events, actions, until, self._strips, self._utc_ns())
                self.counts["strips_committed"] += len(self._strips)
                self.counts["events_committed"] += len(new_events)
                self.counts["events_repeated"] += len(events) - len(new_events)
                if events or actions or until:
                    self._failing_since_ns = None
                return new_events, new_actions
        except JournalError as error:
            self._journal_due_ns = self._monotonic_ns() + RETRY_NS
            self._failing_since_ns = self._failing_since_ns or self._monotonic_ns()
            self._complain("journal_failed", error=str(error), n_events=len(events))
        return None

    @property
    def _unwritable(self) -> bool:
        """Whether the journal has failed for so long that alerts do not wait for it any more."""
        since_ns = self._failing_since_ns
        return since_ns is not None and self._monotonic_ns() - since_ns >= UNRECORDED_NS

    def _show_unrecorded(self, events: list[AlertEvent]) -> None:
        """Publish alerts that are not on disk: once, and with no time of commitment."""
        for event in events:
            if event.event_id not in self._unrecorded:
                self._unrecorded[event.event_id] = None
                self._publish(replace(event, stamps=replace(event.stamps, committed=0)))
        while len(self._unrecorded) > MAX_UNRECORDED:
            del self._unrecorded[next(iter(self._unrecorded))]

    @staticmethod
    def _stamped(event: AlertEvent, now_ns: int) -> AlertEvent:
        return replace(event, emit_time=utc(now_ns), stamps=replace(event.stamps, committed=now_ns))

    def _forward(self, new: set[int]) -> None:
        for envelope, action in self._asked:
            bed = self.register.beds.get(action.bed)
            text = "done before"
            if id(action) in new:
                there = bed is not None and self._send(self._shards, [bed.identity], action)
                text = "the shard has it" if there else "kept until the bed's shard is there"
                self.counts["actions"] += 1
                if action.kind == "acknowledge":
                    self._releases.append((self._monotonic_ns() + (RELEASE_NS if there else 0), action))
                log.info("action", kind=action.kind, bed=action.bed, who=action.who, id=action.id, forwarded=there)
            self._send(self._control, envelope, wire.Reply(id=action.id, ok=True, text=text))

    def _publish(self, message: Published | AlertEvent | Action) -> None:
        now_ns = self._utc_ns()
        frame = self._frames.get(id(message))
        if frame is not None and self._bridges is None and self._pass_on(message, frame, now_ns):
            return
        if not isinstance(message, wire.BedStatus | wire.Truth | Action):
            stamps = message.stamps
            if isinstance(message, AlertEvent):
                self._latency.add("received>decided", stamps.received, stamps.decided)
                self._latency.add("decided>committed", stamps.decided, stamps.committed)
                self._latency.add("committed>published", stamps.committed, now_ns)
            else:
                self._latency.add("received>published", stamps.received, now_ns)
            message = replace(message, stamps=replace(stamps, published=now_ns))
        self._put(_TOPICS[type(message)] + message.bed.encode(), message)
        if self._bridges is not None:
            self._bridges.take(message)
        if isinstance(message, AlertEvent):
            self.register.settle(message)
        elif isinstance(message, wire.Numeric):
            self.register.numerics[message.bed] = message

    def _pass_on(self, message: Published | AlertEvent | Action, frame: bytes, now_ns: int) -> bool:
        """Publish a shard's frame as it came, but for its stamp. False where the message must be written anew."""
        stamped: bytes | None = frame
        if isinstance(message, wire.BeatJudgement | wire.WindowJudgement):
            stamped = published(frame, now_ns)
            if stamped is not None:
                self._latency.add("received>published", message.stamps.received, now_ns)
        elif isinstance(message, wire.Numeric):  # a snapshot has it too
            return False
        if stamped is not None:
            self._put_frame(_TOPICS[type(message)] + message.bed.encode(), stamped)
        return stamped is not None

    def _put(self, topic: bytes, message: wire.AnyMessage) -> None:
        try:
            frame = wire.encode(message)
        except WireError as error:
            self._complain(f"refused_{error.cause}", text=str(error))
            return
        self._put_frame(topic, frame)

    def _put_frame(self, topic: bytes, frame: bytes) -> None:
        self._number += 1
        self.counts["published"] += 1
        self._send_out(topic, frame)

    def _send_out(self, topic: bytes, frame: bytes) -> None:
        """To all who subscribe. Part by part: `send_multipart` makes a flag of an enumeration anew for each."""
        self._publisher.send(topic, MORE)
        self._publisher.send(self._number.to_bytes(8, "big"), MORE)
        self._publisher.send(frame, LAST)

    def _show(self, waves: wire.Waves, frame: bytes) -> None:
        """Publish waves as they came, and not numbered: nobody is to ask for a snapshot because one is missing."""
        self.counts["waves"] += 1
        if self._bridges is not None:
            self._bridges.take(waves)
        self._send_out(WAVES + waves.bed.encode(), frame)

    def _send(self, socket: zmq.Socket[bytes], envelope: list[bytes], *messages: wire.AnyMessage) -> bool:
        try:
            socket.send_multipart([*envelope, *map(wire.encode, messages)], zmq.NOBLOCK)
        except (zmq.ZMQError, WireError) as error:
            self._complain("not_sent", message=type(messages[0]).__name__, error=str(error))
            return False
        return True

    # What time asks.

    def _every_second(self) -> None:
        monotonic_ns = self._monotonic_ns()
        if monotonic_ns < self._status_due_ns:
            return
        self._status_due_ns = monotonic_ns + SECOND_NS
        self.register.forget(monotonic_ns)
        for _, action in [release for release in self._releases if release[0] <= monotonic_ns]:
            self._own.extend(self.register.released(action, self._utc_ns()))
        self._releases = [release for release in self._releases if release[0] > monotonic_ns]
        for shard, greeted_ns in list(self._greeted_ns.items()):
            if monotonic_ns - greeted_ns > SILENT_NS:
                log.warning("shard_silent", shard=shard, silent_s=round((monotonic_ns - greeted_ns) / 1e9, 1))
                del self._greeted_ns[shard]
        figures = self._latency.figures(monotonic_ns)
        state = {
            "beds": len(self.register.beds),
            "alerts_standing": len(self.register.active),
            "events_unrecorded": len(self._unrecorded),
        }
        if self.metrics is not None:
            self.metrics.put(Snapshot(counts=self.counts.copy(), gauges=dict(state), stages=self._latency.totals()))
        accounts = self._bridges.accounts() if self._bridges is not None else {}
        for name, account in accounts.items():
            state |= {f"bridge.{name}.{what}": n for what, n in account.counts.items()}
            figures |= account.latency_ms
        alarms = {name: account.alarms for name, account in accounts.items()}
        self._own.extend(self._bus_alarms.step(alarms, self.register.active.values(), self._utc_ns()))
        status = wire.BedStatus(
            shard="gateway",
            bed="gateway",
            epoch=self._session,
            at=wire.Moment(0, 1.0),
            counts={**self.counts, **state},
            age_ms=0.0,
            clock_offset_ms=0.0,
            clock_drift_ppm=0.0,
            latency_ms=figures,
        )
        self._put(b"gateway", status)
        log.debug("status", **self.counts, **state, latency_ms=figures)
        if monotonic_ns >= self._retain_due_ns:
            self._retain(monotonic_ns)

    def _retain(self, monotonic_ns: int) -> None:
        own = self._settings.gateway
        n_deleted = 0
        try:
            n_deleted = self._journal.retain(own.retention_days * 86_400, own.retention_mb * 1e6, self._utc_ns())
        except JournalError as error:
            self._complain("journal_failed", error=str(error))
        if n_deleted:
            log.info("journal_trimmed", n_rows=n_deleted)
        self._retain_due_ns = monotonic_ns + (0 if n_deleted else RETAIN_NS)

    def _complain(self, what: str, **fields: object) -> None:
        """Count, and log once a second of each kind."""
        self.counts[what] += 1
        now_ns = self._monotonic_ns()
        if now_ns >= self._complaint_due_ns.get(what, 0):
            self._complaint_due_ns[what] = now_ns + SECOND_NS
            log.warning(what, count=self.counts[what], **fields)
