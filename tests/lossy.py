"""A source and an ingest joined by a bad network, all of it on a virtual clock."""

from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
import zmq

from simulators.link import Spoiler
from simulators.source import Source
from stream.transport.ingest import Block, Chunk, Ended, Event, Gap, Ingest, NewEpoch
from stream.wire import End, Signal, Waveform, encode

RATE = 250.0
N = 25  # samples of a packet
SIGNALS = (Signal("II", "ecg", "mV", 200.0, 0), Signal("Pleth", "pleth", "NU", 100.0, 5))
SECOND = 1_000_000_000


def ramp(first: int, n: int) -> np.ndarray[Any, np.dtype[np.int16]]:
    """Samples that tell their own number, and in the second signal another one; (2, n) int16."""
    at = np.arange(first, first + n)
    return np.stack([at % 32_000, 31_999 - at % 32_000]).astype("<i2")


def packet(
    seq: int, bed: str = "bed-1", epoch: str = "e1", n: int = N, first: int | None = None, **fields: Any
) -> Waveform:
    """Packet number `seq` of a bed, `n` samples in each packet."""
    first = seq * n if first is None else first
    data = memoryview(ramp(first, n).tobytes())
    device_ns = 1_700_000_000 * SECOND + round((first + n) * SECOND / RATE)
    made = Waveform(
        bed=bed, epoch=epoch, seq=seq, first=first, rate=RATE, n=n, signals=SIGNALS, data=data, device_ns=device_ns
    )
    return msgspec.structs.replace(made, **fields)


class Clock:
    """Both clocks of both ends; `skew_ns` sets the source's UTC clock off."""

    def __init__(self) -> None:
        self.ns = 1000 * SECOND
        self.skew_ns = 0

    def mono_ns(self) -> int:
        return self.ns

    def utc_ns(self) -> int:
        return 1_700_000_000 * SECOND + self.ns

    def source_ns(self) -> int:
        return self.utc_ns() + self.skew_ns


class Network:
    """Stands for the socket of a source, and spoils what goes through: each frame is lost, doubled or
    overtaken with the given probabilities, both ways. Without a `peer` it takes nothing."""

    def __init__(self, seed: int = 0, loss: float = 0.0, double: float = 0.0, reorder: float = 0.0) -> None:
        self._ways = {way: Spoiler(seed + i, loss, double, reorder) for i, way in enumerate(("up", "down"))}
        self.peer = True
        self.up: list[bytes] = []
        self.down: list[bytes] = []

    def connect(self, endpoint: str) -> None:
        pass

    def close(self, linger: int | None = None) -> None:
        pass

    def poll(self, timeout: int = 0) -> int:
        return len(self.down)

    def recv_multipart(self, flags: int = 0) -> list[bytes]:
        if not self.down:
            raise zmq.Again
        frames, self.down = self.down, []
        return frames

    def send_multipart(self, frames: list[bytes], flags: int = 0) -> None:
        if not self.peer:
            raise zmq.Again
        self.up += self._ways["up"].spoil(frames)

    def reply(self, frames: list[bytes]) -> None:
        """What the shard sends; nothing arrives where there is no peer."""
        if self.peer:
            self.down += self._ways["down"].spoil(frames)

    def cut(self) -> None:
        """The connection breaks: what is on its way is gone."""
        self.peer = False
        self.up, self.down = [], []
        for way in self._ways.values():
            way.forget()


class Ward:
    """One source, one network, one ingest, and what the shard has been given."""

    def __init__(self, network: Network | None = None, ingest: Ingest | None = None, **source: Any) -> None:
        self.clock = Clock()
        self.network = network or Network()
        self.ingest = ingest or Ingest()
        self.source = Source(
            "source-1", "", socket=self.network, clock_ns=self.clock.source_ns, mono_ns=self.clock.mono_ns, **source
        )  # type: ignore[arg-type]
        self.events: list[Event] = []

    def step(self, ns: int = 20_000_000) -> None:
        """Let the time pass, and both ends do what they have to."""
        self.clock.ns += ns
        self.source.poll(0)
        frames, self.network.up = self.network.up, []
        if frames:
            self.ingest.receive(b"source-1", frames, self.clock.utc_ns(), self.clock.mono_ns())
        for event in self.ingest.take():
            self.events += event.chunks() if isinstance(event, Block) else [event]
        replies = self.ingest.replies(self.clock.utc_ns(), self.clock.mono_ns())
        self.network.reply([encode(message) for _, message in replies])

    def run_until(self, done: Callable[[], bool], limit_s: float = 300.0, step_ns: int = 20_000_000) -> None:
        until = self.clock.ns + round(limit_s * SECOND)
        while not done():
            assert self.clock.ns < until, f"not done after {limit_s} s: {self.ingest.state()}"
            self.step(step_ns)

    def ended(self, n: int = 1) -> bool:
        return sum(isinstance(event, Ended) for event in self.events) >= n

    def restart(self, state: dict[str, Any], n_events: int) -> None:
        """The shard is killed and goes on from `state`, taken when it had had `n_events`."""
        self.network.cut()
        self.network.peer = True
        self.ingest = Ingest()
        self.ingest.restore(state)
        del self.events[n_events:]


def checked(events: list[Event], bed: str = "bed-1") -> dict[str, int]:
    """Samples of a bed by fate, after checking that they follow one another without overlap or splice,
    and that each is the sample that it says it is."""
    fate = {"delivered": 0, "gap": 0, "epochs": 0}
    epoch, position = "", 0
    for event in events:
        if event.bed != bed:
            continue
        if isinstance(event, NewEpoch):
            epoch, position = event.epoch, 0
            fate["epochs"] += 1
            continue
        assert event.epoch == epoch
        if isinstance(event, Chunk):
            n = event.samples.shape[1]
            assert event.samples.tobytes() == ramp(event.first, n).tobytes()
            assert event.first == position
            position += n
            fate["delivered"] += n
        elif isinstance(event, Gap):
            assert event.first == position and event.n > 0
            position += event.n
            fate["gap"] += event.n
        elif isinstance(event, Ended):
            assert event.n_samples == position
    return fate


def play(ward: Ward, n_packets: int, every_ns: int = 100_000_000) -> None:
    """The source sends a whole epoch of `bed-1` at a pace, then its end."""
    for seq in range(n_packets):
        ward.source.send([packet(seq)], 0)
        ward.step(every_ns)
    ward.source.send([End(bed="bed-1", epoch="e1", n_samples=n_packets * N)], 0)
