"""Frames of many beds, and what of them one bed is given back."""

from collections.abc import Iterable

import numpy as np

from simulators.frames import Frames
from simulators.retention import Retention
from stream.wire import Packets, Signal, Waveform

N, RATE = 25, 250.0


def _frames(n_packets: int) -> tuple[Frames, Retention]:
    """Two beds that sent so many packets in frames."""
    frames = Frames(30.0, 1 << 30)
    signals = (Signal("II", "ecg", "mV", 200.0),)
    for bed in ("bed1", "bed2"):
        frames.declared(
            Waveform(bed=bed, epoch="e", seq=0, first=0, rate=RATE, n=N, signals=signals, data=memoryview(bytes(2 * N)))
        )
    _send(frames, range(n_packets))
    return frames, Retention("bed1")


def _send(frames: Frames, numbers: Iterable[int]) -> None:
    handles = np.array([frames.handle("bed1", "e"), frames.handle("bed2", "e")])
    for k in numbers:
        whole = [np.full(2, value, np.int64) for value in (k, k * N, 0)]
        seq, first, device = (memoryview(column.astype("<i8").tobytes()) for column in whole)
        data = memoryview(np.full((2, 1, N), k, "<i2").tobytes())
        head = memoryview(handles.astype("<i4").tobytes())
        frames.keep(
            Packets(n=N, n_signals=1, handles=head, seq=seq, first=first, device_ns=device, data=data, sent_ns=k), k
        )


def test_a_bed_that_misses_a_packet_is_given_back_what_is_not_durable_and_not_all_that_is_kept() -> None:
    frames, bed = _frames(100)
    frames.safe("bed1", "e", 90 * N)
    frames.give_back(bed, "e", 95 * N)
    assert [entry.first for entry in bed.entries] == [k * N for k in range(90, 100)]
    frames.give_back(bed, "e", 96 * N)
    assert len(bed.entries) == 10  # once


def test_a_shard_that_asks_from_the_begin_gets_all_that_is_kept_whatever_was_given_back_before() -> None:
    frames, bed = _frames(30)
    frames.safe("bed1", "e", 20 * N)
    frames.give_back(bed, "e", 25 * N)
    _send(frames, range(30, 100))
    frames.safe("bed1", "e", 90 * N)
    frames.give_back(bed, "e", 95 * N)
    assert len(bed.entries) == 20
    frames.give_back(bed, "e", 0)
    assert [entry.first for entry in bed.entries] == [k * N for k in range(100)]


def test_what_is_asked_for_is_given_back_however_durable() -> None:
    frames, bed = _frames(100)
    frames.safe("bed1", "e", 90 * N)
    frames.give_back(bed, "e", 80 * N + 3)
    assert [entry.first for entry in bed.entries] == [k * N for k in range(80, 100)]
    assert bed.find("e", 80 * N + 3) == 0
