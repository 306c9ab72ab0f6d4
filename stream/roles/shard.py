"""The shard's process: one thread that moves messages between its sources, the worker, the gateway and a `Shard`.

A round takes in all that has come, feeds it in one go, and sends what came of it; so the more beds, the
larger the arrays of a round. Every `checkpoint_s` the state of each bed goes to disk, and only then are sources told
that they may forget.
"""

import gc
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import structlog
import zmq

from stream import checkpoint, wire
from stream.alarms.book import NEVER
from stream.alarms.conditions import Profile
from stream.config import Settings, ShardSettings, profile_of
from stream.latency import Latency
from stream.log import mark_ready
from stream.metrics import Metrics, Snapshot, endpoint
from stream.process import Stop, bind, connect, fresh_id, settle_memory, stand_by
from stream.relief import TOLD
from stream.shard import SIGNAL_LOST_S, STREAM_LATE_MS, Shard
from stream.transport.ingest import PACKETS_PER_BED, Ingest
from stream.warm import warm
from stream.waves import Watched

log = structlog.get_logger()

SECOND = 1_000_000_000
ROUND_MS = 20  # a round lasts at least so long: packets of many beds go through the stages together
MAX_ROUND_MS = 30  # and so long where rounds take a third of it: a round of many packets costs less for each
MAX_WAITING_ITEMS = 8192  # with the worker; beyond, replays wait on credit
GATEWAY_SILENT_NS = 2 * SECOND
LOST_NS = 3 * SECOND
MOST_PER_ROUND = 2000
ANSWERING_NS = SECOND // 2  # a worker that is there answers something so often, where something waits
GRACE_NS = 10 * SECOND  # after its own start a shard gives the worker so long to be there
FRAMES_AT_ONCE = 256
WATCH_S = 0.2
PART_BEDS, MOST_PARTS = 64, 20  # a checkpoint is made in so many parts as it has so many beds, and in no more
STATUS_TURNS = 10  # a bed's account is told once a second, those of all in so many turns
STATUS_TURN_NS = SECOND // STATUS_TURNS
# What a checkpoint of another build, or for another capacity or number of leads, may raise.
UNFIT = (checkpoint.CheckpointError, KeyError, ValueError, TypeError, IndexError, AttributeError)


def serve(settings: Settings, name: str) -> int:
    """Run shard `name` of the settings until SIGINT or SIGTERM. Returns the exit code.

    Raises KeyError for a shard that is not in the settings, BindError for a port that is taken."""
    own = settings.shards[name]
    warm(own.n_leads)
    stand_by()
    with (
        Stop() as stop,
        bind(zmq.ROUTER, f"shards.{name}.bind", own.bind) as sources,
        connect(own.worker, f"shard:{name}") as worker,
        connect(own.gateway, f"shard:{name}") as gateway,
    ):
        role = ShardRole(settings, name, sources, worker, gateway)
        role.metrics = endpoint(settings, f"shard.{name}")
        settle_memory()
        mark_ready(f"shard.{name}", beds=len(role.shard.beds))
        while not stop.asked:
            role.step()
        role.save()
    return 0


def profiles(settings: Settings) -> dict[str, Profile]:
    """The alarm profile of each bed that the settings name; "" is for the others.

    Raises ProfileError for a code or limit that is not known or out of range."""
    return {bed: profile_of(settings, bed) for bed in ("", *settings.beds)}


class ShardRole:
    """The loop's body; sockets are passed in."""

    def __init__(
        self,
        settings: Settings,
        name: str,
        sources: zmq.Socket[bytes],
        worker: zmq.Socket[bytes],
        gateway: zmq.Socket[bytes],
    ) -> None:
        self._own: ShardSettings = settings.shards[name]
        self._name = name
        self._sources, self._worker, self._gateway = sources, worker, gateway
        self._poller = zmq.Poller()
        for socket in (sources, worker, gateway):
            self._poller.register(socket, zmq.POLLIN)
        self._session = fresh_id()
        self._worker_session = ""
        self._began_ns = self._worker_heard_ns = self._answered_ns = self._offered_ns = time.monotonic_ns()
        self._due_ns = dict.fromkeys(("watch", "greet", "metrics", "checkpoint", "complain"), 0)
        self._latency = Latency()
        self._busy_s = 0.0  # that a round takes, lately
        self._waves = Watched()
        self._given_ns = 0
        self.refused = 0
        self.metrics: Metrics | None = None
        self._folder = Path(self._own.state_dir)
        self._folder.mkdir(parents=True, exist_ok=True)
        self._n_parts = max(1, min(self._own.capacity // PART_BEDS, MOST_PARTS))
        self._n_saved = 0  # parts, since the shard was first started
        self._saving = 0  # the part of the newest one, and when it was begun
        self._save_began_ns = 0
        self._scribe = checkpoint.Scribe()
        self._status_turn = time.monotonic_ns() // STATUS_TURN_NS
        self._told: dict[str, wire.BedStatus] = {}  # the newest account of each bed, for the metrics
        self._positions: list[tuple[str, str, int]] = []  # that it holds
        self._known = profiles(settings)
        self._begin()

    def _begin(self) -> None:
        """Go on from the checkpoint; a part that cannot be gone on from is set aside, for a ward must not stay down."""
        states: dict[Path, dict[str, Any]] = {}
        for path in checkpoint.paths(self._folder):
            try:
                states[path] = checkpoint.load(path) or {}
            except UNFIT as error:
                _set_aside(path, error)
        while (unfit := self._load(states)) is not None:
            del states[unfit]
        if states:
            log.info("checkpoint_loaded", beds=len(self.shard.beds), judging=len(self.shard.judging))

    def _load(self, states: dict[Path, dict[str, Any]]) -> Path | None:
        """Begin with these parts, in the order in which they were saved; the path of one with which that cannot be."""
        self.ingest, self.shard = self._afresh()
        for path, state in sorted(states.items(), key=lambda item: item[1].get("number", 0)):
            try:
                self._n_saved = state["number"] + 1
                self.ingest.restore(state["ingest"])
                self.shard.load_state_dict(state["shard"])
            except UNFIT as error:
                _set_aside(path, error)
                return path
        return None

    def _afresh(self) -> tuple[Ingest, Shard]:
        own = self._own
        queue = max(8192, PACKETS_PER_BED * own.capacity)
        ingest = Ingest(capacity=own.capacity, gap_timeout_s=own.gap_timeout_s, queue_packets=queue)
        return ingest, Shard(
            self._name, own.capacity, own.n_leads, self._profile_of, time.time_ns, self._session, self._folder
        )

    def _profile_of(self, bed: str) -> Profile:
        return self._known.get(bed, self._known[""])

    def step(self) -> None:
        """One round."""
        began_ns = time.monotonic_ns()
        ready = dict(self._poller.poll(ROUND_MS))
        woke_ns = time.monotonic_ns()
        if self._worker in ready:
            self._drain_worker()
        if self._gateway in ready:
            self._drain_gateway()
        self._send()  # judgements wait for no samples, nor windows for the worker
        if self._sources in ready:
            self._drain_sources()
        crowded = len(self.shard.judging) > MAX_WAITING_ITEMS
        events = self.ingest.take(self.shard.not_now(crowded))
        self._waves.take(events)
        self.shard.feed(events)
        self._send()  # before a checkpoint: what it counts as told has been told
        self._reply()
        self._checkpoint()
        self._watch()
        self._tell_accounts()
        busy_s = (time.monotonic_ns() - woke_ns) / SECOND
        self._busy_s += (busy_s - self._busy_s) / 8
        round_s = min(max(ROUND_MS / 1e3, 3 * self._busy_s), MAX_ROUND_MS / 1e3)
        spare_s = round_s - (time.monotonic_ns() - began_ns) / SECOND
        if spare_s > 0 and self.shard.live:
            time.sleep(spare_s)

    def save(self) -> None:
        """Write the checkpoint, at the end; then sources may forget what it holds."""
        self._scribe.stop()
        if (error := self._scribe.done()) is not None:
            self._saved(error)
        for _ in range(self._n_parts):
            try:
                checkpoint.save(*self._next_part())
            except OSError as failure:
                self._saved(str(failure))
            else:
                self._saved("")

    def _next_part(self) -> tuple[Path, dict[str, Any], Path | None]:
        """The path and the state of the part whose turn it is, and a file that goes with it."""
        self._saving = part = self._n_saved % self._n_parts
        self._n_saved += 1
        beds = self.shard.beds_of(part, self._n_parts)
        self._positions = self.ingest.positions(beds)
        self.shard.outbox.saving()
        shard = self.shard.state_dict(part, self._n_parts)
        state = {"number": self._n_saved - 1, "ingest": self.ingest.state(beds), "shard": shard}
        return checkpoint.path_of(self._folder, part), state, self.shard.outbox.spill_path

    def _checkpoint(self) -> None:
        """Take in what became of the part that was being saved; begin with the next one when it is due."""
        if (error := self._scribe.done()) is not None:
            self._saved(error)
        began_ns = time.monotonic_ns()
        if self._scribe.busy:
            if began_ns - self._save_began_ns > self._own.checkpoint_s * SECOND and self._due("complain", 10.0):
                log.warning("checkpoint_slow", path=str(self._folder), mend="a faster disk, or a longer checkpoint_s")
            return
        if not self._due("checkpoint", self._own.checkpoint_s / self._n_parts):
            return
        self._save_began_ns = began_ns
        gc.disable()  # it would look through the many values of the state, and find nothing
        try:
            self._scribe.begin(*self._next_part())
        finally:
            gc.enable()
        self._latency.add("checkpoint", began_ns, time.monotonic_ns())

    def _saved(self, error: str) -> None:
        if error:
            log.error("checkpoint_failed", path=str(self._folder), error=error, mend="free the disk")
            return
        self.shard.outbox.saved(self._saving)
        for bed, epoch, sample in self._positions:
            self.ingest.durable(bed, epoch, sample)

    def _drain_sources(self) -> None:
        for _ in range(MOST_PER_ROUND):
            try:
                identity, *frames = self._sources.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return
            self.ingest.receive(identity, frames, time.time_ns(), time.monotonic_ns())

    def _drain_worker(self) -> None:
        for message in self._messages(self._worker):
            self._worker_heard_ns = time.monotonic_ns()
            if isinstance(message, wire.Shed):
                self.shard.shed(message)
            elif isinstance(message, wire.Judged):
                self._answered_ns = self._worker_heard_ns
                try:
                    self.shard.judging.accept(message)
                except wire.WireError as error:  # of a worker of another version: its items stay unanswered
                    self.refused += 1
                    log.warning("answer_refused", text=str(error), count=self.refused)
                self._latency.add("judge", message.batched_ns, message.judged_ns)
            elif isinstance(message, wire.Ready):
                self.shard.model_version = message.model_version
                if message.session != self._worker_session or (message.queued == 0 and self._lost()):
                    again = self.shard.judging.send_again()
                    log.info("worker_found", device=message.device, model=message.model_version, items_sent=len(again))
                    self._worker_session, self._given_ns = message.session, time.monotonic_ns()
                    self._give(self._worker, again)
        self.shard.apply()

    def _lost(self) -> bool:
        """Whether blocks must have been lost on the way: the worker is idle, and we wait for it."""
        since_ns = max(self.shard.judging.oldest_ns() or NEVER, time.time_ns() - time.monotonic_ns() + self._given_ns)
        return time.time_ns() - since_ns > LOST_NS

    def _drain_gateway(self) -> None:
        for message in self._messages(self._gateway):
            if isinstance(message, wire.Committed):
                self._offered_ns = time.monotonic_ns()
                self.shard.outbox.committed(message)
            elif isinstance(message, wire.Action):
                self._give(self._gateway, [echo] if (echo := self.shard.act(message)) else [])
            elif isinstance(message, wire.Watch):
                self._waves.watch(message.beds, time.monotonic_ns())

    def _watch(self) -> None:
        """What goes by the wall clock: technical alarms, the checkpoint, greetings."""
        if not self._due("watch", WATCH_S):
            return
        now_ns, mono_ns = time.time_ns(), time.monotonic_ns()
        stall_ns = round(self._own.worker_stall_s * SECOND)
        if mono_ns - self._worker_heard_ns > stall_ns:
            self._worker_session = ""  # gone: items are kept, and sent to the one that comes
        oldest_ns = self.shard.judging.oldest_ns()
        oldest_s = 0.0 if oldest_ns is None else (now_ns - oldest_ns) / SECOND
        stalled = not self._worker_session or (oldest_s * SECOND > stall_ns and mono_ns - self._answered_ns > stall_ns)
        # A worker that answers nothing is away, not overloaded; what waited for it is no older to it than itself.
        here = oldest_ns is None or mono_ns - self._answered_ns < ANSWERING_NS
        asked_s = min(oldest_s, (mono_ns - self._given_ns) / SECOND)
        if not stalled and here and self.shard.live and self.shard.relief.look(asked_s, mono_ns):
            level = self.shard.relief.level
            log.warning("model_overloaded", level=level, text=TOLD[level], oldest_s=round(oldest_s, 2))
        stalled = stalled and mono_ns - self._began_ns > GRACE_NS
        calm = set(self.ingest.steady(now_ns, mono_ns, SIGNAL_LOST_S, STREAM_LATE_MS)) - self.shard.watched(stalled)
        uneasy = [bed for bed in self.ingest.beds() if bed not in calm]
        self.shard.watch(stalled, (self.ingest.account(bed, now_ns, mono_ns) for bed in uneasy))
        if self.shard.outbox.in_flight and mono_ns - self._offered_ns > GATEWAY_SILENT_NS:
            self._offered_ns = mono_ns
            self.shard.outbox.send_again()
        if self._due("greet", 1.0):
            self._greet()
        if self._due("metrics", 1.0):
            self._put_metrics()
            self.shard.forgo()
            for bed in self.ingest.vacant(mono_ns):
                if self.shard.release(bed):
                    self.ingest.forget(bed)

    def _tell_accounts(self) -> None:
        """The accounts of a tenth of the beds for each turn that is due, so that a thousand hold nothing up."""
        now_ns, mono_ns = time.time_ns(), time.monotonic_ns()
        turns = range(self._status_turn, min(mono_ns // STATUS_TURN_NS, self._status_turn + STATUS_TURNS))
        if not turns:
            return
        self._status_turn = mono_ns // STATUS_TURN_NS
        all_beds = self.ingest.beds()
        beds = [bed for turn in turns for bed in all_beds[turn % STATUS_TURNS :: STATUS_TURNS]]
        accounts = (self.ingest.account(bed, now_ns, mono_ns) for bed in beds)
        told = list(self.shard.status(accounts, self._latency.figures(mono_ns)))
        self._give(self._gateway, told)
        if self.metrics is not None:
            self._told.update((status.bed, status) for status in told)

    def _put_metrics(self) -> None:
        if self.metrics is None:
            return
        known = self.shard.beds
        self._told = {bed: status for bed, status in self._told.items() if bed in known}
        self.metrics.put(
            Snapshot(
                counts={"refused": self.refused, **{f"refused.{k}": n for k, n in self.ingest.refused.items()}},
                gauges={"waiting_items": len(self.shard.judging), "waiting_alerts": len(self.shard.outbox)},
                stages=self._latency.totals(),
                beds=list(self._told.values()),
            )
        )

    def _greet(self) -> None:
        greeting = wire.Greeting(shard=self._name, session=self._session, beds=self.shard.positions())
        self._give(self._worker, [greeting])
        self._give(self._gateway, [greeting])

    def _send(self) -> None:
        if self._worker_session:
            self._give(self._worker, self.shard.work())
        if not self.shard.outbox.in_flight:
            self._offered_ns = time.monotonic_ns()
        self._give(self._gateway, self.shard.outbox.unsent())
        messages, self.shard.messages = self.shard.messages, []
        self._give(self._gateway, messages)
        self._give(self._gateway, self._waves.blocks(time.monotonic_ns()))

    def _reply(self) -> None:
        """What sources are told, and the timers of what is missing: after all that has come was taken in."""
        for identity, reply in self.ingest.replies(time.time_ns(), time.monotonic_ns()):
            self._sources.send_multipart([identity, wire.encode(reply)], zmq.NOBLOCK)

    def _due(self, what: str, every_s: float) -> bool:
        now_ns = time.monotonic_ns()
        if now_ns < self._due_ns[what]:
            return False
        self._due_ns[what] = now_ns + round(every_s * SECOND)
        return True

    def _give(self, socket: zmq.Socket[bytes], messages: Iterable[wire.AnyMessage]) -> None:
        """Send messages, many to one ZeroMQ message; what a full socket does not take is dropped and counted.

        Items and alerts are kept until they are answered, and sent again; a judgement or numeric is gone."""
        messages = list(messages)
        for at in range(0, len(messages), FRAMES_AT_ONCE):
            part = messages[at : at + FRAMES_AT_ONCE]
            try:
                socket.send_multipart([wire.encode(message) for message in part], zmq.NOBLOCK, copy=False)
            except zmq.Again:
                self.shard.dropped(part)

    def _messages(self, socket: zmq.Socket[bytes]) -> Iterator[wire.AnyMessage]:
        while True:
            try:
                frames = socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return
            for frame in frames:
                try:
                    yield wire.decode(frame)
                except wire.WireError as error:
                    log.warning("frame_refused", cause=error.cause, text=str(error))


def _set_aside(path: Path, error: Exception) -> None:
    aside = path.with_suffix(".unfit")
    path.replace(aside)
    log.error("checkpoint_set_aside", path=str(aside), error=repr(error), mend="none needed: its beds start afresh")
