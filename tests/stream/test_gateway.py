"""The gateway: on disk first, once each, in order, and never held up by a journal or by bad frames."""

import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgpack
import msgspec
import pytest
import structlog
import zmq

from stream import wire
from stream.config import GatewaySettings, Settings, save
from stream.gateway.journal import Journal
from stream.process import BindError, bind
from stream.roles.gateway import Gateway, serve
from stream.wire import Action, AlertEvent, Alerts, Committed, Greeting, Moment, Stamps
from tests.stream.events import FS, alert, strip

SECOND = 1_000_000_000
AT = Moment(1000, FS)


class Bench:
    """A gateway that is stepped by hand, with a shard, a subscriber and an operator around it."""

    def __init__(self, folder: Path, port: Callable[[], int], journal: Journal | None = None) -> None:
        own = GatewaySettings(
            bind=f"tcp://127.0.0.1:{port()}",
            publish=f"tcp://127.0.0.1:{port()}",
            control=f"tcp://127.0.0.1:{port()}",
            journal=str(folder / "journal.sqlite"),
        )
        self.settings = Settings(gateway=own)
        self.journal = journal or Journal(Path(own.journal))
        self.later_ns = 0
        self.sockets: list[zmq.Socket[bytes]] = []
        sockets = [
            bind(zmq.ROUTER, "a", own.bind),
            bind(zmq.XPUB, "b", own.publish),
            bind(zmq.ROUTER, "c", own.control),
        ]
        self.gateway = Gateway(
            self.settings, self.journal, *sockets, monotonic_ns=lambda: time.monotonic_ns() + self.later_ns
        )
        self.shard = self.connect(zmq.DEALER, own.bind)
        self.operator = self.connect(zmq.DEALER, own.control)
        self.news = self.connect(zmq.SUB, own.publish)
        self.news.subscribe(b"")
        self.sockets += sockets
        self.published: list[tuple[str, int, wire.AnyMessage]] = []
        self.take(self.news)  # the gateway has heard of the subscriber

    def connect(self, kind: int, address: str) -> zmq.Socket[bytes]:
        socket = zmq.Context.instance().socket(kind)
        socket.setsockopt(zmq.LINGER, 0)
        socket.connect(address)
        self.sockets.append(socket)
        return socket

    def send(self, *messages: wire.AnyMessage, to: zmq.Socket[bytes] | None = None) -> None:
        (to or self.shard).send_multipart([wire.encode(message) for message in messages])

    def take(self, socket: zmq.Socket[bytes]) -> list[bytes]:
        """The next message for `socket`, while the gateway goes on."""
        until = time.monotonic() + 10
        while not socket.poll(0):
            assert time.monotonic() < until, "nothing came"
            self.gateway.step(5)
        return socket.recv_multipart()

    def answer(self, socket: zmq.Socket[bytes] | None = None) -> wire.AnyMessage:
        (frame,) = self.take(socket or self.shard)
        return wire.decode(frame)

    def settle(self, turns: int = 20) -> list[tuple[str, wire.AnyMessage]]:
        """Let the gateway do all there is to do; what it published meanwhile, but its own account."""
        for _ in range(turns):
            self.gateway.step(5)
        fresh = []
        while self.news.poll(20):
            topic, number, frame = self.news.recv_multipart()
            self.published.append((topic.decode(), int.from_bytes(number, "big"), wire.decode(frame)))
            if topic != b"gateway":
                fresh.append((topic.decode(), self.published[-1][2]))
        return fresh

    def account(self) -> dict[str, int]:
        """The gateway's latest account of itself."""
        self.settle()
        account = [message for topic, _, message in self.published if topic == "gateway"][-1]
        assert isinstance(account, wire.BedStatus)
        return account.counts

    def close(self) -> None:
        for socket in self.sockets:
            socket.close(0)
        self.journal.close()


@pytest.fixture
def bench(tmp_path: Path, free_port: Callable[[], int]) -> Iterator[Bench]:
    bench = Bench(tmp_path, free_port)
    yield bench
    bench.close()


def alerts(*events: AlertEvent | wire.Strip, first: int = 0, session: str = "s1") -> Alerts:
    return Alerts(shard="a", session=session, first=first, events=events)


def numeric(bed: str = "bed-1", hr: float = 70.0) -> wire.Numeric:
    return wire.Numeric(
        bed=bed, epoch="epoch-1", at=AT, hr=hr, pvc_per_min=0.0, rhythm="N", confidence=0.9, quality=(1.0,)
    )


def greeting(sample: int = 0, session: str = "s1", epoch: str = "epoch-1", bed: str = "bed-1") -> Greeting:
    return Greeting(shard="a", session=session, beds=((bed, epoch, sample),))


def action(number: int = 1, kind: str = "acknowledge", **changes: object) -> Action:
    return Action(**{"id": f"act-{number}", "bed": "bed-1", "kind": kind, "who": "nurse", "at_ns": 5} | changes)


def test_an_alert_is_committed_answered_and_published_with_its_stamps(bench: Bench) -> None:
    bench.send(alerts(alert(), alert("a2")))
    assert bench.answer() == Committed(session="s1", until=2)
    ((topic, first), (_, second)) = bench.settle()
    assert (topic, first.alert_id, second.alert_id) == ("alert.bed-1", "a1", "a2")
    (kept, _) = bench.journal.query()
    assert kept == msgspec.structs.replace(first, stamps=msgspec.structs.replace(first.stamps, published=0))
    assert 2_000 < first.stamps.committed <= first.stamps.published
    assert first.emit_time.startswith("20")
    assert first.emit_time.endswith("Z")


def test_a_strip_is_committed_with_the_alerts_and_given_to_who_asks(bench: Bench) -> None:
    bench.send(alerts(alert(), strip("a1")))
    assert bench.answer() == wire.Committed(session="s1", until=2)
    bench.send(wire.StripRequest(id="a1"), to=bench.operator)
    given = bench.answer(bench.operator)
    assert isinstance(given, wire.Strip)
    assert bytes(given.data) == bytes(strip("a1").data)
    bench.send(wire.StripRequest(id="a2"), to=bench.operator)
    refused = bench.answer(bench.operator)
    assert isinstance(refused, wire.Reply)
    assert not refused.ok and "no strip 'a2' is kept" in refused.text
    assert [topic for topic, _ in bench.settle()] == ["alert.bed-1"], "strips are not published"


def test_nothing_of_an_alert_is_published_before_it_is_on_disk(tmp_path: Path, free_port: Callable[[], int]) -> None:
    class Watched(Journal):
        """Looks at the publisher from within each commit."""

        def append(self, events, *rest):  # type: ignore[no-untyped-def]
            seen.append(bool(events) and bool(bench.news.poll(100)))
            new = super().append(events, *rest)
            with Journal(self.path, read_only=True) as reader:
                on_disk.extend(event.event_id for event in reader.query())
            return new

    seen: list[bool] = []
    on_disk: list[str] = []
    bench = Bench(tmp_path, free_port, Watched(tmp_path / "journal.sqlite"))
    bench.settle()
    bench.send(alerts(alert()))
    assert [message.event_id for _, message in bench.settle()] == ["a1.0"]
    assert not any(seen)
    assert on_disk == ["a1.0"]
    bench.close()


def test_an_alert_sent_again_is_answered_again_and_published_once(bench: Bench) -> None:
    for _ in range(3):
        bench.send(alerts(alert()))
        assert bench.answer() == Committed(session="s1", until=1)
    bench.send(alerts(alert(), alert("a2"), first=0))
    assert bench.answer() == Committed(session="s1", until=2)
    assert [message.alert_id for _, message in bench.settle()] == ["a1", "a2"]
    assert bench.gateway.counts["events_repeated"] == 3


def test_a_shard_that_starts_again_and_sends_its_old_alerts_in_a_new_session_doubles_nothing(bench: Bench) -> None:
    bench.send(alerts(alert(), alert("a2")))
    bench.settle()
    bench.answer()
    bench.send(alerts(alert("a2"), alert("a3"), session="s2"))
    assert bench.answer() == Committed(session="s2", until=2)
    assert [message.alert_id for _, message in bench.settle()] == ["a3"]


def test_what_comes_before_an_alert_that_is_missing_waits_for_it(bench: Bench) -> None:
    bench.send(alerts(alert("a2"), first=1))
    assert bench.settle() == []
    assert not bench.shard.poll(0)
    bench.send(alerts(alert("a1"), alert("a2"), first=0))
    assert bench.answer() == Committed(session="s1", until=2)
    assert [message.alert_id for _, message in bench.settle()] == ["a1", "a2"]


def test_where_the_journal_was_moved_away_a_shard_is_believed_after_a_while(bench: Bench) -> None:
    bench.send(alerts(alert("a7"), first=7))
    bench.settle()
    bench.later_ns += 6 * SECOND
    bench.send(alerts(alert("a8"), first=8))  # not the oldest that the shard has: still no reason to go on
    assert bench.settle() == []
    bench.send(alerts(alert("a7"), alert("a8"), first=7))
    assert bench.answer() == Committed(session="s1", until=9)
    assert [message.alert_id for _, message in bench.settle()] == ["a7", "a8"]
    assert bench.gateway.counts["alerts_missing"] == 1


def test_publications_are_numbered_without_a_hole_and_in_the_order_they_came(bench: Bench) -> None:
    for i in range(50):
        bench.send(numeric(hr=float(i)), alerts(alert(f"a{i}"), first=i))
    news = bench.settle(40)
    assert [message.hr if topic == "numeric.bed-1" else message.alert_id for topic, message in news] == [
        what for i in range(50) for what in (float(i), f"a{i}")
    ]
    numbers = [number for _, number, _ in bench.published]
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))


def test_a_snapshot_is_what_stands_at_its_publish_number(bench: Bench) -> None:
    bench.send(
        alerts(alert("stands"), alert("over"), alert("over", 1, "inactive"), alert("latched", 1, "latched")),
        numeric(hr=60.0),
        numeric(hr=61.0),
        numeric("bed-2", hr=80.0),
    )
    bench.send(wire.SnapshotRequest(), to=bench.operator)
    bench.settle()
    snapshot = bench.answer(bench.operator)
    assert isinstance(snapshot, wire.Snapshot)
    shown = {message.alert_id: message for _, n, message in bench.published if isinstance(message, AlertEvent)}
    if snapshot.published < bench.published[-1][1]:  # it was asked for before the alerts came
        bench.send(wire.SnapshotRequest(), to=bench.operator)
        snapshot = bench.answer(bench.operator)
    assert snapshot.alerts == (shown["stands"], shown["latched"])
    assert {one.bed: one.hr for one in snapshot.numerics} == {"bed-1": 61.0, "bed-2": 80.0}


def test_a_large_snapshot_comes_as_several_frames_of_one_number(bench: Bench) -> None:
    events = [alert(f"a{i}", evidence={"text": "x" * 900}) for i in range(1200)]
    bench.journal.append(events)
    bench.gateway.register.active.update({event.alert_id: event for event in events})
    bench.send(wire.SnapshotRequest(), to=bench.operator)
    parts = [wire.decode(frame) for frame in bench.take(bench.operator)]
    assert len(parts) > 1
    assert len({part.published for part in parts}) == 1
    assert [event.alert_id for part in parts for event in part.alerts] == [event.alert_id for event in events]


def test_a_subscriber_that_comes_is_greeted_at_once(bench: Bench) -> None:
    late = bench.connect(zmq.SUB, bench.settings.gateway.publish)
    bench.gateway._status_due_ns = 1 << 62
    late.subscribe(b"")
    topic, _, frame = bench.take(late)
    assert topic == b"gateway"
    assert wire.decode(frame).shard == "gateway"


def test_a_subscriber_that_takes_nothing_holds_nobody_up(bench: Bench) -> None:
    stuck = zmq.Context.instance().socket(zmq.SUB)
    stuck.setsockopt(zmq.RCVHWM, 1)
    stuck.setsockopt(zmq.RCVBUF, 4096)
    stuck.subscribe(b"")
    stuck.connect(bench.settings.gateway.publish)
    bench.sockets.append(stuck)
    bench.take(stuck)
    truth = wire.Truth(bed="bed-1", epoch="e", samples=(1,) * 500, symbols=("N",) * 500, notes=("",) * 500)
    for _ in range(20_000):  # some 30 MB, and twice as many as a queue holds
        bench.gateway._publish(truth)
        while bench.news.poll(0):
            bench.news.recv_multipart()
    bench.send(alerts(alert()))
    assert bench.answer() == Committed(session="s1", until=1)
    assert [message.alert_id for topic, message in bench.settle() if topic == "alert.bed-1"] == ["a1"]


def test_an_action_is_journalled_sent_to_the_shard_of_the_bed_published_and_answered(bench: Bench) -> None:
    bench.send(greeting(), alerts(alert()))
    bench.answer()
    bench.settle()
    bench.send(action(alert_id="a1"), to=bench.operator)
    told = bench.answer()
    assert (told.id, told.epoch, told.sample, told.who) == ("act-1", "epoch-1", None, "nurse")
    assert told.at_ns > 10**18  # by our clock, not by the client's
    assert bench.answer(bench.operator) == wire.Reply(id="act-1", ok=True, text="the shard has it")
    assert bench.settle() == [("action.bed-1", told)]
    assert list(bench.journal.actions()) == [told]

    applied = msgspec.structs.replace(told, sample=4321)
    bench.send(applied)
    bench.send(applied)
    assert bench.settle() == [("action.bed-1", applied)]
    assert list(bench.journal.actions()) == [applied]


def test_an_action_sent_twice_is_done_once(bench: Bench) -> None:
    bench.send(greeting())
    bench.settle()
    bench.send(action(kind="audio_pause", until_s=120.0), to=bench.operator)
    bench.send(action(kind="audio_pause", until_s=120.0), to=bench.operator)
    assert [bench.answer(bench.operator).text for _ in range(2)] == ["the shard has it", "done before"]
    assert [topic for topic, _ in bench.settle()] == ["action.bed-1"]
    bench.answer()
    assert not bench.shard.poll(50)


@pytest.mark.parametrize(
    ("refused", "why"),
    [
        (action(bed="bed-9"), "bed: 'bed-9' is not monitored now; known: bed-1"),
        (action(alert_id="a9"), "alert_id: 'a9' does not stand at bed 'bed-1'"),
        (action(kind="audio_pause"), "until_s: audio_pause needs the seconds it lasts"),
        (action(kind="alarm_pause", until_s=-1.0), "until_s: -1.0 is outside 0 to 1800 s"),
        (action(kind="audio_pause", until_s=601.0), "until_s: 601.0 is outside 0 to 600 s, the longest audio_pause"),
        (action(kind="alarms_on", until_s=60.0), "until_s: goes with audio_pause, alarm_pause, alarms_off, not with"),
        (action(kind="audio_pause", until_s=float("nan")), "until_s: nan is outside"),
        (action(kind="audio_pause", until_s=60.0, alert_id="a1"), "alert_id: goes with acknowledge"),
        (action(kind="limits"), "limits: goes with the action limits"),
        (action(limits={"HR_HIGH": {"limit": 130}}), "limits: goes with the action limits"),
        (action(kind="limits", limits={"HR_HIGH": {"limit": 900}}), "HR_HIGH.limit"),
        (action(kind="limits", limits={"HR_HIHG": {"limit": 130}}), "HR_HIHG: no such alarm"),
        (action(kind="limits", limits={"HR_LOW": {"limit": 105}}), "HR_LOW.limit: 105 is not below HR_HIGH.limit 100"),
    ],
)
def test_an_action_that_makes_no_sense_is_refused_with_the_reason_and_goes_nowhere(
    bench: Bench, refused: Action, why: str
) -> None:
    bench.send(greeting(), alerts(alert()))
    bench.answer()
    bench.send(action(99, "limits", limits={"HR_HIGH": {"limit": 100}}), to=bench.operator)
    assert bench.answer(bench.operator).ok
    bench.answer()
    bench.settle()
    bench.send(refused, to=bench.operator)
    reply = bench.answer(bench.operator)
    assert (reply.id, reply.ok) == (refused.id, False)
    assert why in reply.text
    assert bench.settle() == []
    assert not bench.shard.poll(0)
    assert len(list(bench.journal.actions())) == 1


def test_a_shard_that_starts_again_is_given_back_what_it_missed_once(bench: Bench) -> None:
    before = action(0, "limits", limits={"HR_LOW": {"limit": 45}}, epoch="epoch-0", sample=77)
    limits = action(1, "limits", limits={"HR_HIGH": {"limit": 130}}, epoch="epoch-1", sample=100)
    known = action(2, epoch="epoch-1", sample=150)
    missed = action(3, epoch="epoch-1", sample=900)
    bench.journal.append([], [before, limits, known, missed])
    outlived = msgspec.structs.replace(before, epoch="epoch-1", sample=None)
    bench.send(greeting(sample=500))
    assert [wire.decode(frame) for frame in bench.take(bench.shard)] == [outlived, limits, missed]
    bench.send(greeting(sample=600))
    bench.settle()
    assert not bench.shard.poll(50)
    bench.send(greeting(sample=600, session="s2"))
    assert [wire.decode(frame) for frame in bench.take(bench.shard)] == [outlived, limits, missed]


def test_an_action_for_a_bed_whose_shard_is_away_is_kept_for_it(bench: Bench) -> None:
    bench.send(greeting())
    bench.settle()
    bench.shard.close(0)
    asked = action(kind="limits", limits={"HR_HIGH": {"limit": 130}})
    text = "the shard has it"
    while text == "the shard has it":  # until the gateway's socket has noticed
        bench.settle(5)
        asked = msgspec.structs.replace(asked, id=asked.id + "+")
        bench.send(asked, to=bench.operator)
        text = bench.answer(bench.operator).text
    assert text == "kept until the bed's shard is there"
    bench.shard = bench.connect(zmq.DEALER, bench.settings.gateway.bind)
    bench.send(greeting(session="s2"))
    assert asked.id in [wire.decode(frame).id for frame in bench.take(bench.shard)]


def test_a_locked_journal_holds_up_alerts_and_nothing_else(bench: Bench) -> None:
    other = sqlite3.connect(bench.settings.gateway.journal, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with structlog.testing.capture_logs() as logs:
        bench.send(greeting(), numeric(), alerts(alert()))
        bench.send(action(kind="audio_pause", until_s=60.0), to=bench.operator)
        assert [topic for topic, _ in bench.settle()] == ["numeric.bed-1"]
        assert bench.answer(bench.operator) == wire.Reply(
            id="act-1", ok=False, text="the journal cannot be written now; try again"
        )
    assert not bench.shard.poll(0)
    (failure,) = [entry for entry in logs if entry["event"] == "journal_failed"]
    assert "database is locked" in failure["error"]
    assert failure["log_level"] == "warning"
    assert bench.gateway.counts["events_committed"] == 0
    other.execute("ROLLBACK")
    other.close()
    bench.later_ns += SECOND
    bench.send(alerts(alert()))
    assert bench.answer() == Committed(session="s1", until=1)
    assert [topic for topic, _ in bench.settle()] == ["alert.bed-1"]


def test_where_the_journal_fails_for_long_alerts_are_shown_once_and_committed_when_it_can_be_written(
    bench: Bench,
) -> None:
    first, second, third = (alert(f"red{n}", bed="bed-1") for n in range(3))
    other = sqlite3.connect(bench.settings.gateway.journal, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    bench.send(greeting(), alerts(first))
    assert bench.settle() == []
    bench.later_ns += 3 * SECOND
    bench.send(alerts(first))  # as the shard sends it again
    ((topic, shown),) = [(topic, message) for topic, message in bench.settle() if topic.startswith("alert")]
    assert topic == "alert.bed-1"
    assert (shown.alert_id, shown.stamps.committed) == ("red0", 0)
    assert bench.answer() == Committed(session="s1", until=0)  # the gateway is there; nothing is on disk
    bench.send(alerts(second, first=1), alerts(first, second))
    assert [m.alert_id for topic, m in bench.settle() if topic.startswith("alert")] == ["red1"]
    assert {event.alert_id for event in bench.gateway.register.active.values()} == {"red0", "red1"}
    bench.later_ns += 2 * SECOND
    assert bench.account()["events_unrecorded"] == 2
    assert list(bench.journal.query()) == []

    other.execute("ROLLBACK")
    other.close()
    bench.later_ns += SECOND
    while bench.shard.poll(0):
        bench.shard.recv_multipart()
    bench.send(alerts(first, second, third))
    assert bench.answer() == Committed(session="s1", until=3)
    assert [m.alert_id for topic, m in bench.settle() if topic.startswith("alert")] == ["red2"]
    assert [event.alert_id for event in bench.journal.query()] == ["red0", "red1", "red2"]
    bench.later_ns += 2 * SECOND
    assert bench.account()["events_unrecorded"] == 0


def test_what_the_gateway_itself_had_to_say_is_kept_until_the_journal_can_be_written(bench: Bench) -> None:
    bench.send(greeting(), alerts(alert("red", bed="bed-1", epoch="old")))
    bench.settle()
    other = sqlite3.connect(bench.settings.gateway.journal, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    for _ in range(3):  # the shard no longer has the epoch of the alert: the gateway ends it
        bench.send(greeting())
        bench.settle()
        bench.later_ns += 6 * SECOND
    other.execute("ROLLBACK")
    other.close()
    bench.later_ns += SECOND
    bench.settle()
    assert [event.phase for event in bench.journal.query()] == ["start", "end"]


def test_a_locked_journal_loses_no_echo_of_an_action(bench: Bench) -> None:
    echo = action(epoch="epoch-1", sample=7)
    other = sqlite3.connect(bench.settings.gateway.journal, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    bench.send(echo)
    assert bench.settle() == []
    other.execute("ROLLBACK")
    other.close()
    bench.later_ns += SECOND
    assert bench.settle() == [("action.bed-1", echo)]


FUTURE = msgpack.packb({"t": "numeric", "v": 99})


@pytest.mark.parametrize(
    ("frame", "count"),
    [
        (b"\xc1 garbage", "refused_garbage"),
        (b"", "refused_garbage"),
        (FUTURE, "refused_version"),
        (wire.encode(wire.Hello(source="s", session="x", speed=1)), "refused_field"),
        (msgpack.packb({"t": "numeric", "v": 1, "bed": ""}), "refused_field"),
    ],
)
def test_a_bad_frame_from_anywhere_is_refused_counted_and_logged_once_a_second(
    bench: Bench, frame: bytes, count: str
) -> None:
    with structlog.testing.capture_logs() as logs:
        for _ in range(30):
            bench.shard.send_multipart([b"x", frame] if not frame else [frame])
            bench.operator.send_multipart([b"", frame])
        bench.send(numeric())
        assert [topic for topic, _ in bench.settle(60)] == ["numeric.bed-1"]
    assert bench.gateway.counts[count] >= 60
    assert 1 <= len([entry for entry in logs if entry["event"] == count]) <= 5
    assert wire.decode(bench.operator.recv_multipart()[-1]).ok is False


def test_the_answer_to_an_action_that_cannot_be_read_has_its_id(bench: Bench) -> None:
    bench.operator.send_multipart([b"", frame_with(action(7), kind="mute")])
    bench.settle()
    reply = wire.decode(bench.operator.recv_multipart()[-1])
    assert (reply.id, reply.ok) == ("act-7", False)
    assert "kind: 'mute' refused" in reply.text


def frame_with(message: wire.AnyMessage, **raw: object) -> bytes:
    return msgpack.packb(msgpack.unpackb(wire.encode(message)) | raw)


EVENT = msgpack.unpackb(wire.encode(alerts(alert("bad"))))["events"][0]
EXTRA = msgpack.ExtType(5, b"1")


@pytest.mark.parametrize(
    ("frame", "named"),
    [
        (wire.encode(alerts(alert("bad", onset=Moment(2**63, FS)))), "onset.sample"),
        (wire.encode(alerts(alert("bad", onset=Moment(-(2**53) - 1, FS)))), "onset.sample"),
        (wire.encode(alerts(alert("bad", stream_time=Moment(1, float("nan"))))), "stream_time.fs"),
        (wire.encode(alerts(alert("bad"), first=2**63 - 1)), "first"),
        (frame_with(alerts(alert("bad")), events=[EVENT | {"evidence": {"x": EXTRA}}]), "evidence"),
        (frame_with(alerts(alert("bad")), events=[EVENT | {"ack": {"x": EXTRA}}]), "ack"),
        (frame_with(action(), sample=2**63), "sample"),
        (frame_with(action(), limits={"HR_HIGH": {"limit": EXTRA}}), "limits"),
    ],
)
def test_what_the_journal_could_not_keep_is_refused_and_the_rest_is_kept(
    bench: Bench, frame: bytes, named: str
) -> None:
    with structlog.testing.capture_logs() as logs:
        bench.shard.send_multipart([frame, wire.encode(alerts(alert("good")))])
        assert bench.answer() == Committed(session="s1", until=1)
    assert [event.alert_id for event in bench.journal.query()] == ["good"]
    (said,) = [entry for entry in logs if entry["event"] == "refused_field"]
    assert said["count"] == 1 and named in said["text"]


def test_a_client_whose_limits_are_no_json_is_told_so(bench: Bench) -> None:
    bench.operator.send(frame_with(action(kind="limits"), limits={"HR_HIGH": {"limit": EXTRA}}))
    reply = bench.answer(bench.operator)
    assert not reply.ok and "limits: {'HR_HIGH'" in reply.text and "cannot be kept as JSON" in reply.text


def test_alerts_of_an_epoch_that_its_shard_no_longer_has_end_after_a_while_and_say_why(bench: Bench) -> None:
    low = alert("low", epoch="epoch-0", latching=False, priority="low")
    bench.send(alerts(alert("red", epoch="epoch-0"), low, alert("new")))
    bench.answer()
    bench.send(greeting())
    bench.settle()
    bench.later_ns += 9 * SECOND
    bench.send(greeting())
    assert bench.settle() == []
    bench.later_ns += 2 * SECOND
    bench.send(greeting())
    ends = {message.alert_id: message for _, message in bench.settle()}
    assert {name: (end.phase, end.state, end.seq) for name, end in ends.items()} == {
        "red": ("end", "latched", 1),
        "low": ("end", "inactive", 1),
    }
    assert ends["red"].event_id == "red-1.gateway"
    assert ends["red"].reason == "the source started again"
    assert set(bench.gateway.register.active) == {"red", "new"}

    bench.send(action(alert_id="red"), to=bench.operator)
    assert bench.answer(bench.operator).ok
    assert [topic for topic, _ in bench.settle()] == ["action.bed-1"]  # the shard may still have it
    bench.later_ns += 3 * SECOND
    (reset,) = [message for topic, message in bench.settle() if topic == "alert.bed-1"]
    assert (reset.phase, reset.state, reset.seq, reset.ack["by"]) == ("reset", "inactive", 2, "nurse")
    assert [event.alert_id for event in bench.journal.active()] == ["new"]


def test_a_latched_alert_that_a_shard_took_over_into_a_new_epoch_is_reset_by_the_shard_alone(bench: Bench) -> None:
    bench.send(alerts(alert("red", 1, "latched", epoch="epoch-0")), greeting())
    bench.answer()
    bench.settle()
    bench.send(action(alert_id="red"), to=bench.operator)
    assert bench.answer(bench.operator).ok
    bench.answer()
    bench.send(alerts(alert("red", 2, "inactive", epoch="epoch-0"), first=1))
    bench.settle()
    bench.later_ns += 3 * SECOND
    assert bench.settle() == []
    assert [event.event_id for event in bench.journal.query()] == ["red.1", "red.2"]


def test_an_alert_of_a_bed_that_no_shard_has_can_be_acknowledged(bench: Bench) -> None:
    left = alert("left", 1, "latched", bed="bed-7")
    bench.journal.append([left])
    bench.gateway.register.settle(left)
    bench.send(action(bed="bed-7"), to=bench.operator)
    assert bench.answer(bench.operator).ok
    bench.later_ns += SECOND
    assert [message.phase for topic, message in bench.settle() if topic == "alert.bed-7"] == ["reset"]
    assert bench.journal.active() == []


def test_latency_by_stage_is_published_once_a_second(bench: Bench) -> None:
    now_ns = time.time_ns()
    stamps = Stamps(received=now_ns - 300_000_000, decided=now_ns - 100_000_000)
    bench.send(alerts(alert(stamps=stamps)))
    bench.settle()
    bench.later_ns += SECOND
    bench.settle()
    account = [message for topic, _, message in bench.published if topic == "gateway"][-1]
    p50, p99 = account.latency_ms["received>decided"]
    assert 180 < p50 <= p99 < 220
    assert set(account.latency_ms) == {"received>decided", "decided>committed", "committed>published"}
    assert account.counts["events_committed"] == 1
    assert account.counts["alerts_standing"] == 1


@pytest.mark.parametrize("setting", ["bind", "publish", "control"])
def test_a_port_that_is_taken_is_refused_by_the_name_of_its_setting(
    tmp_path: Path, free_port: Callable[[], int], setting: str
) -> None:
    addresses = {name: f"tcp://127.0.0.1:{free_port()}" for name in ("bind", "publish", "control")}
    settings = Settings(gateway=GatewaySettings(journal=str(tmp_path / "journal.sqlite"), **addresses))
    with (
        bind(zmq.ROUTER, "other", addresses[setting]),
        pytest.raises(BindError, match=rf"gateway\.{setting}: {addresses[setting]} cannot be bound .*another port"),
    ):
        serve(settings)


SERVE = (
    "import sys; from stream.config import load; from stream.roles import gateway; "
    "sys.exit(gateway.serve(load(sys.argv[1])))"
)


def start(settings: Path) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    return subprocess.Popen([sys.executable, "-c", SERVE, str(settings)], env=environment, stdout=subprocess.DEVNULL)


def test_a_gateway_killed_again_and_again_loses_and_doubles_no_alert(
    tmp_path: Path, free_port: Callable[[], int]
) -> None:
    """A shard that sends again what was not committed, as shards do, against a real process."""
    addresses = {name: f"tcp://127.0.0.1:{free_port()}" for name in ("bind", "publish", "control")}
    own = GatewaySettings(journal=str(tmp_path / "journal.sqlite"), **addresses)
    save(Settings(gateway=own), tmp_path / "settings.json")
    events = [alert(f"a{i // 3}", i % 3, bed=f"bed-{i % 5}") for i in range(3000)]
    shard = zmq.Context.instance().socket(zmq.DEALER)
    shard.setsockopt(zmq.LINGER, 0)
    shard.setsockopt(zmq.RECONNECT_IVL, 20)
    shard.connect(own.bind)
    child = start(tmp_path / "settings.json")
    committed, sent, heard, kills = 0, 0, time.monotonic(), [300, 900, 1500, 2100, 2700]
    until = time.monotonic() + 60
    try:
        while committed < len(events):
            assert time.monotonic() < until
            if sent < min(len(events), committed + 200):
                part = tuple(events[sent : sent + 7])
                shard.send(wire.encode(alerts(*part, first=sent)))
                sent += len(part)
            if shard.poll(1 if sent < committed + 200 else 20):
                committed, heard = max(committed, wire.decode(shard.recv()).until), time.monotonic()
            if time.monotonic() - heard > 0.3:
                sent, heard = committed, time.monotonic()
            if kills and committed > kills[0]:
                kills.pop(0)
                child.kill()
                child.wait()
                child = start(tmp_path / "settings.json")
        child.send_signal(signal.SIGTERM)
        assert child.wait(10) == 0
    finally:
        child.kill()
        child.wait()
        shard.close(0)
    assert not kills
    with Journal(Path(own.journal), read_only=True) as journal:
        assert [event.event_id for event in journal.query()] == [event.event_id for event in events]
        assert len(journal.active()) == 1000
