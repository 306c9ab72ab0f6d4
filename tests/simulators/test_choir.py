"""Beds that send their packets together: nobody at the other end can tell, whatever happens on the way."""

import threading
import time
from collections.abc import Iterator

import msgpack
import numpy as np
import pytest
import zmq
from hypothesis import example, given, settings
from hypothesis import strategies as st

from simulators.choir import FEWEST
from simulators.plays import Bed
from simulators.producer import Producer
from simulators.ward import patient_of
from stream.transport.arrivals import Block, Chunk, Ended, Gap, TruthSeen
from stream.transport.ingest import Event, Ingest
from stream.wire import End, Packets, decode, encode
from tests.lossy import SECOND, N, Network, Ward, checked, packet, ramp

BEDS = [f"bed-{i}" for i in range(1, 5)]


class Shard:
    """A ROUTER and the real ingest, in a thread; `restart` is a kill: it goes on from its last checkpoint."""

    def __init__(self) -> None:
        self.socket = zmq.Context.instance().socket(zmq.ROUTER)
        self.socket.setsockopt(zmq.LINGER, 0)
        self.address = f"tcp://127.0.0.1:{self.socket.bind_to_random_port('tcp://127.0.0.1')}"
        self.ingest = Ingest(capacity=64)
        self.events: list[Event] = []
        self.n_together = 0
        self.restart = threading.Event()
        self._saved = (self.ingest.state(), 0)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def close(self) -> None:
        self._stop.set()
        self._thread.join()
        self.socket.close(0)

    def _run(self) -> None:
        due = time.monotonic() + 0.5
        while not self._stop.is_set():
            while self.socket.poll(10):
                identity, *frames = self.socket.recv_multipart()
                self.n_together += sum(isinstance(decode(frame), Packets) for frame in frames)
                self.ingest.receive(identity, frames, time.time_ns(), time.monotonic_ns())
            for event in self.ingest.take():
                self.events += event.chunks() if isinstance(event, Block) else [event]
            if self.restart.is_set():
                self.restart.clear()
                state, n = self._saved
                del self.events[n:]
                self.ingest = Ingest(capacity=64)
                self.ingest.restore(state)
            elif time.monotonic() > due:
                due = time.monotonic() + 0.5
                self._saved = (self.ingest.state(), len(self.events))
                for bed, epoch, sample in self.ingest.positions():
                    self.ingest.durable(bed, epoch, sample)
            for identity, reply in self.ingest.replies(time.time_ns(), time.monotonic_ns()):
                self.socket.send_multipart([identity, encode(reply)])


@pytest.fixture
def shard() -> Iterator[Shard]:
    one = Shard()
    yield one
    one.close()


@pytest.mark.parametrize("kill", [False, True])
def test_each_sample_of_a_live_ward_comes_once_and_in_its_place(shard: Shard, kill: bool) -> None:
    sources = ["sim:vf", "sim:lead_off,seed=3", *["sim:default"] * FEWEST]
    beds = [Bed(f"bed{i}", source, shard.address) for i, source in enumerate(sources)]
    producer = Producer(beds, speed=1, stop_s=4.0, start_s=12.0)
    if kill:
        threading.Timer(2.3, shard.restart.set).start()
    assert producer.run(lambda: False) == 0
    assert shard.n_together > 20
    for index, bed in enumerate(beds):
        own = [event for event in shard.events if not isinstance(event, Block) and event.bed == bed.name]
        assert not any(isinstance(event, Gap) for event in own)
        chunks = [event for event in own if isinstance(event, Chunk)]
        patient = patient_of(bed.source, bed.name, index)
        np.testing.assert_array_equal(np.concatenate([c.samples for c in chunks], axis=1), patient.render(3000, 1000))
        assert [event.n_samples for event in own if isinstance(event, Ended)] == [1000]
        told = [sample for event in own if isinstance(event, TruthSeen) for sample in event.samples]
        assert told == (patient.truth(3000, 1000).sample - 3000).tolist()
        off = {c.first: c.off for c in chunks}
        for first, bits in off.items():
            assert bool(bits) is bool(patient.off_spans(3000 + first, 1))
    assert producer.samples == {bed.name: 1000 for bed in beds}


@given(
    st.integers(0, 2**32),
    st.floats(0, 0.05),
    st.lists(st.tuples(st.integers(1, 60), st.integers(0, 12)), max_size=3),
)
@example(0, 0.0, [(7, 0), (10, 4)])
@example(0, 0.03125, [(31, 3), (32, 12)])
@settings(deadline=None, max_examples=15)
def test_packets_together_lose_nothing_to_a_bad_network_and_to_kills(
    seed: int, loss: float, kills: list[tuple[int, int]]
) -> None:
    ward = Ward(Network(seed, loss=loss, double=0.02, reorder=0.1))
    states = []
    pending = dict(kills)
    for seq in range(70):
        alone = BEDS if seq == 0 else BEDS[:1] if seq % 7 == 0 else []
        ward.source.send([packet(seq, bed) for bed in alone], 0)
        handles = {ward.source.handle(bed, "e1"): bed for bed in BEDS if bed not in alone}
        if handles:
            k = len(handles)
            ward.source.send_together(
                np.array(sorted(handles)), np.full(k, seq), np.full(k, seq * N), np.stack([ramp(seq * N, N)] * k),
                1_700_000_000 * SECOND, ward.clock.source_ns(),
            )  # fmt: skip
        ward.step(50_000_000)
        states.append((msgpack.unpackb(msgpack.packb(ward.ingest.state())), len(ward.events)))
        if seq in pending:
            age = min(pending[seq], len(states) - 1)
            ward.restart(*states[-1 - age])
            del states[len(states) - age :]
        elif seq % 20 == 19:
            for bed, epoch, sample in ward.ingest.positions():
                ward.ingest.durable(bed, epoch, sample)
    ward.source.send([End(bed=bed, epoch="e1", n_samples=70 * N) for bed in BEDS], 0)
    ward.run_until(lambda: ward.ended(len(BEDS)))
    for bed in BEDS:
        assert checked(ward.events, bed) == {"delivered": 70 * N, "gap": 0, "epochs": 1}
    assert {count["samples"] for count in ward.source.counts().values()} == {70 * N}
