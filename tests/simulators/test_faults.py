"""Faults on demand: on a bed's signal, on a source's clock, by the producer's control socket; and what was sent."""

import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import zmq

from simulators.control import Fault, Finish, Status, tell
from simulators.faults import FaultyFeed, UnsteadyClock
from simulators.ledger import Ledger, Read
from simulators.patients import RAIL, Patient
from simulators.producer import Bed, Producer
from simulators.replay import PatientFeed
from stream import wire

PATIENT = Patient("bed1", [("sinus", 60)], seed=5, counter=True)


def test_a_fault_lies_on_its_samples_and_no_others_however_they_are_read() -> None:
    plain, whole, pieces = PatientFeed(PATIENT), FaultyFeed(PatientFeed(PATIENT)), FaultyFeed(PatientFeed(PATIENT))
    for feed in (whole, pieces):
        assert feed.lay("flat", 500, 2.0, lead=0) == 1000
        feed.lay("lead_off", 1500, 1.0)
        feed.lay("rhythm", 2000, 3.0, rhythm="vf")
    at_once = whole.read(0, 3000)
    cut = np.concatenate([pieces.read(first, 60) for first in range(0, 3000, 60)], axis=1)
    assert np.array_equal(at_once, cut)
    own = plain.read(0, 3000)
    assert (at_once[0, 500:1000] == 0).all() and (at_once[:2, 1500:1750] == RAIL).all()
    assert not np.array_equal(at_once[:2, 2000:2750], own[:2, 2000:2750])
    for first, end in ((0, 500), (1000, 1500), (1750, 2000), (2750, 3000)):
        assert np.array_equal(at_once[:, first:end], own[:, first:end])
    assert np.array_equal(at_once[1, 500:1000], own[1, 500:1000])
    assert np.array_equal(at_once[2], own[2]), "the counter of samples is no lead"


def test_a_lead_that_a_fault_takes_off_is_told_by_its_bits_and_hides_the_truth() -> None:
    feed = FaultyFeed(PatientFeed(PATIENT))
    feed.lay("lead_off", 1500, 1.0)
    assert feed.off_spans(1400, 200) == [(1500, 1600, 0b011)]
    notes, own = feed.truth(0, 3000), PATIENT.truth(0, 3000)
    assert notes is not None
    assert set(own.sample.tolist()) - set(notes.sample.tolist()) == {s for s in own.sample.tolist() if 1500 <= s < 1750}


@pytest.mark.parametrize(
    "given",
    [{"kind": "loss"}, {"kind": "flat", "for_s": 0}, {"kind": "flat", "lead": 2}, {"kind": "rhythm", "rhythm": "joy"}],
)
def test_a_fault_that_cannot_be_is_refused_with_what_can(given: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"choose|give|this bed has"):
        FaultyFeed(PatientFeed(PATIENT)).lay(**{"first": 0, "for_s": 1.0, **given})  # type: ignore[arg-type]


def test_a_clock_steps_and_drifts_and_stays_where_it_has_drifted_to() -> None:
    now = [0]
    clock = UnsteadyClock(lambda: 1_000 + now[0], lambda: now[0])
    assert clock() == 1_000
    clock.step(500)
    clock.drift(100, 10)
    now[0] = 20_000_000_000
    assert clock() - 1_000 - now[0] == 500_000_000 + 1_000_000


def test_a_ledger_is_read_as_it_stands(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "sent", ["a", "b"], "e")
    ledger.begin(5, [0.0, 0.05])
    ledger.write(1, 2, 100, 350)
    read = Read.of(tmp_path / "sent")  # the writer is still there: as after its death
    assert (read.epoch, read.start_ns, read.phases_s["b"]) == ("e", 5, 0.05)
    assert (read.beds["b"].n_epochs, read.beds["b"].n_newest, read.beds["b"].n_samples) == (2, 100, 350)
    ledger.close()


def test_a_producer_does_what_its_control_socket_asks_and_keeps_its_ledger(
    free_port: Callable[[], int], tmp_path: Path
) -> None:
    control, shard = f"tcp://127.0.0.1:{free_port()}", f"tcp://127.0.0.1:{free_port()}"
    router = zmq.Context.instance().socket(zmq.ROUTER)
    router.bind(shard)
    beds = [Bed("a", "sim:sinus,counter=1", shard), Bed("b", "sim:sinus", shard)]
    producer = Producer(beds, speed=4, spread=True, control=control, ledger=tmp_path / "sent")
    codes: list[int] = []
    over = threading.Event()
    thread = threading.Thread(target=lambda: codes.append(producer.run(over.is_set)))
    thread.start()
    try:
        got: list[wire.Waveform] = []
        ended: set[str] = set()

        def serve(until: Callable[[], bool]) -> None:
            deadline = time.monotonic() + 20
            while not until() and time.monotonic() < deadline:
                while router.poll(10):
                    identity, *frames = router.recv_multipart()
                    for message in map(wire.decode, frames):
                        if isinstance(message, wire.Hello):
                            ack = wire.Ack(session=message.session, shard="s", credit=100_000, received=0)
                            router.send_multipart([identity, wire.encode(ack)])
                        elif isinstance(message, wire.Waveform):
                            got.append(message)
                        elif isinstance(message, wire.End):
                            ended.add(message.bed)

        serve(lambda: {p.bed for p in got} == {"a", "b"})
        told = tell(control, Fault(kind="lead_off", bed="a", for_s=1.0))
        ((bed, epoch, first, end),) = told.where
        assert told.ok and bed == "a" and end == first + 250
        refused = tell(control, Fault(kind="flat", bed="c"))
        assert not refused.ok and "'c'" in refused.text
        serve(lambda: any(p.bed == "a" and p.first >= end for p in got))
        off = [(p.first, p.first + p.n) for p in got if p.off]
        assert off[0][0] == first and off[-1][1] == end and all(p.epoch == epoch for p in got if p.bed == "a")
        assert {p.first % 25 for p in got if not p.off} == {0}
        tell(control, Fault(kind="clock_step", ms=300))
        assert tell(control, Status()).clock_ms == 300
        tell(control, Finish())
        sent = Read.of(tmp_path / "sent")
        assert sent.phases_s == {"a": 0.0, "b": 6.18}
        serve(lambda: sum(p.n for p in got) >= sum(bed.n_samples for bed in sent.beds.values()))
        assert sum(p.n for p in got) == sum(producer.samples.values())
        serve(lambda: ended == {"a", "b"})  # it waits for confirmations now, and need not for long
    finally:
        over.set()
        thread.join(30)
        router.close(0)
    assert codes == [1], "nothing was ever confirmed"
