"""Waves for those who watch: a shard's samples on their way past the analysis, as blocks for the gateway.

    waves = Watched()
    waves.watch(beds, mono_ns)      the gateway renews it each second
    waves.take(events)              what the shard is fed
    waves.blocks(mono_ns)           ▶ gateway ▶ topic `wave.BED`

Best effort: nothing waits for them, nothing is sent again, and a ward that nobody looks at pays for an empty set.
"""

from collections import Counter
from collections.abc import Iterable, Iterator

import numpy as np

from stream.transport.arrivals import Block, Chunk, Event
from stream.wire import MISSING, Waves

WATCH_NS = 3_000_000_000  # without a renewal for so long, nobody watches any more
BLOCK_NS = 40_000_000
MOST_S = 2.0  # of a bed in one go; more than that has piled up, and is not for looking at


class Watched:
    """`counts`: samples by fate, `told` and `dropped`. Not for several threads."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self._beds: frozenset[str] = frozenset()
        self._until_ns = self._due_ns = 0
        self._waiting: dict[str, list[Chunk]] = {}

    def watch(self, beds: Iterable[str], mono_ns: int) -> None:
        """From here on these beds, and no others."""
        self._beds, self._until_ns = frozenset(beds), mono_ns + WATCH_NS
        self._waiting = {bed: chunks for bed, chunks in self._waiting.items() if bed in self._beds}

    def take(self, events: Iterable[Event]) -> None:
        """Keep what is watched of the events that a shard is fed, in order per bed."""
        if self._beds:
            for event in events:
                if isinstance(event, Block):
                    chunks = [event.chunk(i) for i, bed in enumerate(event.beds) if bed in self._beds]
                else:
                    chunks = [event] if isinstance(event, Chunk) and event.bed in self._beds else []
                for chunk in chunks:
                    self._waiting.setdefault(chunk.bed, []).append(chunk)

    def blocks(self, mono_ns: int) -> Iterator[Waves]:
        """What has come, where 40 ms are over since the last time: a block of each run without a hole."""
        if mono_ns > self._until_ns:
            self._beds = frozenset()
            self._waiting.clear()
        if not self._waiting or mono_ns < self._due_ns:
            return
        self._due_ns = mono_ns + BLOCK_NS
        waiting, self._waiting = self._waiting, {}
        for chunks in waiting.values():
            yield from map(_block, self._runs(chunks))

    def _runs(self, chunks: list[Chunk]) -> list[list[Chunk]]:
        """The newest `MOST_S` of chunks, in runs in which each follows on the one before."""
        runs: list[list[Chunk]] = []
        left_s = MOST_S
        for chunk in reversed(chunks):
            n = chunk.samples.shape[1]
            most = round(left_s * chunk.rate)
            kept = chunk
            if n > most:
                self.counts["dropped"] += n - most
                if most <= 0:
                    continue
                kept = chunk._replace(first=chunk.first + n - most, samples=chunk.samples[:, n - most :])
            left_s -= min(n, most) / chunk.rate
            self.counts["told"] += min(n, most)
            if runs and _follows(kept, runs[-1][-1]):
                runs[-1].append(kept)
            else:
                runs.append([kept])
        return [run[::-1] for run in reversed(runs)]


def _follows(chunk: Chunk, after: Chunk) -> bool:
    end = chunk.first + chunk.samples.shape[1]
    return (chunk.epoch, chunk.signals, end) == (after.epoch, after.signals, after.first)


def _block(run: list[Chunk]) -> Waves:
    head = run[0]
    samples = np.concatenate([chunk.samples for chunk in run], axis=1).astype("<i2")  # a copy: leads that are off go
    off, at = 0, 0
    for chunk in run:
        n = chunk.samples.shape[1]
        for signal in range(len(head.signals)):
            if chunk.off >> signal & 1:
                samples[signal, at : at + n] = MISSING
        off |= chunk.off
        at += n
    return Waves(
        bed=head.bed, epoch=head.epoch, first=head.first, rate=head.rate, n=at, signals=head.signals,
        data=samples.data.cast("B"), off=off & (1 << len(head.signals)) - 1, received_ns=run[-1].received_ns,
    )  # fmt: skip
