"""The shard's process, with its sockets: what it says to whom, and what it goes on from."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgpack
import msgspec
import numpy as np
import pytest
import zmq
from structlog.testing import capture_logs

from stream import checkpoint, config, process, wire
from stream.roles.shard import ShardRole, profiles


class Peers:
    """A worker, a gateway and a source, as sockets of the test."""

    def __init__(self, folder: Path, free_port: Callable[[], int]) -> None:
        address = [f"tcp://127.0.0.1:{free_port()}" for _ in range(3)]
        self.worker = process.bind(zmq.ROUTER, "worker.bind", address[0])
        self.gateway = process.bind(zmq.ROUTER, "gateway.bind", address[1])
        raw = {
            "shards": {
                "a": {"bind": address[2], "worker": address[0], "gateway": address[1], "state_dir": str(folder)},
            },
            "alarms": {"HR_HIGH": {"limit": 130}},
            "beds": {"bed7": {"alarms": {"HR_LOW": {"limit": 45}}}},
        }
        self.settings = config.build(raw, folder=folder)
        self.sources = process.bind(zmq.ROUTER, "shards.a.bind", address[2])
        self.own = [process.connect(address[0], "shard:a"), process.connect(address[1], "shard:a")]
        self.source = process.connect(address[2], "source")

    def role(self) -> ShardRole:
        return ShardRole(self.settings, "a", self.sources, *self.own)

    def close(self) -> None:
        for socket in (self.worker, self.gateway, self.sources, *self.own, self.source):
            socket.close(0)

    def got(self, role: ShardRole, socket: "zmq.Socket[bytes]", kind: type, within_s: float = 10.0) -> wire.AnyMessage:
        """Turn the role until `socket` gets a message of a kind."""
        deadline = time.monotonic() + within_s
        while time.monotonic() < deadline:
            role.step()
            while socket.poll(0):
                for frame in socket.recv_multipart()[0 if socket is self.source else 1 :]:
                    message = wire.decode(frame)
                    if isinstance(message, kind):
                        return message
        pytest.fail(f"no {kind.__name__} within {within_s} s")


@pytest.fixture
def peers(tmp_path: Path, free_port: Callable[[], int]) -> Iterator[Peers]:
    peers = Peers(tmp_path, free_port)
    yield peers
    peers.close()


def hello() -> bytes:
    return wire.encode(wire.Hello(source="s", session="1", speed=1.0))


def packet(seq: int, n: int = 250, bed: str = "bed7") -> bytes:
    signal = wire.Signal("II", "ecg", "mV", 200.0)
    data = memoryview(bytes(2 * n))
    return wire.encode(
        wire.Waveform(bed=bed, epoch="e", seq=seq, first=seq * n, rate=250.0, n=n, signals=(signal,), data=data)
    )


def test_it_greets_worker_and_gateway_and_tells_sources_their_credit(peers: Peers) -> None:
    role = peers.role()
    assert peers.got(role, peers.worker, wire.Greeting)
    assert peers.got(role, peers.gateway, wire.Greeting)
    peers.source.send_multipart([hello(), packet(0)])
    ack = peers.got(role, peers.source, wire.Ack)
    assert isinstance(ack, wire.Ack)
    assert ack.credit > 0


def test_garbage_is_refused_and_counted_and_nothing_else_suffers(peers: Peers) -> None:
    role = peers.role()
    future = msgpack.packb({**msgpack.unpackb(packet(1)), "v": 99})
    peers.source.send_multipart([hello(), packet(0)])
    peers.source.send_multipart([b"\xc1garbage", future, b"\xdf\xff\xff\xff\xff"])
    refused = peers.got(role, peers.source, wire.Refused)
    assert isinstance(refused, wire.Refused)
    peers.source.send_multipart([packet(1)])
    deadline = time.monotonic() + 10
    while role.ingest.account("bed7", 0, 0).position < 500 and time.monotonic() < deadline:
        role.step()
    assert role.ingest.account("bed7", 0, 0).position == 500
    assert role.ingest.refused == {"garbage": 2, "version": 1}


def test_work_waits_for_the_worker_and_is_sent_whole_to_each_new_one(peers: Peers) -> None:
    role = peers.role()
    peers.source.send_multipart([hello(), *(packet(i) for i in range(6))])
    identity = b""
    for _ in range(100):
        role.step()
        while peers.worker.poll(0):
            identity, *frames = peers.worker.recv_multipart()
            assert not [f for f in frames if isinstance(wire.decode(f), wire.Work)], "work before the worker was ready"
        if identity and len(role.shard.judging):
            break
    n_items = len(role.shard.judging)
    assert n_items
    for session in ("one", "two"):
        ready = wire.Ready(worker="w", session=session, device="cpu", model_version="v")
        peers.worker.send_multipart([identity, wire.encode(ready)])
        work = peers.got(role, peers.worker, wire.Work)
        assert isinstance(work, wire.Work)
        assert work.n == n_items


def test_a_checkpoint_of_another_build_is_set_aside_and_the_ward_goes_on(peers: Peers, tmp_path: Path) -> None:
    path = checkpoint.path_of(tmp_path, 0)
    checkpoint.save(path, {"number": 3, "ingest": {"beds": [{"bed": "x"}]}, "shard": {}})
    with capture_logs() as logs:
        role = peers.role()
    assert [entry["event"] for entry in logs] == ["checkpoint_set_aside"]
    assert path.with_suffix(".unfit").exists()
    assert not role.shard.beds
    role.step()


def test_the_beds_of_a_large_shard_are_saved_in_parts_and_one_that_is_torn_costs_no_others(
    peers: Peers, tmp_path: Path
) -> None:
    own = msgspec.structs.replace(peers.settings.shards["a"], capacity=200, checkpoint_s=0.6)
    peers.settings = msgspec.structs.replace(peers.settings, shards={"a": own})
    role = peers.role()
    beds = [f"bed{i}" for i in range(7)]
    peers.source.send_multipart([hello(), *(packet(seq, bed=bed) for bed in beds for seq in range(3))])
    durable: dict[str, int] = {}
    deadline = time.monotonic() + 10.0
    while len(durable) < len(beds) and time.monotonic() < deadline:
        role.step()
        durable |= _durable(peers)
    assert durable == dict.fromkeys(beds, 749), "all but the last sample of an epoch that goes on may be forgotten"
    assert len(checkpoint.paths(tmp_path)) == 3

    role.save()
    again = peers.role()
    assert sorted(again.shard.beds) == beds
    assert sorted(again.ingest.positions()) == sorted((bed, "e", 750) for bed in beds)
    torn = checkpoint.path_of(tmp_path, 1)
    torn.write_bytes(torn.read_bytes()[:-1])
    with capture_logs() as logs:
        again = peers.role()
    assert [entry["event"] for entry in logs] == ["checkpoint_set_aside", "checkpoint_loaded"]
    lost = role.shard.beds_of(1, 3)
    assert len(lost) == 2
    assert sorted(again.shard.beds) == sorted({*beds} - {*lost})
    again.step()


def test_the_checkpoint_of_a_build_before_is_set_aside_and_said_so(peers: Peers, tmp_path: Path) -> None:
    old = tmp_path / "checkpoint.msgpack"
    old.write_bytes(msgpack.packb({"version": 4}))
    with capture_logs() as logs:
        peers.role()
    assert [entry["event"] for entry in logs] == ["checkpoint_set_aside"]
    assert not old.exists()


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), MemoryError()])
def test_what_could_not_be_saved_is_not_durable_and_the_next_save_is_tried(
    peers: Peers, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    own = msgspec.structs.replace(peers.settings.shards["a"], checkpoint_s=0.1)
    peers.settings = msgspec.structs.replace(peers.settings, shards={"a": own})
    role = peers.role()

    def full(*_: object) -> None:
        raise error

    monkeypatch.setattr(checkpoint, "write", full)
    peers.source.send_multipart([hello(), packet(0), packet(1)])
    with capture_logs() as logs:
        deadline = time.monotonic() + 10.0
        while sum(entry["event"] == "checkpoint_failed" for entry in logs) < 4 and time.monotonic() < deadline:
            role.step()
    assert sum(entry["event"] == "checkpoint_failed" for entry in logs) >= 4
    assert not _durable(peers)
    monkeypatch.undo()
    deadline = time.monotonic() + 10.0
    while not (durable := _durable(peers)) and time.monotonic() < deadline:
        role.step()
    assert durable == {"bed7": 499}


def _durable(peers: Peers) -> dict[str, int]:
    """What the source has been told that it may forget."""
    found: dict[str, int] = {}
    while peers.source.poll(0):
        for frame in peers.source.recv_multipart():
            message = wire.decode(frame)
            if isinstance(message, wire.Ack):
                found |= {bed: sample for bed, _, sample in message.durable if sample > 0}
    return found


def test_a_packet_that_lies_in_the_socket_is_no_gap_however_long_the_shard_stood_still(peers: Peers) -> None:
    own = msgspec.structs.replace(peers.settings.shards["a"], gap_timeout_s=0.3)
    peers.settings = msgspec.structs.replace(peers.settings, shards={"a": own})
    role = peers.role()
    peers.source.send_multipart([hello(), packet(0), packet(2)])
    while not role.ingest.beds():
        role.step()
    peers.source.send(packet(1))
    time.sleep(0.6)  # longer than a hole may stay open
    deadline = time.monotonic() + 10.0
    while time.monotonic() < deadline and _delivered(role) < 750:
        role.step()
    assert _delivered(role) == 750


def _delivered(role: ShardRole) -> int:
    account = role.ingest.account("bed7", time.time_ns(), time.monotonic_ns())
    assert not any(n for what, n in account.counts.items() if what.startswith("gap"))
    return account.counts["delivered"]


def test_limits_of_a_bed_lie_over_those_of_the_ward(peers: Peers) -> None:
    known = profiles(peers.settings)
    assert (known[""].limit("HR_HIGH", "limit"), known[""].limit("HR_LOW", "limit")) == (130, 50)
    assert (known["bed7"].limit("HR_HIGH", "limit"), known["bed7"].limit("HR_LOW", "limit")) == (130, 45)


def test_blocks_that_an_idle_worker_never_got_are_offered_again(peers: Peers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stream.roles.shard.LOST_NS", 200_000_000)
    role = peers.role()
    peers.source.send_multipart([hello(), *(packet(i) for i in range(6))])
    peers.got(role, peers.worker, wire.Greeting)
    ready = wire.encode(wire.Ready(worker="w", session="one", device="cpu", model_version="v", queued=0))
    peers.worker.send_multipart([b"shard:a", ready])
    first = peers.got(role, peers.worker, wire.Work)
    time.sleep(0.3)
    peers.worker.send_multipart([b"shard:a", ready])
    assert peers.got(role, peers.worker, wire.Work) == first


def test_a_worker_whose_answers_do_not_fit_is_refused_and_counted(peers: Peers) -> None:
    role = peers.role()
    nothing = wire.Judged(kind="beat", ids=wire.Tensor.of(np.arange(3)), arrays={}, batched_ns=1, judged_ns=1)
    peers.got(role, peers.worker, wire.Greeting)
    peers.worker.send_multipart([b"shard:a", wire.encode(nothing)])
    deadline = time.monotonic() + 10
    while not role.refused and time.monotonic() < deadline:
        role.step()
    assert role.refused == 1
