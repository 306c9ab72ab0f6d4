import itertools
import threading
import time
from collections.abc import Iterator
from typing import Any

import msgpack
import pytest
import zmq

from simulators.source import Source, dealer
from stream.process import bind
from stream.transport.ingest import Event, Ingest
from stream.wire import (
    Ack,
    AnyMessage,
    End,
    Hello,
    Lost,
    Probe,
    ProbeReply,
    Refused,
    Resend,
    Truth,
    Waveform,
    WireError,
    decode,
    encode,
)
from tests.lossy import SECOND, Clock, N, Network, Ward, checked, packet


class Line:
    """A source at a network that loses nothing, and a shard played by hand."""

    def __init__(self, credit: int = 1000, **source: Any) -> None:
        self.clock = Clock()
        self.network = Network()
        self.source = Source(
            "source-1", "", session="s1", socket=self.network, clock_ns=self.clock.source_ns,
            mono_ns=self.clock.mono_ns, **source,
        )  # type: ignore[arg-type]  # fmt: skip
        self.sent()
        self.ack(credit)

    def say(self, *messages: AnyMessage) -> None:
        self.network.down += [encode(message) for message in messages]
        self.source.poll(0)

    def ack(self, credit: int, *durable: tuple[str, str, int], shard: str = "shard-1") -> None:
        self.say(Ack(session="s1", shard=shard, credit=credit, received=0, durable=durable))

    def sent(self, after_s: float = 0.0) -> list[AnyMessage]:
        """What has gone out, hellos left aside, after that time with a look at the socket each 100 ms."""
        for _ in range(round(after_s * 10)):
            self.clock.ns += SECOND // 10
            self.source.poll(0)
        frames, self.network.up = self.network.up, []
        return [message for message in map(decode, frames) if not isinstance(message, Hello)]

    def firsts(self, after_s: float = 0.0) -> list[int]:
        return [message.first // N for message in self.sent(after_s) if isinstance(message, Waveform)]


def test_a_source_says_hello_at_once_and_then_each_second() -> None:
    clock, network = Clock(), Network()
    source = Source("source-1", "", session="s1", socket=network, clock_ns=clock.utc_ns, mono_ns=clock.mono_ns)  # type: ignore[arg-type]
    assert [decode(frame) for frame in network.up] == [Hello(source="source-1", session="s1", speed=1.0, sent=0)]
    for _ in range(35):
        clock.ns += SECOND // 10
        source.poll(0)
    assert len(network.up) == 4


def test_nothing_goes_out_before_there_is_credit() -> None:
    line = Line(credit=0)
    line.source.send([packet(0), packet(1), packet(2)])
    assert line.firsts() == []
    line.ack(2)
    assert line.firsts() == [0, 1]
    line.ack(3)
    assert line.firsts() == [2]


def test_a_packet_is_stamped_when_it_is_taken_over() -> None:
    line = Line()
    line.source.send([packet(0), packet(1, sent_ns=77)])
    assert [message.sent_ns for message in line.sent() if isinstance(message, Waveform)] == [line.clock.utc_ns(), 77]


def test_the_epochs_of_a_bed_are_numbered() -> None:
    line = Line()
    line.source.send([packet(0), packet(0, bed="bed-2"), packet(1), packet(0, epoch="e2")])
    line.source.send([packet(1, epoch="e2"), packet(0, epoch="e3")])
    numbers = [(message.bed, message.epoch_n) for message in line.sent() if isinstance(message, Waveform)]
    assert [number for bed, number in numbers if bed == "bed-1"] == [1, 1, 2, 2, 3]
    assert ("bed-2", 1) in numbers


def test_a_replay_waits_for_credit_and_says_when_it_got_none() -> None:
    line = Line(credit=1, speed=0.0)
    line.source._mono_ns = itertools.count(line.clock.ns, SECOND // 100).__next__
    assert not line.source.send([packet(0), packet(1)], timeout_s=1.0)
    line.ack(2)
    assert line.source.send((), timeout_s=1.0)
    assert line.firsts() == [0, 1]


def test_a_replay_waits_until_the_shard_has_made_room() -> None:
    line = Line(speed=0.0, retain_bytes=20_000, retain_s=1.0)
    line.source._mono_ns = itertools.count(line.clock.ns, SECOND // 100).__next__
    assert not line.source.send([packet(seq) for seq in range(100)], timeout_s=0.5)
    line.ack(1000, ("bed-1", "e1", 90 * N))
    assert line.source.send((), timeout_s=0.5)
    assert line.source.counts()["bed-1"]["retained"] < 60


def test_a_resend_goes_back_and_everything_after_it_comes_again() -> None:
    line = Line()
    line.source.send([packet(seq) for seq in range(10)])
    assert line.firsts() == list(range(10))
    line.say(Resend(bed="bed-1", epoch="e1", first=7 * N + 3))
    assert line.firsts() == [7, 8, 9]
    counts = line.source.counts()["bed-1"]
    assert (counts["sent"], counts["resent"]) == (10, 3)


def test_a_resend_of_what_is_on_its_way_anyway_changes_nothing() -> None:
    line = Line(credit=5)
    line.source.send([packet(seq) for seq in range(10)])
    line.sent()
    line.say(Resend(bed="bed-1", epoch="e1", first=7 * N), Resend(bed="bed-1", epoch="e1", first=5 * N))
    line.ack(10)
    assert line.firsts() == [5, 6, 7, 8, 9]


def test_a_resend_of_what_was_forgotten_is_answered_with_the_loss() -> None:
    line = Line(retain_s=0.0)
    line.source.send([packet(seq) for seq in range(10)])
    line.ack(1000, ("bed-1", "e1", 6 * N))
    line.sent()
    line.say(Resend(bed="bed-1", epoch="e1", first=2 * N))
    lost, *rest = line.sent()
    assert lost == Lost(bed="bed-1", epoch="e1", first=2 * N, n=4 * N, cause="forgotten")
    assert [message.first // N for message in rest if isinstance(message, Waveform)] == [6, 7, 8, 9]


@pytest.mark.parametrize(("bed", "epoch"), [("bed-1", "e0"), ("bed-9", "e1")])
def test_a_resend_of_what_was_never_there_is_answered_too(bed: str, epoch: str) -> None:
    line = Line()
    line.source.send([packet(0)])
    line.sent()
    line.say(Resend(bed=bed, epoch=epoch, first=5))
    lost, *again = line.sent()
    assert lost == Lost(bed=bed, epoch=epoch, first=5, n=0, cause="unknown")
    assert len(again) == (bed == "bed-1")  # all of a bed that is not durable


def test_a_resend_reaches_back_across_the_end_of_an_epoch() -> None:
    line = Line()
    line.source.send([packet(0), End(bed="bed-1", epoch="e1", n_samples=N), packet(0, epoch="e2")])
    line.sent()
    line.say(Resend(bed="bed-1", epoch="e1", first=N))
    assert [type(message) for message in line.sent()] == [End, Waveform]
    line.say(Resend(bed="bed-1", epoch="e1", first=0))
    assert [type(message) for message in line.sent()] == [Waveform, End, Waveform]


def test_an_epoch_that_was_cut_short_is_said_to_have_no_more() -> None:
    line = Line()
    line.source.send([packet(0), packet(0, epoch="e2")])
    line.sent()
    line.say(Resend(bed="bed-1", epoch="e1", first=N))
    lost, again = line.sent()
    assert lost == Lost(bed="bed-1", epoch="e1", first=N, n=0, cause="unknown")
    assert isinstance(again, Waveform) and again.epoch == "e2"


def test_sixty_seconds_are_kept_even_when_they_are_durable() -> None:
    line = Line(credit=10_000)
    line.source.send([packet(seq) for seq in range(1000)])
    line.ack(10_000, ("bed-1", "e1", 1000 * N))
    assert line.source.counts()["bed-1"]["retained"] in (600, 601)
    assert line.source.pending() == 0


def test_what_is_not_durable_is_kept_however_old_it_is() -> None:
    line = Line(credit=10_000)
    line.source.send([packet(seq) for seq in range(1000)])
    line.ack(10_000, ("bed-1", "e1", 0))
    assert line.source.counts()["bed-1"]["retained"] == 1000


def test_a_newer_epoch_that_is_durable_makes_the_older_ones_so() -> None:
    line = Line()
    line.source.send([packet(0), packet(1), packet(0, epoch="e2"), packet(1, epoch="e2")])
    line.ack(1000, ("bed-1", "e2", N))
    assert line.source.pending() == 1
    line.ack(1000, ("bed-1", "e0", 100 * N))
    assert line.source.pending() == 1


def test_after_a_restart_of_the_shard_all_that_is_not_durable_is_offered_again() -> None:
    line = Line()
    line.source.send([packet(seq) for seq in range(10)])
    line.ack(1000, ("bed-1", "e1", 4 * N))
    line.sent()
    line.ack(1000, shard="shard-2")
    assert line.firsts() == [4, 5, 6, 7, 8, 9]


def test_a_live_source_gives_up_what_it_could_not_send_in_time_and_says_so() -> None:
    line = Line(credit=2, live_age_s=5.0)
    for seq in range(80):
        line.source.send([packet(seq)])
        line.clock.ns += SECOND // 10
        line.source.poll(0)
    line.ack(1000)
    out = line.sent()
    losses = [message for message in out if isinstance(message, Lost)]
    assert losses and losses[0].first == 2 * N
    assert all(a.first + a.n == b.first for a, b in itertools.pairwise(losses))  # type: ignore[operator]
    waves = [message.first // N for message in out if isinstance(message, Waveform)]
    n_lost = sum(message.n for message in losses)
    assert waves == [0, 1, *range(2 + n_lost // N, 80)]
    assert 25 * N <= n_lost <= 32 * N
    assert line.source.counts()["bed-1"]["lost"] == n_lost


def test_a_live_source_that_runs_out_of_room_gives_up_its_oldest() -> None:
    line = Line(credit=0, retain_bytes=20_000)
    line.source.send([packet(seq) for seq in range(200)])
    out = line.sent(1.0)
    line.ack(1000)
    lost, *waves = out + line.sent()
    kept = [message.first // N for message in waves if isinstance(message, Waveform)]
    assert kept == list(range(kept[0], 200)) and len(kept) in range(25, 45)
    assert lost == Lost(bed="bed-1", epoch="e1", first=0, n=kept[0] * N, cause="no room")


def test_a_replay_gives_nothing_up() -> None:
    line = Line(credit=0, speed=4.0, live_age_s=1.0, retain_bytes=10_000)
    line.source.send([packet(seq) for seq in range(100)], timeout_s=0)
    line.sent(10)
    line.ack(1000)
    assert line.firsts() == list(range(100))


def test_the_last_packet_is_offered_again_until_it_is_confirmed() -> None:
    line = Line()
    line.source.send(
        [
            packet(0),
            End(bed="bed-1", epoch="e1", n_samples=N),
            Truth(bed="bed-1", epoch="e1", samples=(3,), symbols=("N",), notes=("",)),
        ]
    )
    line.sent()
    again = [message for message in line.sent(10) if isinstance(message, End)]
    assert len(again) == 2
    line.ack(1000, ("bed-1", "e1", N))
    assert line.sent(60) == []


def test_a_probe_is_answered_with_the_sources_clock() -> None:
    line = Line()
    line.clock.skew_ns = 5 * SECOND
    line.say(Probe(id=9, sent_ns=1))
    assert line.sent() == [ProbeReply(id=9, received_ns=line.clock.source_ns(), sent_ns=line.clock.source_ns())]


def test_a_refusal_is_counted_and_hello_said_when_it_is_asked_for() -> None:
    line = Line()
    line.network.up = []
    line.say(Refused(cause="hello", text="say hello"), Refused(cause="claimed", text="bed: x is taken"))
    assert isinstance(decode(line.network.up[0]), Hello)
    assert line.source.refused == {"hello": (1, "say hello"), "claimed": (1, "bed: x is taken")}


def test_garbage_from_the_shard_is_counted() -> None:
    line = Line()
    line.network.down.append(b"\xc1")
    line.source.poll(0)
    assert list(line.source.refused) == ["garbage"]


def test_an_ack_of_another_session_is_not_ours() -> None:
    line = Line(credit=0)
    line.source.send([packet(0)])
    line.say(Ack(session="s0", shard="shard-1", credit=10, received=0))
    assert line.firsts() == []


def test_a_packet_over_the_limits_is_refused_before_any_is_taken() -> None:
    line = Line()
    big = Truth(bed="bed-1", epoch="e1", samples=(1,) * 70_000, symbols=("N",) * 70_000, notes=("x" * 64,) * 70_000)
    with pytest.raises(WireError, match="send less"):
        line.source.send([packet(0), big])
    assert line.source.counts() == {}


def test_a_peer_that_is_away_costs_nothing_and_hears_hello_first() -> None:
    line = Line()
    line.network.peer = False
    line.source.send([packet(0), packet(1)])
    line.clock.ns += 3 * SECOND
    line.source.poll(0)
    line.network.peer = True
    line.source.poll(0)
    assert [type(decode(frame)) for frame in line.network.up] == [Hello, Waveform, Waveform]


def test_beds_take_turns() -> None:
    line = Line(credit=0)
    line.source.send([packet(seq, bed=bed) for bed in ("a", "b", "c") for seq in range(100)])
    line.ack(96)
    out = [message.bed for message in line.sent() if isinstance(message, Waveform)]
    assert {bed: out.count(bed) for bed in "abc"} == {"a": 32, "b": 32, "c": 32}


def test_two_beds_of_one_source_in_one_epoch_of_the_ward_do_not_mix() -> None:
    ward = Ward()
    for seq in range(20):
        ward.source.send([packet(seq, bed="a"), packet(seq, bed="b", epoch="f")])
        ward.step()
    ward.run_until(lambda: not ward.source._behind)
    ward.step()
    assert [checked(ward.events, bed)["delivered"] for bed in "ab"] == [20 * N, 20 * N]


class ShardThread:
    """A shard's ROUTER with an `Ingest`, on a real socket, in a thread of its own. `kill` stops it with
    whatever it has not taken; another may go on from `saved`."""

    def __init__(self, port: int, state: dict[str, Any] | None, events: list[Event]) -> None:
        self.events = events
        self.ingest = Ingest()
        if state is not None:
            self.ingest.restore(state)
        self.saved: tuple[dict[str, Any], int] = (state or {"beds": []}, len(events))
        self.save_now = threading.Event()
        self._stop = threading.Event()
        self._socket = zmq.Context.instance().socket(zmq.ROUTER)
        self._socket.setsockopt(zmq.LINGER, 0)
        self._socket.setsockopt(zmq.ROUTER_HANDOVER, 1)
        self._bind(f"tcp://127.0.0.1:{port}")
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _bind(self, endpoint: str) -> None:
        """A socket that was closed in this process gives its port back a little later."""
        for _ in range(500):
            try:
                self._socket.bind(endpoint)
                return
            except zmq.ZMQError:
                time.sleep(0.01)
        self._socket.close(0)
        raise AssertionError(f"{endpoint} stays taken")

    def kill(self) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.is_set():
            if self._socket.poll(2):
                identity, *frames = self._socket.recv_multipart()
                self.ingest.receive(identity, frames, time.time_ns(), time.monotonic_ns())
            self.events += self.ingest.take()
            if self.save_now.is_set():
                self.save_now.clear()
                self._save()
            for identity, message in self.ingest.replies(time.time_ns(), time.monotonic_ns()):
                self._socket.send_multipart([identity, encode(message)], zmq.NOBLOCK)
        self._socket.close(0)

    def _save(self) -> None:
        state = msgpack.unpackb(msgpack.packb(self.ingest.state()))
        self.saved = (state, len(self.events))
        for bed in state["beds"]:
            self.ingest.durable(bed["bed"], bed["epoch"], bed["next"])


@pytest.fixture
def sources() -> Iterator[list[Source]]:
    made: list[Source] = []
    yield made
    for source in made:
        source.close()


@pytest.mark.parametrize("speed", [1.0, 0.0], ids=["live", "replay"])
def test_a_shard_killed_and_restarted_over_real_sockets_gets_every_sample_once(
    free_port: Any, sources: list[Source], speed: float
) -> None:
    port = free_port()
    events: list[Event] = []
    shard = ShardThread(port, None, events)
    source = Source("source-1", f"tcp://127.0.0.1:{port}", speed=speed)
    sources.append(source)
    n = 600
    kills = {100: False, 230: True, 231: False, 400: True, 599: True}
    for seq in range(n):
        source.send([packet(seq, bed="bed-1"), packet(seq, bed="bed-2")], timeout_s=0.0)
        source.poll(0.001)
        if seq in kills:
            if kills[seq]:  # a checkpoint, and some more that is lost with the shard
                shard.save_now.set()
                for _ in range(20):
                    source.poll(0.002)
            shard.kill()
            state, n_events = shard.saved
            del events[n_events:]
            shard = ShardThread(port, state, events)
    source.send([End(bed=bed, epoch="e1", n_samples=n * N) for bed in ("bed-1", "bed-2")], timeout_s=0.0)
    until = time.monotonic() + 60
    while source.pending():
        assert time.monotonic() < until, (source.counts(), source.refused, shard.ingest.state())
        source.poll(0.01)
        shard.save_now.set()
    shard.kill()
    for bed in ("bed-1", "bed-2"):
        fate = checked(events, bed)
        assert (fate["delivered"], fate["gap"]) == (n * N, 0)


def test_a_source_that_starts_before_its_shard_waits_for_it(free_port: Any, sources: list[Source]) -> None:
    port = free_port()
    events: list[Event] = []
    source = Source("source-1", f"tcp://127.0.0.1:{port}", speed=0.0)
    sources.append(source)
    assert not source.send([packet(0), End(bed="bed-1", epoch="e1", n_samples=N)], timeout_s=0.1)
    shard = ShardThread(port, None, events)
    assert source.send((), timeout_s=30)
    until = time.monotonic() + 30
    while source.pending() and time.monotonic() < until:
        source.poll(0.01)
        shard.save_now.set()
    shard.kill()
    assert checked(events)["delivered"] == N


def test_a_source_that_comes_back_before_its_old_connection_is_known_to_be_gone_is_heard(free_port: Any) -> None:
    port = free_port()
    with bind(zmq.ROUTER, "shards.a.bind", f"tcp://127.0.0.1:{port}") as shard:
        sockets = [dealer("source-1:s1"), dealer("source-1:s1")]
        try:
            for number, socket in enumerate(sockets):
                socket.connect(f"tcp://127.0.0.1:{port}")
                socket.setsockopt(zmq.SNDTIMEO, 20_000)
                socket.send(b"%d" % number)
                assert shard.poll(20_000)
                assert shard.recv_multipart() == [b"source-1:s1", b"%d" % number]
            shard.send_multipart([b"source-1:s1", b"ack"])
            assert sockets[1].poll(20_000) and not sockets[0].poll(0)
        finally:
            for socket in sockets:
                socket.close(0)
