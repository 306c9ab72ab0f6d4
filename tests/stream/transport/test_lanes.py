"""Frames of many packets: the same samples, account and repairs as when each packet comes by itself."""

import random
from collections.abc import Sequence

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream.transport.arrivals import Block
from stream.transport.ingest import Event, Ingest
from stream.wire import Ack, AnyMessage, End, Hello, Packets, Refused, Resend, Truth, Waveform, encode
from tests.lossy import SECOND, N, checked, packet, ramp

UTC = 1_700_000_000 * SECOND
BEDS = ("bed-1", "bed-2", "bed-3")


def together(seqs: Sequence[int], handles: Sequence[int] = (1, 2, 3)) -> Packets:
    """One packet for each handle, number `seqs[i]` of its epoch."""
    columns = {
        "handles": np.array(handles, "<i4"),
        "seq": np.array(seqs, "<i8"),
        "first": np.array([seq * N for seq in seqs], "<i8"),
        "device_ns": np.array([UTC] * len(seqs), "<i8"),
        "data": np.stack([ramp(seq * N, N) for seq in seqs]),
    }
    return Packets(n=N, n_signals=2, **{k: memoryview(v.tobytes()) for k, v in columns.items()}, sent_ns=7)


class Bench:
    """An ingest, and a source that has told it three beds with handles 1, 2, 3 by their first packets."""

    def __init__(self, known: bool = True, ingest: Ingest | None = None) -> None:
        self.ingest = ingest or Ingest()
        self.ns = 50 * SECOND
        self.events: list[Event] = []
        self.give(Hello(source="s", session="x", speed=1.0))
        if known:
            self.give(*(packet(0, bed, handle=i + 1) for i, bed in enumerate(BEDS)))
            self.take()
        self.replies()

    def give(self, *messages: AnyMessage) -> None:
        self.ingest.receive(b"a", [encode(message) for message in messages], UTC + self.ns, self.ns)

    def take(self, hold: Sequence[str] = ()) -> list[Event]:
        taken = self.ingest.take(hold)
        for event in taken:
            self.events += event.chunks() if isinstance(event, Block) else [event]
        return taken

    def replies(self, after_s: float = 0.0) -> list[AnyMessage]:
        self.ns += round(after_s * SECOND)
        return [message for _, message in self.ingest.replies(UTC + self.ns, self.ns)]

    def counts(self, bed: str = "bed-1") -> dict[str, int]:
        return self.ingest.account(bed, UTC + self.ns, self.ns).counts


def test_packets_of_many_beds_come_out_as_one_block() -> None:
    bench = Bench()
    bench.give(together([1, 1, 1]))
    (block,) = bench.take()
    assert isinstance(block, Block)
    assert (block.beds, block.first.tolist(), block.sent_ns) == (list(BEDS), [N] * 3, 7)
    for bed in BEDS:
        assert checked(bench.events, bed) == {"delivered": 2 * N, "gap": 0, "epochs": 1}
        assert (bench.counts(bed)["accepted"], bench.counts(bed)["delivered"]) == (2, 2 * N)
    assert bench.ingest.account("bed-1", UTC, bench.ns).position == 2 * N


def test_the_samples_of_a_block_are_not_copied() -> None:
    bench = Bench()
    bench.give(together([1, 1, 1]))
    (block,) = bench.take()
    assert isinstance(block, Block)
    assert not block.samples.flags.owndata and not block.samples.flags.writeable


def test_a_hole_in_one_bed_is_asked_for_and_the_others_go_on() -> None:
    bench = Bench()
    bench.give(together([1, 1], handles=(1, 3)))  # bed-2 is not in it
    bench.give(together([2, 2, 2]))
    bench.take()
    assert [checked(bench.events, bed)["delivered"] for bed in BEDS] == [3 * N, N, 3 * N]
    asked = [message for message in bench.replies(0.1) if isinstance(message, Resend)]
    assert [(one.bed, one.first) for one in asked] == [("bed-2", N)]
    bench.give(packet(1, "bed-2", handle=2), packet(2, "bed-2", handle=2), together([3, 3, 3]))
    bench.take()
    assert [checked(bench.events, bed)["delivered"] for bed in BEDS] == [4 * N] * 3
    assert bench.counts("bed-2")["duplicate"] == 1
    bench.give(together([4, 4, 4]))
    assert len(bench.take()) == 1


def test_a_handle_that_is_not_known_is_refused_and_said() -> None:
    bench = Bench(known=False)
    bench.give(together([0, 0, 0]))
    assert bench.take() == []
    (refused,) = [message for message in bench.replies() if isinstance(message, Refused)]
    assert refused.cause == "handle"
    assert "3 of 3" in refused.text
    (ack,) = [message for message in bench.replies(1.0) if isinstance(message, Ack)]
    assert ack.received == 3  # they used credit, and their source may count on it


def test_another_source_cannot_speak_of_a_bed_by_its_handle() -> None:
    bench = Bench()
    bench.ingest.receive(b"b", [encode(Hello(source="t", session="y", speed=1.0)), encode(together([1, 1, 1]))], UTC, 1)
    assert bench.take() == []
    assert bench.counts()["delivered"] == N


def test_a_new_epoch_needs_a_handle_of_its_own() -> None:
    bench = Bench()
    bench.give(End(bed="bed-1", epoch="e1", n_samples=N), packet(0, epoch="e2", handle=9, epoch_n=1))
    while bench.take():
        pass
    bench.give(together([1, 1, 1]))  # of the epoch that is over
    bench.give(together([1], handles=(9,)))
    bench.take()
    assert checked(bench.events) == {"delivered": 3 * N, "gap": 0, "epochs": 2}
    assert bench.counts()["late"] == 1 or bench.ingest.refused.get("handle") == 1


def test_a_bed_that_is_held_keeps_its_samples_in_order() -> None:
    bench = Bench()
    bench.give(together([1, 1, 1]))
    bench.take(hold=("bed-2",))
    assert [checked(bench.events, bed)["delivered"] for bed in BEDS] == [2 * N, N, 2 * N]
    bench.give(together([2, 2, 2]))
    bench.take()
    assert [checked(bench.events, bed)["delivered"] for bed in BEDS] == [3 * N] * 3


def test_what_comes_between_two_frames_keeps_its_place() -> None:
    bench = Bench()
    bench.give(together([1, 1, 1]), Truth(bed="bed-1", epoch="e1", samples=(3,), symbols=("N",), notes=("",)))
    bench.give(together([2, 2, 2]), End(bed="bed-1", epoch="e1", n_samples=3 * N))
    while bench.take():
        pass
    assert checked(bench.events) == {"delivered": 3 * N, "gap": 0, "epochs": 1}
    kinds = [type(event).__name__ for event in bench.events if event.bed == "bed-1"]  # type: ignore[union-attr]
    assert kinds[-1] == "Ended"


def test_annotations_do_not_keep_the_packets_behind_them_from_passing() -> None:
    bench = Bench()
    bench.give(together([1, 1, 1]), Truth(bed="bed-1", epoch="e1", samples=(3,), symbols=("N",), notes=("",)))
    bench.give(together([2, 2, 2]))
    assert [type(event).__name__ for event in bench.take()] == ["Block", "Block", "TruthSeen"]
    assert bench.counts()["delivered"] == 3 * N


def test_a_shard_that_goes_on_from_a_checkpoint_holds_what_went_by() -> None:
    bench = Bench()
    bench.give(together([1, 1, 1]))
    bench.take()
    ingest = Ingest()
    ingest.restore(bench.ingest.state())
    after = Bench(known=False, ingest=ingest)
    after.events = bench.events
    after.give(together([2, 2, 2]))  # its source does not know yet: the handles mean nothing
    after.give(*(packet(2, bed, handle=i + 1) for i, bed in enumerate(BEDS)), together([3, 3, 3]))
    after.take()
    after.give(together([4, 4, 4]))
    after.take()
    assert [checked(after.events, bed)["delivered"] for bed in BEDS] == [5 * N] * 3


@given(st.integers(0, 2**32), st.floats(0, 0.5), st.floats(0, 0.3))
def test_frames_of_many_packets_come_to_the_same_as_one_by_one(seed: int, lost: float, alone: float) -> None:
    """Frames that are lost or doubled, packets that come by themselves in between: each bed gets the same."""
    outcomes = []
    for apart in (False, True):
        choose = random.Random(seed)
        bench = Bench()
        for seq in range(1, 12):
            single = [choose.random() < alone for _ in BEDS]
            gone, twice = choose.random() < lost, choose.random() < 0.2
            frames: list[Waveform | Packets] = [packet(seq, bed) for bed, one in zip(BEDS, single, strict=True) if one]
            rest = [i + 1 for i, one in enumerate(single) if not one]
            if rest and not gone:
                whole = together([seq] * len(rest), rest)
                parts: list[Waveform | Packets] = [
                    msgspec.structs.replace(packet(seq, BEDS[h - 1]), sent_ns=7, device_ns=UTC) for h in rest
                ]
                frames += (parts if apart else [whole]) * (2 if twice else 1)
            bench.give(*frames)
            if choose.random() < 0.7:
                bench.take()
            bench.replies(0.1)
        bench.replies(5.0)
        bench.take()
        outcomes.append([(checked(bench.events, bed), bench.counts(bed)) for bed in BEDS])
    assert outcomes[0] == outcomes[1]


@pytest.mark.parametrize("n_signals", [1, 3])
def test_packets_of_another_number_of_signals_are_refused(n_signals: int) -> None:
    bench = Bench()
    data = memoryview(bytes(2 * 3 * n_signals * N))
    bench.give(msgspec.structs.replace(together([1, 1, 1]), n_signals=n_signals, data=data))
    assert bench.take() == []
    assert any(isinstance(message, Refused) for message in bench.replies())
